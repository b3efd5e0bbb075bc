//! The figures as a picture: a panel for each measure, both axes logarithmic.

use std::fmt::Write as _;

const WIDTH: f64 = 260.0;
const HEIGHT: f64 = 170.0;
const MARGIN: f64 = 34.0;
const COLUMNS: usize = 4;
const COLOURS: [&str; 2] = ["#1f6feb", "#d9480f"];

/// A name, and the figures of each size.
pub(crate) type Series<'a, const N: usize> = (&'a str, Vec<(u64, [f64; N])>);

/// A panel for each of the measures, with a line for each series.
pub(crate) fn svg<const N: usize>(measures: &[(&str, &str); N], series: &[Series<'_, N>]) -> String {
    let rows = N.div_ceil(COLUMNS) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        WIDTH * COLUMNS as f64,
        HEIGHT * rows
    );
    for (number, (name, unit)) in measures.iter().enumerate() {
        let (left, top) = ((number % COLUMNS) as f64 * WIDTH, (number / COLUMNS) as f64 * HEIGHT);
        let lines: Vec<_> = series
            .iter()
            .map(|(of, rows)| {
                (*of, rows.iter().map(|(size, row)| (*size as f64, row[number])).collect::<Vec<_>>())
            })
            .collect();
        let _ = writeln!(
            svg,
            "<g transform=\"translate({left} {top})\"><text x=\"{MARGIN}\" y=\"14\">{name}, {unit}</text>"
        );
        panel(&mut svg, &lines);
        svg.push_str("</g>\n");
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, lines: &[(&str, Vec<(f64, f64)>)]) {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let logs = points().map(|point| of(point).max(1e-3).log10());
        let (least, most) =
            logs.fold((f64::MAX, f64::MIN), |(least, most), log| (least.min(log), most.max(log)));
        (least.floor(), most.ceil().max(least.floor() + 1.0))
    };
    let (x_bounds, y_bounds) = (bounds(|point| point.0), bounds(|point| point.1));
    let place = |value: f64, (least, most): (f64, f64)| (value.max(1e-3).log10() - least) / (most - least);
    let x = |value| MARGIN + place(value, x_bounds) * (WIDTH - 2.0 * MARGIN);
    let y = |value| HEIGHT - MARGIN - place(value, y_bounds) * (HEIGHT - 2.0 * MARGIN);
    for (bounds, across) in [(x_bounds, false), (y_bounds, true)] {
        for exponent in bounds.0 as i32..=bounds.1 as i32 {
            let value = 10_f64.powi(exponent);
            let (from, to, label) = if across {
                ((MARGIN, y(value)), (WIDTH - MARGIN, y(value)), (2.0, y(value) + 4.0))
            } else {
                ((x(value), MARGIN), (x(value), HEIGHT - MARGIN), (x(value) - 8.0, HEIGHT - MARGIN + 14.0))
            };
            let _ = writeln!(
                svg,
                "<path d=\"M{} {}L{} {}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{}\">1e{exponent}</text>",
                from.0, from.1, to.0, to.1, label.0, label.1
            );
        }
    }
    for ((name, points), colour) in lines.iter().zip(COLOURS) {
        let path: Vec<_> =
            points.iter().map(|(size, value)| format!("{:.1} {:.1}", x(*size), y(*value))).collect();
        let _ = writeln!(svg, "<path d=\"M{}\" stroke=\"{colour}\" fill=\"none\"/>", path.join("L"));
        if let Some((size, value)) = points.last() {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
                x(*size) + 3.0,
                y(*value)
            );
        }
    }
}

//! How a result is printed, row by row.

use std::fmt::Write as _;

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::super::output::{escape, field};
use super::rows::End;

/// Writes a result, whose rows need not all be known.
pub(super) trait Style {
    fn head(&mut self, text: &mut String, columns: &[String]);
    fn row(&mut self, text: &mut String, row: &[Value]);
    fn end(&mut self, text: &mut String, columns: &[String], end: End);
}

/// A header line and a line for each row, with tabs between the fields.
pub(super) struct Lines;

/// Columns of equal width, for people. How wide they are the first rows say.
#[derive(Default)]
pub(super) struct Table {
    rows: u64,
    /// The header and the first rows, until there are enough of them.
    first: Vec<Vec<Cell>>,
    widths: Vec<usize>,
}

/// Rows that decide on the widths.
const FIRST_ROWS: usize = 200;

/// Widest column: what is longer pushes the rest of its line aside.
const WIDTH: usize = 60;

struct Cell {
    text: String,
    is_number: bool,
}

/// One JSON object.
#[derive(Default)]
pub(super) struct Json {
    rows: u64,
}

impl Style for Lines {
    fn head(&mut self, text: &mut String, columns: &[String]) {
        if !columns.is_empty() {
            let names: Vec<_> = columns.iter().map(|column| escape(column)).collect();
            let _ = writeln!(text, "{}", names.join("\t"));
        }
    }

    fn row(&mut self, text: &mut String, row: &[Value]) {
        let fields: Vec<_> = row.iter().map(field).collect();
        let _ = writeln!(text, "{}", fields.join("\t"));
    }

    fn end(&mut self, _: &mut String, columns: &[String], end: End) {
        if columns.is_empty() {
            eprintln!("{} rows written", end.rows_written);
        }
    }
}

impl Style for Json {
    fn head(&mut self, text: &mut String, columns: &[String]) {
        let _ = write!(text, "{{\n  \"columns\": {},\n  \"rows\": [", Value::from(columns));
    }

    fn row(&mut self, text: &mut String, row: &[Value]) {
        let comma = if self.rows == 0 { "" } else { "," };
        let _ = write!(text, "{comma}\n    {}", Value::from(row));
        self.rows += 1;
    }

    fn end(&mut self, text: &mut String, _: &[String], end: End) {
        let close = if self.rows == 0 { "" } else { "\n  " };
        let (written, rowid) = (end.rows_written, end.last_insert_rowid);
        let _ =
            write!(text, "{close}],\n  \"rows_written\": {written},\n  \"last_insert_rowid\": {rowid}\n}}\n");
    }
}

impl Style for Table {
    fn head(&mut self, _: &mut String, columns: &[String]) {
        let names = columns.iter().map(|name| Cell { text: escape(name), is_number: false });
        self.first.push(names.collect());
    }

    fn row(&mut self, text: &mut String, row: &[Value]) {
        self.rows += 1;
        let cells: Vec<_> = row.iter().map(cell).collect();
        if self.widths.is_empty() {
            self.first.push(cells);
            if self.first.len() > FIRST_ROWS {
                self.begin(text);
            }
        } else {
            line(text, &self.widths, &cells);
        }
    }

    fn end(&mut self, text: &mut String, columns: &[String], end: End) {
        if columns.is_empty() {
            let _ = writeln!(text, "{} rows written", end.rows_written);
            return;
        }
        if self.widths.is_empty() {
            self.begin(text);
        }
        let _ = writeln!(text, "({} row{})", self.rows, if self.rows == 1 { "" } else { "s" });
    }
}

impl Table {
    /// Writes what has waited for the widths.
    fn begin(&mut self, text: &mut String) {
        let first = std::mem::take(&mut self.first);
        for row in &first {
            self.widths.resize(row.len(), 1);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.text.width().min(WIDTH).max(*width);
            }
        }
        for (number, row) in first.iter().enumerate() {
            line(text, &self.widths, row);
            if number == 0 {
                let rules: Vec<_> = self.widths.iter().map(|width| "-".repeat(*width)).collect();
                let _ = writeln!(text, "{}", rules.join("  "));
            }
        }
    }
}

fn cell(value: &Value) -> Cell {
    let text = if value.is_null() { "NULL".to_owned() } else { field(value) };
    Cell { text, is_number: value.is_number() }
}

fn line(text: &mut String, widths: &[usize], cells: &[Cell]) {
    let start = text.len();
    for (width, cell) in widths.iter().zip(cells) {
        let blank = " ".repeat(width.saturating_sub(cell.text.width()));
        let (before, after) = if cell.is_number { (blank.as_str(), "") } else { ("", blank.as_str()) };
        let gap = if text.len() == start { "" } else { "  " };
        let _ = write!(text, "{gap}{before}{}{after}", cell.text);
    }
    text.truncate(text.trim_end().len().max(start));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_columns_of_equal_width() {
        let columns = ["id".to_owned(), "name".to_owned()];
        let mut text = String::new();
        let mut table = Table::default();
        table.head(&mut text, &columns);
        for row in [json!([1, "čaj"]), json!([100, null]), json!([-2.5, "a\nb"])] {
            table.row(&mut text, row.as_array().unwrap());
        }
        table.end(&mut text, &columns, End::default());
        let expected = "\
id    name
----  ----
   1  čaj
 100  NULL
-2.5  a\\nb
(3 rows)
";
        assert_eq!(text, expected);
    }
}

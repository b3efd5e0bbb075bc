//! How a result is printed, row by row.

use std::fmt::Write as _;

use serde_json::Value;

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

//! Tables as lines of tab-separated fields, and JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;

/// Prints a header line and rows.
pub(super) fn print_table(columns: &[&str], rows: &[Vec<Value>]) -> anyhow::Result<()> {
    let mut text = String::new();
    let header: Vec<_> = columns.iter().map(|column| escape(column)).collect();
    let _ = writeln!(text, "{}", header.join("\t"));
    for row in rows {
        let fields: Vec<_> = row.iter().map(field).collect();
        let _ = writeln!(text, "{}", fields.join("\t"));
    }
    print(text.as_bytes())
}

/// Prints JSON, readable and with a newline at its end.
pub(super) fn print_json(value: &Value) -> anyhow::Result<()> {
    print(format!("{value:#}\n").as_bytes())
}

/// Prints bytes. A reader that has seen enough, such as `head`, is no error.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    print_if_read(bytes).map(drop)
}

/// Prints bytes; false: nobody reads them any more.
pub(super) fn print_if_read(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// One value as a field: text escaped, NULL as `\N`, a blob (`{"hex": …}`) as `\x…`, a list joined by commas.
pub(super) fn field(value: &Value) -> String {
    match value {
        Value::Null => "\\N".to_owned(),
        Value::String(text) => escape(text),
        Value::Array(values) => values.iter().map(field).collect::<Vec<_>>().join(","),
        Value::Object(object) => match object.get("hex").and_then(Value::as_str) {
            Some(hex) => format!("\\x{hex}"),
            None => escape(&value.to_string()),
        },
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Text with what would end a field or a line written as `\\t`, `\\n`, `\\r`, `\\\\`.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            c => escaped.push(c),
        }
    }
    escaped
}

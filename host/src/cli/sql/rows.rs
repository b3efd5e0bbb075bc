//! A result of the admin API, read line by line.

use http::Method;
use http::header::{ACCEPT, HeaderValue};
use serde_json::{Value, json};

use super::super::client::{Client, Reply, refused, request, segment};
use super::super::failure::Failure;

/// Longest line that is held in memory: the largest row with everything in it escaped.
const LINE_BYTES: usize = 256 * 1024 * 1024;

/// The rows of a statement, as the server reads them.
pub(super) struct Rows {
    columns: Vec<String>,
    reply: Reply,
    /// What has come of the lines that are not read yet, and where they begin.
    buffer: Vec<u8>,
    start: usize,
    end: End,
}

/// What is known when all rows have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    pub(super) rows_written: u64,
    pub(super) last_insert_rowid: i64,
}

impl Rows {
    /// Runs a statement.
    pub(super) async fn of(
        client: &Client,
        database: &str,
        sql: &str,
        params: &[Value],
    ) -> Result<Self, Failure> {
        let body = json!({ "sql": sql, "params": params }).to_string();
        let path = format!("/sql/{}", segment(database));
        let mut request = request(Method::POST, &path, Some("application/json"), body.into())?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/x-ndjson"));
        let reply = client.send(request).await?;
        let mut rows = Self { columns: Vec::new(), reply, buffer: Vec::new(), start: 0, end: End::default() };
        let head = rows.line().await?;
        let columns = head.get("columns").and_then(Value::as_array).ok_or_else(unexpected)?;
        rows.columns = columns.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(rows)
    }

    /// Names of the columns; none: the statement returns no rows.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The next row; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Value>>, Failure> {
        match self.line().await? {
            Value::Array(row) => Ok(Some(row)),
            error if error.get("error").is_some() => Err(refused(&error, String::new)),
            end => {
                let written = end.get("rows_written").and_then(Value::as_u64).ok_or_else(unexpected)?;
                let rowid = end.get("last_insert_rowid").and_then(Value::as_i64).unwrap_or_default();
                self.end = End { rows_written: written, last_insert_rowid: rowid };
                Ok(None)
            }
        }
    }

    /// What was said at the end.
    pub(super) fn end(&self) -> End {
        self.end
    }

    async fn line(&mut self) -> Result<Value, Failure> {
        let mut searched = self.start;
        loop {
            let rest = self.buffer.get(searched..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.get(self.start..searched + length).unwrap_or_default();
                let value = serde_json::from_slice(line).map_err(|_| unexpected())?;
                self.start = searched + length + 1;
                return Ok(value);
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            searched = self.buffer.len();
            if searched > LINE_BYTES {
                return Err(unexpected());
            }
            match self.reply.next().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return Err(Failure::Failed(anyhow::anyhow!("the server broke off"))),
            }
        }
    }
}

fn unexpected() -> Failure {
    Failure::Failed(anyhow::anyhow!("the server's answer is no result; is it another version?"))
}

//! A result as lines of JSON, sent as they are read, so that a result of any size takes the memory of a page.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::{Value as Data, json};
use tollgate_store::{Outcome, Pages};

use super::ApiError;
use crate::api::values::Row;

/// The content type.
pub(super) const TYPE: &str = "application/x-ndjson";

/// What is sent next.
enum Next {
    Columns(Pages),
    /// And how many rows came before.
    Rows(Pages, u64),
    Nothing,
}

/// The lines of a query; what fails after the first page is the last line.
pub(super) fn of_pages(pages: Pages) -> Response {
    let lines = stream::unfold(Next::Columns(pages), async |next| {
        let (text, next) = piece(next).await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), next))
    });
    ([(CONTENT_TYPE, TYPE)], Body::from_stream(lines)).into_response()
}

/// The lines of what is there whole.
pub(super) fn of_outcome(outcome: Outcome) -> Response {
    let mut text = String::new();
    line(&mut text, &json!({ "columns": outcome.columns }));
    let count = outcome.rows.len() as u64;
    outcome.rows.iter().for_each(|row| line(&mut text, &Row(row)));
    line(&mut text, &end(count, outcome.rows_written, outcome.last_insert_rowid));
    ([(CONTENT_TYPE, TYPE)], text).into_response()
}

async fn piece(next: Next) -> Option<(String, Next)> {
    let mut text = String::new();
    let next = match next {
        Next::Columns(pages) => {
            line(&mut text, &json!({ "columns": pages.columns() }));
            Next::Rows(pages, 0)
        }
        Next::Rows(mut pages, before) => match pages.next().await {
            Ok(Some(page)) => {
                let count = before + page.len() as u64;
                page.iter().for_each(|row| line(&mut text, &Row(row)));
                Next::Rows(pages, count)
            }
            Ok(None) => {
                line(&mut text, &end(before, 0, 0));
                Next::Nothing
            }
            Err(error) => {
                line(&mut text, &ApiError::from(error).body());
                Next::Nothing
            }
        },
        Next::Nothing => return None,
    };
    Some((text, next))
}

fn line(text: &mut String, value: &impl Serialize) {
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
    text.push('\n');
}

fn end(rows: u64, rows_written: u64, last_insert_rowid: i64) -> Data {
    json!({ "rows": rows, "rows_written": rows_written, "last_insert_rowid": last_insert_rowid })
}

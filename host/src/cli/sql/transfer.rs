//! `tollgate sql import` and `tollgate sql export`.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tollgate_store::sql::Source;

use super::super::client::{Client, request, segment};
use super::super::failure::Failure;

/// Bytes read at once of a file that is sent.
const PIECE_BYTES: usize = 256 * 1024;

/// Sends a file of this machine into a database.
pub(super) async fn import(
    client: &Client,
    database: &str,
    file: &Path,
    replace: bool,
) -> Result<(), Failure> {
    let refused = |error: tollgate_store::SqlError| Failure::Refused {
        message: format!("{}: {error}", file.display()),
        hint: None,
    };
    let source = Source::open(file).map_err(refused)?;
    let size = source.size();
    let progress = progress(size);
    let sent = progress.clone();
    let pieces = stream::try_unfold((source, size), move |(mut source, left)| {
        let sent = sent.clone();
        async move {
            let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES)];
            if piece.is_empty() {
                sent.set_message("the server checks it");
                return Ok(None);
            }
            source.read_exact(&mut piece)?;
            sent.inc(piece.len() as u64);
            let left = left - piece.len() as u64;
            Ok(Some((Frame::data(Bytes::from(piece)), (source, left))))
        }
    });
    let path = format!("/sql/{}/file?replace={replace}", segment(database));
    let request = Request::builder()
        .method(Method::PUT)
        .uri(path)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/vnd.sqlite3"))
        .header(CONTENT_LENGTH, size)
        .body(StreamBody::new(pieces).boxed_unsync());
    let reply = client.send(request.map_err(|error| Failure::Failed(error.into()))?).await;
    progress.finish_and_clear();
    let answer = reply?.json().await?;
    let number = |name| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    eprintln!("{} bytes with {} tables are in `{database}`", number("bytes"), number("tables"));
    Ok(())
}

/// Writes a database into a file that is not there yet. The file appears when it is whole.
pub(super) async fn export(client: &Client, database: &str, file: &Path) -> Result<(), Failure> {
    if file.exists() {
        return Err(Failure::Refused {
            message: format!("{} exists already", file.display()),
            hint: Some("remove it first, or choose another name".to_owned()),
        });
    }
    let cannot = || format!("cannot write {}", file.display());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut part = tempfile::Builder::new().prefix(".tollgate-").tempfile_in(folder).with_context(cannot)?;
    let path = format!("/sql/{}/file", segment(database));
    let mut reply = client.send(request(Method::GET, &path, None, Bytes::new())?).await?;
    let length = reply.length().context("the server did not say how long the file is")?;
    let progress = progress(length);
    let mut received = 0;
    while let Some(piece) = reply.next().await? {
        part.write_all(&piece).with_context(cannot)?;
        received += piece.len() as u64;
        progress.set_position(received);
    }
    progress.finish_and_clear();
    if received != length {
        return Err(Failure::Failed(anyhow::anyhow!(
            "the server broke off after {received} of {length} bytes"
        )));
    }
    part.as_file().sync_all().with_context(cannot)?;
    part.persist_noclobber(file).map_err(|error| anyhow::Error::new(error.error)).with_context(cannot)?;
    eprintln!("{length} bytes are in {}", file.display());
    Ok(())
}

/// Shown on a terminal only.
fn progress(bytes: u64) -> ProgressBar {
    let progress = ProgressBar::new(bytes);
    let template = "{bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {elapsed}  {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        progress.set_style(style);
    }
    progress
}

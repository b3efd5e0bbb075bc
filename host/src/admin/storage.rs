//! `/storage`: what is in the store, and whether it is in order. Compacting is no part of it: that needs the file alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_store::{StoreKind, StoreReport};
use utoipa::ToSchema;

use super::Shared;
use super::audit::{Gone, Via, audit};
use super::error::ApiError;
use super::extract::Segments;
use super::limits::STORAGE_WAIT;

/// One report at a time: each reads as much as a store has, and keeps what it sees from being used again. Its place is
/// given back when it has ended, which for one that nobody waits for any more is a little later.
#[derive(Clone)]
pub struct Reading(Arc<Semaphore>);

impl Default for Reading {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Reading {
    async fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.place_within(STORAGE_WAIT).await
    }

    async fn place_within(&self, wait: Duration) -> Result<OwnedSemaphorePermit, ApiError> {
        match tokio::time::timeout(wait, self.0.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => {
                Err(ApiError::unavailable("another report is being made").hint("come again when it is done"))
            }
        }
    }
}

/// The named stores there are.
#[derive(Serialize, ToSchema)]
pub(super) struct StorageList {
    /// In the order of kinds and names; those that no configuration names any more too.
    stores: Vec<StorageName>,
}

/// A named store.
#[derive(Serialize, ToSchema)]
struct StorageName {
    /// `kv`, `sql`, `blob`, `vector` or `queue`.
    kind: &'static str,
    name: String,
}

/// The named stores, those that no configuration names any more too.
#[utoipa::path(get, path = "/storage", responses((status = 200, body = StorageList)))]
pub(super) async fn list(State(admin): State<Shared>) -> Result<Answer<StorageList>, ApiError> {
    let names = admin.store.names().await?;
    let stores = names.into_iter().map(|(kind, name)| StorageName { kind: kind.name(), name }).collect();
    Ok(Answer(StorageList { stores }))
}

/// What the file is made of.
#[derive(Serialize, ToSchema)]
pub(super) struct StorageFile {
    /// Where the file is, on the server; null: there is none.
    path: Option<String>,
    /// Bytes of the file.
    file_bytes: Option<u64>,
    /// Bytes that nothing stands in, but for some of redb's own: they are used again, or given back by a compaction.
    free_bytes: Option<u64>,
    /// The tables of all kinds of stores.
    tables: Vec<StorageTable>,
}

/// A table of the file, which all named stores of a kind share.
#[derive(Serialize, ToSchema)]
struct StorageTable {
    name: String,
    rows: u64,
    /// Bytes of keys and values.
    stored_bytes: u64,
    /// Bytes of what leads to them.
    metadata_bytes: u64,
    /// Bytes of its pages that hold nothing.
    fragmented_bytes: u64,
}

/// What the file is made of. It reads the whole file once.
#[utoipa::path(get, path = "/storage/file", responses((status = 200, body = StorageFile)))]
pub(super) async fn file(State(admin): State<Shared>) -> Result<Answer<StorageFile>, ApiError> {
    let place = admin.reading.place().await?;
    let report = admin.store.file_report(place).await?;
    let (file_bytes, free_bytes) = (report.file_bytes, report.free_bytes());
    let path = report.path.map(|path| path.display().to_string());
    let tables = report.tables.into_iter().map(|table| StorageTable {
        name: table.name,
        rows: table.rows,
        stored_bytes: table.stored_bytes,
        metadata_bytes: table.metadata_bytes,
        fragmented_bytes: table.fragmented_bytes,
    });
    Ok(Answer(StorageFile { path, file_bytes, free_bytes, tables: tables.collect() }))
}

/// What is in a named store.
#[derive(Serialize, ToSchema)]
pub(super) struct StorageReport {
    /// `kv`, `sql`, `blob`, `vector` or `queue`.
    kind: &'static str,
    name: String,
    /// Keys, rows, objects, vectors or events; null: counting them takes too long.
    entries: Option<u64>,
    /// Bytes that are stored of them.
    bytes: u64,
    /// What is there and not seen any more: expired keys, free pages, released contents, dead vectors, removed rows.
    dead: u64,
    /// All figures of its kind.
    figures: BTreeMap<&'static str, u64>,
    /// Rows of each table of a database; null: counting them takes too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tables: Option<BTreeMap<String, Option<u64>>>,
    /// What does not fit together; empty: all is well. Only of a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problems: Option<Vec<String>>,
}

/// What is in a named store. It reads about as much as the store has.
#[utoipa::path(get, path = "/storage/{kind}/{name}", responses((status = 200, body = StorageReport)))]
pub(super) async fn stats(
    State(admin): State<Shared>,
    Segments((kind, name)): Segments<(String, String)>,
) -> Result<Answer<StorageReport>, ApiError> {
    report(&admin, &kind, &name, false).await.map(Answer)
}

/// Reads a named store whole and compares what can be compared: the SHA-256 of every chunk, every count of references, SQLite's
/// own check, indexes with their rows, memory with the file. The store serves meanwhile.
#[utoipa::path(post, path = "/storage/{kind}/{name}/check", responses((status = 200, body = StorageReport)))]
pub(super) async fn check(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Extension(gone): Extension<Gone>,
    Segments((kind, name)): Segments<(String, String)>,
) -> Result<Answer<StorageReport>, ApiError> {
    let checked = gone.unless(report(&admin, &kind, &name, true)).await.flatten();
    audit(via, "storage check", &format!("{kind}/{name}"), checked).map(Answer)
}

async fn report(admin: &Shared, kind: &str, name: &str, thorough: bool) -> Result<StorageReport, ApiError> {
    let no_such = || {
        ApiError::not_found(format!("there is no {kind} store `{name}`"))
            .hint("`tollgate store stats` shows the stores there are")
    };
    let (_, kind) = StoreKind::NAMED.into_iter().find(|(known, _)| *known == kind).ok_or_else(no_such)?;
    let place = admin.reading.place().await?;
    let report = admin.store.report(kind, name, thorough, place).await?.ok_or_else(no_such)?;
    let problems = report.problems().to_vec();
    let mut answer = StorageReport::new(kind, name, report);
    if thorough || !problems.is_empty() {
        answer.problems = Some(problems);
    }
    Ok(answer)
}

impl StorageReport {
    fn new(kind: StoreKind, name: &str, report: StoreReport) -> Self {
        let mut tables = None;
        let (entries, bytes, dead, figures) = match report {
            StoreReport::Kv(kv) => {
                let figures = vec![
                    ("key_bytes", kv.key_bytes),
                    ("value_bytes", kv.value_bytes),
                    ("expiring", kv.expiring),
                    ("expired", kv.expired),
                ];
                (Some(kv.keys), kv.key_bytes + kv.value_bytes, kv.expired, figures)
            }
            StoreReport::Sql(sql) => {
                let figures = vec![
                    ("page_bytes", sql.page_bytes),
                    ("pages", sql.pages),
                    ("free_pages", sql.free_pages),
                    ("tables", sql.tables.len() as u64),
                ];
                let rows: Option<u64> = sql.tables.iter().map(|(_, rows)| *rows).sum();
                tables = Some(sql.tables.into_iter().collect());
                (rows, sql.stored_bytes, sql.free_pages, figures)
            }
            StoreReport::Blob(blob) => {
                let figures = vec![
                    ("object_bytes", blob.object_bytes),
                    ("chunks", blob.chunks),
                    ("references", blob.references),
                    ("released", blob.released),
                ];
                (Some(blob.objects), blob.stored_bytes, blob.released, figures)
            }
            StoreReport::Vector(vector) => {
                let figures = vec![("memory_bytes", vector.memory_bytes)];
                (Some(vector.vectors), vector.value_bytes, vector.dead, figures)
            }
            StoreReport::Queue(queue) => {
                (Some(queue.events), queue.event_bytes, queue.dead_rows, vec![("rows", queue.rows)])
            }
        };
        let figures = figures.into_iter().collect();
        Self {
            kind: kind.name(),
            name: name.to_owned(),
            entries,
            bytes,
            dead,
            figures,
            tables,
            problems: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_report_is_made_at_a_time_and_others_are_told_to_come_again() {
        let reading = Reading::default();
        let place = reading.place_within(Duration::ZERO).await.unwrap();
        assert_eq!(reading.place_within(Duration::ZERO).await.unwrap_err().code(), "unavailable");
        drop(place);
        assert!(reading.place_within(Duration::ZERO).await.is_ok());
    }
}

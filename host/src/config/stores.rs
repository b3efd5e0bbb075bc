//! The named stores of a configuration.

use std::collections::BTreeMap;

use tollgate_store::{
    CacheOptions, Metric, Strategy, VectorOptions, limits as store_limits, vector::limits as vector_limits,
};

use super::reader::Section;
use super::{
    Acknowledge, BlobContainer, Config, Engine, GATEWAY_DATABASE, HOST_KV, KvStore, SqlDatabase, VectorIndex,
    limits,
};

pub(super) fn named<T>(
    sections: Vec<(&str, Section<'_>)>,
    read: fn(&Section<'_>) -> T,
) -> BTreeMap<String, T> {
    let mut map = BTreeMap::new();
    for (name, section) in sections {
        map.insert(name.to_owned(), read(&section));
        section.finish();
    }
    map
}

/// Without the host's own, which holds secrets.
pub(super) fn kv_sections<'a>(section: &Section<'a>) -> Vec<(&'a str, Section<'a>)> {
    let mut sections = section.named_sections("kv");
    sections.retain(|(name, section)| {
        if *name == HOST_KV {
            section.report(format!("[kv.{HOST_KV:?}] is the server's own; take another name"));
        }
        *name != HOST_KV
    });
    sections
}

/// The rules must outlive the process.
pub(super) fn sql_sections<'a>(section: &Section<'a>) -> Vec<(&'a str, Section<'a>)> {
    let sections = section.named_sections("sql");
    for (name, section) in &sections {
        if *name == GATEWAY_DATABASE && section.text("engine") == Some("memory") {
            section.problem(
                "engine",
                format!("`engine`{} must be `redb`: keys and plugins are kept there", section.place()),
            );
        }
    }
    sections
}

pub(super) fn engine(section: &Section<'_>) -> Engine {
    section.choice("engine", &Engine::NAMED).unwrap_or_default()
}

pub(super) fn kv(section: &Section<'_>) -> KvStore {
    let choices = [("durable", Acknowledge::Durable), ("relaxed", Acknowledge::Relaxed)];
    KvStore {
        engine: engine(section),
        acknowledge: section.choice("acknowledge", &choices),
        default_ttl_ms: section.number("default_ttl_ms", 1..=limits::TTL_MOST_MS),
        limit_bytes: section.number("limit_bytes", 1..=limits::CACHE_MOST_BYTES),
    }
}

/// One that may have all the memory of the stores in memory would take it from the others. Where all of them are there, nothing is a
/// file.
pub(super) fn in_memory(section: &Section<'_>, config: &Config) {
    let most = config.storage.memory_bytes;
    let is_all = config.storage.engine == Engine::Memory;
    for (name, blob) in &config.blob {
        if is_all && blob.engine == Engine::Files {
            let files = format!("`engine` in [blob.{name}] cannot be `files`");
            section.problem("blob", format!("{files}: `engine` in [storage] is `memory`"));
        }
    }
    for (name, kv) in &config.kv {
        let is_there = is_all || kv.engine == Engine::Memory;
        if is_there && kv.limit_bytes.is_some_and(|limit_bytes| limit_bytes >= most) {
            section.problem(
                "kv",
                format!(
                    "`limit_bytes` in [kv.{name}] must be less than `memory_bytes` in [storage] ({most})"
                ),
            );
        }
    }
}

pub(super) fn cache(section: &Section<'_>) -> CacheOptions {
    let defaults = CacheOptions::default();
    let most = (store_limits::CACHE_ENTRIES_MOST, store_limits::CACHE_ROOM_BYTES_MOST);
    CacheOptions {
        entries: section.number("entries", 1..=most.0).unwrap_or(defaults.entries),
        bytes: section.number("bytes", 1..=most.1).unwrap_or(defaults.bytes),
        strategy: section.choice("strategy", &Strategy::NAMED).unwrap_or(defaults.strategy),
        adaptive: section.flag("adaptive").unwrap_or(defaults.adaptive),
    }
}

pub(super) fn sql(section: &Section<'_>) -> SqlDatabase {
    SqlDatabase { engine: engine(section) }
}

pub(super) fn blob(section: &Section<'_>) -> BlobContainer {
    let header = |value: &str| !value.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let cache_control = section.text("cache_control");
    if cache_control.is_some_and(header) {
        let place = section.place();
        section.problem("cache_control", format!("`cache_control`{place} must be printable ASCII"));
    }
    BlobContainer {
        engine: section.choice("engine", &Engine::OF_BLOBS).unwrap_or_default(),
        object_limit_bytes: section.number("object_limit_bytes", 1..=limits::OBJECT_MOST_BYTES),
        content_types: section.texts("content_types").unwrap_or_default(),
        cache_control: cache_control.map(str::to_owned),
    }
}

pub(super) fn vector(section: &Section<'_>) -> VectorIndex {
    let place = section.place();
    if !section.has("dimensions") {
        section.report(format!("missing `dimensions`{place}"));
    }
    let dimensions = section.number("dimensions", 1..=vector_limits::DIMENSIONS as u64);
    let defaults = VectorOptions::new(dimensions.and_then(|number| number.try_into().ok()).unwrap_or(1));
    let options = VectorOptions {
        metric: section.choice("metric", &Metric::NAMED).unwrap_or(defaults.metric),
        indexed: section.texts("indexed").unwrap_or_default(),
        vectors: section.number("vector_limit", 1..=vector_limits::VECTORS_MOST).unwrap_or(defaults.vectors),
        exact_up_to: section
            .number("exact_up_to", vector_limits::EXACT_UP_TO_LEAST..=vector_limits::VECTORS_MOST)
            .unwrap_or(defaults.exact_up_to),
        ..defaults
    };
    // The numbers are within their bounds by now.
    if let Err(error) = options.check() {
        section.problem("indexed", format!("`indexed`{place}: {error}"));
    }
    VectorIndex { engine: engine(section), options }
}

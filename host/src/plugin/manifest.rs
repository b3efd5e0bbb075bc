//! `plugin.toml`: what a plugin is called, what it may touch, and how much of it.

mod beyond;
mod http;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::limits;
pub use http::{Http, Reach};

/// A validated manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Lower-case letters, digits and dashes.
    pub name: String,
    /// The plugin's own version; told, not compared.
    pub version: String,
    /// Place in the admission chain, low first.
    pub order: i32,
    /// What a failing admit call means.
    pub on_error: OnError,
    /// What it may touch.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// Where it answers requests.
    pub http: Option<Http>,
    /// Settings that it reads through `wasi:config`. No place for secrets: they are kept as they stand in the manifest.
    pub config: BTreeMap<String, String>,
}

/// What a failing admit call means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The request is refused.
    #[default]
    Deny,
    /// The request passes.
    Allow,
}

/// Stores that a plugin may open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Caches by name.
    pub cache: BTreeMap<String, Access>,
    /// Key-value stores by name.
    pub kv: BTreeMap<String, Access>,
    /// SQL databases by name.
    pub sql: BTreeMap<String, SqlGrant>,
    /// Blob containers by name.
    pub blob: BTreeMap<String, Access>,
    /// Vector indexes by name.
    pub vector: BTreeMap<String, Access>,
    /// Hosts that it may send requests to, by `HOST` or `HOST:PORT`; none: it cannot send any.
    pub http: Option<BTreeMap<String, Reach>>,
}

/// How far a grant goes; a later one further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// A grant of a database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SqlGrant {
    /// The whole database.
    Whole(Access),
    /// These tables of it.
    Tables(BTreeMap<String, Access>),
}

/// What a plugin may use; what the manifest leaves out has its default in [`limits`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of an instance.
    pub memory_bytes: usize,
    /// Linear memory of all instances together.
    pub total_memory_bytes: usize,
    /// How instances are kept.
    pub instances: Instances,
    /// Running time of an admit call.
    pub admit_deadline: Duration,
    /// Running time of a settle call.
    pub settle_deadline: Duration,
    /// Running time of an ingest call.
    pub ingest_deadline: Duration,
    /// Running time of an init call.
    pub init_deadline: Duration,
    /// Running time of one run of a job.
    pub job_deadline: Duration,
    /// Running time of one answer to a request under its route.
    pub http_deadline: Duration,
}

/// How instances are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// Warm, this many calls at once.
    Warm(u32),
    /// A fresh one for each call: slower by some twenty microseconds, and no call sees what another left in memory.
    PerCall,
}

/// Why a manifest is refused; the text names the key and what is allowed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ManifestError(String);

impl Manifest {
    /// Reads and checks the text of a `plugin.toml`.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        if text.len() > limits::MANIFEST_BYTES {
            return Err(ManifestError(format!(
                "the manifest has {} bytes; at most {} are allowed",
                text.len(),
                limits::MANIFEST_BYTES
            )));
        }
        let raw: Raw = toml::from_str(text).map_err(|error| ManifestError(error.to_string()))?;
        raw.validate()
    }
}

impl Grants {
    /// A line for each, as a manifest has it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.kv.iter().map(|(name, access)| format!("kv.{name} = {:?}", access.name())).collect();
        for (database, grant) in &self.sql {
            match grant {
                SqlGrant::Whole(access) => lines.push(format!("sql.{database} = {:?}", access.name())),
                SqlGrant::Tables(tables) => lines.extend(
                    tables
                        .iter()
                        .map(|(table, access)| format!("sql.{database}.{table} = {:?}", access.name())),
                ),
            }
        }
        for (kind, grants) in [("blob", &self.blob), ("vector", &self.vector), ("cache", &self.cache)] {
            lines.extend(grants.iter().map(|(name, access)| format!("{kind}.{name} = {:?}", access.name())));
        }
        let hosts = self.http.iter().flatten();
        lines.extend(hosts.map(|(host, reach)| format!("http.{host:?} = {:?}", reach.name())));
        lines
    }
}

impl Access {
    /// As a manifest has it.
    pub fn name(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::ReadWrite => "read-write",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    name: String,
    #[serde(default = "unversioned")]
    version: String,
    #[serde(default = "default_order")]
    order: i32,
    #[serde(default)]
    on_error: OnError,
    #[serde(default)]
    grants: RawGrants,
    #[serde(default)]
    limits: RawLimits,
    http: Option<Http>,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawGrants {
    #[serde(default)]
    cache: BTreeMap<String, Access>,
    #[serde(default)]
    kv: BTreeMap<String, Access>,
    #[serde(default)]
    sql: BTreeMap<String, SqlGrant>,
    #[serde(default)]
    blob: BTreeMap<String, Access>,
    #[serde(default)]
    vector: BTreeMap<String, Access>,
    http: Option<BTreeMap<String, Reach>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLimits {
    memory_bytes: Option<u64>,
    total_memory_bytes: Option<u64>,
    instances: Option<RawInstances>,
    admit_deadline_ms: Option<u64>,
    settle_deadline_ms: Option<u64>,
    ingest_deadline_ms: Option<u64>,
    init_deadline_ms: Option<u64>,
    job_deadline_ms: Option<u64>,
    http_deadline_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawInstances {
    Count(u64),
    Word(String),
}

fn unversioned() -> String {
    "0.0.0".to_owned()
}

/// After the shipped policies.
fn default_order() -> i32 {
    100
}

impl Raw {
    fn validate(self) -> Result<Manifest, ManifestError> {
        let named = self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if self.name.is_empty() || self.name.len() > limits::NAME_BYTES || !named {
            return Err(ManifestError(format!(
                "name = {:?}: 1 to {} of a-z, 0-9 and '-' are allowed",
                self.name,
                limits::NAME_BYTES
            )));
        }
        if self.version.is_empty() || self.version.len() > limits::NAME_BYTES {
            return Err(ManifestError(format!("version: 1 to {} bytes are allowed", limits::NAME_BYTES)));
        }
        Ok(Manifest {
            name: self.name,
            version: self.version,
            order: self.order,
            on_error: self.on_error,
            grants: self.grants.validate()?,
            limits: self.limits.validate()?,
            http: self.http.map(Http::check).transpose()?,
            config: self.config,
        })
    }
}

impl RawGrants {
    fn validate(self) -> Result<Grants, ManifestError> {
        let tables: usize = self.sql.values().map(tables_of).sum();
        let simple = [&self.cache, &self.kv, &self.blob, &self.vector].map(BTreeMap::len);
        let hosts = self.http.as_ref().map_or(0, BTreeMap::len);
        if simple.iter().sum::<usize>() + self.sql.len() + tables + hosts > limits::GRANTS {
            return Err(ManifestError(format!("grants: at most {} are allowed", limits::GRANTS)));
        }
        if let Some((database, _)) = self.sql.iter().find(|(_, grant)| is_empty(grant)) {
            return Err(ManifestError(format!(
                "grants.sql.{database} names no table; give tables, or \"read\" or \"read-write\" for all of it"
            )));
        }
        let RawGrants { cache, kv, sql, blob, vector, http } = self;
        http.iter().flat_map(BTreeMap::keys).try_for_each(|host| http::check_host(host))?;
        Ok(Grants { cache, kv, sql, blob, vector, http })
    }
}

fn tables_of(grant: &SqlGrant) -> usize {
    match grant {
        SqlGrant::Whole(_) => 0,
        SqlGrant::Tables(tables) => tables.len(),
    }
}

fn is_empty(grant: &SqlGrant) -> bool {
    matches!(grant, SqlGrant::Tables(tables) if tables.is_empty())
}

impl RawLimits {
    fn validate(self) -> Result<Limits, ManifestError> {
        let memory = self.memory_bytes.unwrap_or(limits::MEMORY_BYTES as u64);
        within("limits.memory-bytes", memory, 1, limits::MEMORY_BYTES_MAX as u64)?;
        let total = self.total_memory_bytes.unwrap_or(limits::TOTAL_MEMORY_BYTES as u64);
        within("limits.total-memory-bytes", total, memory, limits::TOTAL_MEMORY_BYTES_MAX as u64)?;
        Ok(Limits {
            memory_bytes: usize::try_from(memory).unwrap_or(limits::MEMORY_BYTES_MAX),
            total_memory_bytes: usize::try_from(total).unwrap_or(limits::TOTAL_MEMORY_BYTES_MAX),
            instances: instances(self.instances)?,
            admit_deadline: deadline(
                "limits.admit-deadline-ms",
                self.admit_deadline_ms,
                limits::ADMIT_DEADLINE,
            )?,
            settle_deadline: deadline(
                "limits.settle-deadline-ms",
                self.settle_deadline_ms,
                limits::SETTLE_DEADLINE,
            )?,
            ingest_deadline: deadline(
                "limits.ingest-deadline-ms",
                self.ingest_deadline_ms,
                limits::INGEST_DEADLINE,
            )?,
            init_deadline: deadline("limits.init-deadline-ms", self.init_deadline_ms, limits::INIT_DEADLINE)?,
            job_deadline: deadline("limits.job-deadline-ms", self.job_deadline_ms, limits::JOB_DEADLINE)?,
            http_deadline: deadline("limits.http-deadline-ms", self.http_deadline_ms, limits::HTTP_DEADLINE)?,
        })
    }
}

fn instances(raw: Option<RawInstances>) -> Result<Instances, ManifestError> {
    match raw {
        None => Ok(Instances::Warm(limits::INSTANCES)),
        Some(RawInstances::Count(count)) => {
            within("limits.instances", count, 1, u64::from(limits::INSTANCES_MAX))?;
            Ok(Instances::Warm(u32::try_from(count).unwrap_or(limits::INSTANCES_MAX)))
        }
        Some(RawInstances::Word(word)) if word == "per-call" => Ok(Instances::PerCall),
        Some(RawInstances::Word(word)) => Err(ManifestError(format!(
            "limits.instances = {word:?}: 1 to {} or \"per-call\" is allowed",
            limits::INSTANCES_MAX
        ))),
    }
}

fn deadline(key: &str, ms: Option<u64>, default: Duration) -> Result<Duration, ManifestError> {
    let Some(ms) = ms else { return Ok(default) };
    let most = u64::try_from(limits::DEADLINE_MAX.as_millis()).unwrap_or(u64::MAX);
    within(key, ms, 1, most)?;
    Ok(Duration::from_millis(ms))
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), ManifestError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ManifestError(format!("{key} = {value}: {least} to {most} is allowed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: &str = r#"
        name = "quota"
        version = "0.1.0"
        order = 20
        on-error = "deny"
        [grants.cache]
        models = "read"
        [grants.kv]
        quota = "read-write"
        [grants.sql.gateway]
        request_logs = "read-write"
        [limits]
        memory-bytes = 16777216
        instances = 64
        admit-deadline-ms = 20
        [config]
        greeting = "hello"
    "#;

    fn refusal(text: &str) -> String {
        Manifest::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_full_manifest_is_read() {
        let manifest = Manifest::parse(QUOTA).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.order), ("quota", 20));
        assert_eq!(manifest.grants.kv["quota"], Access::ReadWrite);
        assert_eq!(manifest.grants.cache["models"], Access::Read);
        let tables = BTreeMap::from([("request_logs".to_owned(), Access::ReadWrite)]);
        assert_eq!(manifest.grants.sql["gateway"], SqlGrant::Tables(tables));
        let lines = [
            "kv.quota = \"read-write\"",
            "sql.gateway.request_logs = \"read-write\"",
            "cache.models = \"read\"",
        ];
        assert_eq!(manifest.grants.lines(), lines);
        assert_eq!(manifest.limits.instances, Instances::Warm(64));
        assert_eq!(manifest.config["greeting"], "hello");
        assert_eq!(manifest.limits.ingest_deadline, limits::INGEST_DEADLINE);
    }

    #[test]
    fn a_whole_database_and_instances_per_call_can_be_had() {
        let text = "name = \"a\"\n[grants.sql]\ngateway = \"read\"\n[limits]\ninstances = \"per-call\"";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.grants.sql["gateway"], SqlGrant::Whole(Access::Read));
        assert_eq!(manifest.limits.instances, Instances::PerCall);
    }

    #[test]
    fn a_wrong_key_or_value_is_named_with_what_is_allowed() {
        assert!(refusal("name = \"a\"\norde = 1").contains("orde"));
        assert!(refusal("name = \"a\"\norde = 1").contains("on-error"));
        assert!(refusal("name = \"Quota\"").contains("a-z"));
        assert!(refusal("name = \"a\"\non-error = \"ignore\"").contains("allow"));
        assert!(refusal("name = \"a\"\n[limits]\nmemory-bytes = 1000000000").contains("67108864"));
        let total = "name = \"a\"\n[limits]\nmemory-bytes = 2000000\ntotal-memory-bytes = 1000000";
        assert!(refusal(total).contains("limits.total-memory-bytes = 1000000: 2000000 to"));
        assert!(refusal("name = \"a\"\n[limits]\ninstances = \"many\"").contains("per-call"));
        assert!(refusal("name = \"a\"\n[limits]\nadmit-deadline-ms = 0").contains("admit-deadline-ms"));
        assert!(refusal("name = \"a\"\n[grants.kv]\nquota = \"write\"").contains("read-write"));
        assert!(refusal("name = \"a\"\n[config]\ndepth = 3").contains("depth = 3"));
        assert!(refusal("name = \"a\"\n[grants.sql.gateway]").contains("grants.sql.gateway"));
    }
}

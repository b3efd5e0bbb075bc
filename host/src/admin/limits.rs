//! Every limit of the admin API, with its reason.

use std::time::Duration;

/// Largest JSON body; one SQL statement with its parameters, or a key's description, stays far below.
pub(super) const JSON_BYTES: usize = 4 * 1024 * 1024;

/// Largest body that makes or changes a key, an account or a token: 256 KiB of models and as much of certificates, twice. Such
/// a body is read into `serde_json::Value`s, of which some take a hundred times their text.
pub(super) const SETTINGS_BYTES: usize = 1024 * 1024;

/// Keys of one page of a kv store; the store's own limit.
pub(super) const PAGE_KEYS: u32 = 1000;

/// Keys of a page when none is asked for: a screenful or two.
pub(super) const PAGE_KEYS_DEFAULT: u32 = 100;

/// Longest reason of a blacklist entry: a sentence, told to clients.
pub(super) const REASON_BYTES: usize = 512;

/// Longest life of a blacklist entry: a year; what should last longer is a revoked key or a removed account.
pub(super) const BLACKLIST_TTL_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// Blacklist entries added at once; one commit takes twice as many changes.
pub(crate) const BLACKLIST_BATCH: usize = 500;

/// Time for an SQL statement; longer ones would keep old pages alive.
pub(super) const SQL_DEADLINE: Duration = Duration::from_secs(60);

/// Time for a result that is read line by line, until its last line was taken: a million rows over a slow connection. As
/// long as it lasts old pages are kept.
pub(super) const SQL_LINES_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// How long a report of the store waits for another one: most take less.
pub(super) const STORAGE_WAIT: Duration = Duration::from_secs(5);

/// How often the audit log is looked through for what is past its time.
pub(super) const AUDIT_PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

/// Rows of the audit log removed in one transaction: some milliseconds, in which no other change is held up.
pub(super) const AUDIT_PRUNED_AT_ONCE: i64 = 500;

/// Time for a database that comes or goes as a file: some tens of gigabytes. An export keeps old pages as long as it lasts.
pub(super) const SQL_FILE_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Longest silence of a client that sends a file, and longest time that one takes for a piece of a file it gets.
pub(super) const SQL_FILE_STALL: Duration = Duration::from_secs(60);

/// How often wrong admin tokens get a row in the audit log: 1,440 a day at most, however many are tried.
pub(super) const REFUSALS_EVERY: Duration = Duration::from_secs(60);

//! Every limit of data tokens, with its reason.

/// Tokens of a server: one for each application that uses it, and one page of the store's list.
pub(super) const TOKENS: u32 = 1_000;

/// Longest name; names end up in paths and logs.
pub(super) const NAME_BYTES: usize = 64;

/// Scopes of a token: more stores than any application of today uses.
pub(super) const SCOPES: usize = 32;

/// Longest prefix: the longest key of a kv store.
pub(super) const PREFIX_BYTES: usize = tollgate_store::limits::KEY_BYTES;

/// Tables that a scope names.
pub(super) const TABLES: usize = 64;

/// Longest name of a table.
pub(super) const TABLE_BYTES: usize = 128;

/// Bytes of all that is kept of a token, so that all tokens can be read at once.
pub(super) const RECORD_BYTES: usize = 8 * 1024;

/// Tokens in use whose scopes are kept at hand.
pub(super) const READY_TOKENS: u64 = 1_000;

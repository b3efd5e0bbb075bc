//! Every limit of what is kept encrypted, with its reason.

/// Bytes of a key: what the cipher takes.
pub(crate) const KEY_BYTES: usize = 32;

/// Longest text that is sealed: credentials are far shorter, and the column is read whole at every start.
pub(crate) const PLAIN_BYTES: usize = 16 * 1024;

/// Longest file that is read for a master key: 64 digits and a line's end, with room for a mistaken file to be named.
pub(crate) const KEY_FILE_BYTES: u64 = 4 * 1024;

//! `tollgate.toml`, raw and validated.

//! SQL databases: SQLite over pages kept in redb.

pub(crate) mod pages;

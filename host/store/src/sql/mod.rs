//! SQL databases: SQLite over pages kept in redb.

//! What the holder of a database handle may do.

/// What a handle may do. ATTACH, DETACH, VACUUM INTO, extensions, temporary tables and pragmas that weaken the database
/// are closed to all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everything.
    #[default]
    Full,
    /// Everything that only reads.
    ReadOnly,
    /// Only these tables, and their indexes.
    Tables {
        /// One entry for each table; a table that no entry names is closed.
        rules: Vec<TableGrant>,
    },
}

/// What may be done with one table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableGrant {
    /// The table's name; its case does not matter, as in SQLite.
    pub table: String,
    /// SELECT, also inside of other statements.
    pub read: bool,
    /// INSERT, UPDATE, DELETE, and making the table: CREATE TABLE of that name, CREATE INDEX on it and ALTER TABLE … ADD
    /// COLUMN; never DROP or renaming.
    pub write: bool,
}

impl TableGrant {
    /// Reading and writing a table.
    pub fn read_write(table: impl Into<String>) -> Self {
        Self { table: table.into(), read: true, write: true }
    }

    /// Reading a table.
    pub fn read(table: impl Into<String>) -> Self {
        Self { table: table.into(), read: true, write: false }
    }
}

//! What the holder of a database handle may do.

use std::collections::HashMap;

use rusqlite::hooks::AuthAction;

use super::shape::Shape;

/// What a handle may do. ATTACH, DETACH, VACUUM INTO, extensions, temporary tables and pragmas that weaken the database
/// are closed to all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everything.
    #[default]
    Full,
    /// Everything that only reads.
    ReadOnly,
    /// Only these tables, and their indexes. Views, triggers and foreign keys do not widen it: what they touch must be
    /// granted too.
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

/// Why the authorizer refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The access does not cover it, or nobody may do it.
    Denied(String),
    /// A name that is not granted is used without any of its columns. It may be no table but a part of the statement.
    Unnamed(String),
    /// BEGIN, COMMIT, SAVEPOINT and the like.
    Transaction,
}

/// An access, ready for the authorizer.
#[derive(Debug)]
pub(super) struct Rules {
    access: Access,
    /// By name in lower case.
    tables: HashMap<String, Rights>,
    /// Stands in front of the text of each statement prepared under these rules, so that the statement cache never
    /// hands one to another access. Never used twice in a database.
    pub(super) mark: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rights {
    read: bool,
    write: bool,
}

/// Closed because they live in a connection, and callers share connections.
const TEMPORARY: &str = "temporary tables, views and triggers";

/// Functions that reach out of the database, or that ALTER TABLE uses for what we do not allow.
const CLOSED_FUNCTIONS: &[&str] = &["load_extension", "fts3_tokenizer"];
const CLOSED_TO_TABLES: &[&str] =
    &["sqlite_rename_table", "sqlite_rename_column", "sqlite_drop_column", "sqlite_drop_constraint"];

/// Modules that virtual tables may use.
const OPEN_MODULES: &[&str] = &["fts3", "fts4", "fts5", "fts5vocab", "rtree", "rtree_i32"];

/// Table-valued functions that show nothing but their arguments.
const PURE_TABLES: &[&str] = &["json_each", "json_tree", "jsonb_each", "jsonb_tree"];

/// Table-valued pragmas; SQLite asks for the pragma itself, with the table, when they run.
const PRAGMA_TABLES: &[&str] =
    &["pragma_table_info", "pragma_table_xinfo", "pragma_index_list", "pragma_foreign_key_list"];

/// Pragmas whose argument is a table, granted with it.
const TABLE_PRAGMAS: &[&str] = &["table_info", "table_xinfo", "index_list", "foreign_key_list"];

/// Pragmas that only read; their argument, if any, says what.
const INSPECTING_PRAGMAS: &[&str] = &[
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// Pragmas that read a setting if they have no argument.
const READABLE_PRAGMAS: &[&str] = &[
    "application_id",
    "auto_vacuum",
    "cache_size",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "defer_foreign_keys",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "function_list",
    "journal_mode",
    "locking_mode",
    "max_page_count",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "recursive_triggers",
    "schema_version",
    "synchronous",
    "user_version",
];

/// Pragmas that change the file, or the transaction, and nothing else.
const WRITING_PRAGMAS: &[&str] = &[
    "application_id",
    "auto_vacuum",
    "defer_foreign_keys",
    "incremental_vacuum",
    "optimize",
    "page_size",
    "user_version",
];

impl Rules {
    pub(super) fn new(access: Access, number: u64) -> Self {
        let mut tables = HashMap::<String, Rights>::new();
        if let Access::Tables { rules } = &access {
            for grant in rules {
                let rights = tables.entry(grant.table.to_ascii_lowercase()).or_default();
                rights.read |= grant.read;
                rights.write |= grant.write;
            }
        }
        Self { access, tables, mark: format!("/*{number}*/") }
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Whether a statement of this shape may do this.
    pub(super) fn check(
        &self,
        action: &AuthAction<'_>,
        database: Option<&str>,
        shape: Shape,
    ) -> Result<(), Refusal> {
        closed_to_all(action, database, shape)?;
        match &self.access {
            Access::Full => Ok(()),
            Access::ReadOnly => reads(action),
            Access::Tables { .. } => self.touches_granted(action, shape),
        }
    }

    fn touches_granted(&self, action: &AuthAction<'_>, shape: Shape) -> Result<(), Refusal> {
        use AuthAction as A;
        match *action {
            // A table made from a SELECT could copy the schema, which SQLite must be able to read for CREATE.
            A::Select => allow(shape != Shape::Create, || "CREATE TABLE … AS SELECT".to_owned()),
            A::Recursive => Ok(()),
            A::Function { function_name } => {
                let closed = contains(CLOSED_TO_TABLES, function_name) && shape != Shape::Create;
                allow(!closed, || format!("function {function_name}"))
            }
            A::Read { table_name, column_name } => self.reads_granted(table_name, column_name, shape),
            A::Insert { table_name } | A::Update { table_name, .. } if is_schema(table_name) => {
                // SQLite itself lets nobody but its own DDL write here.
                allow(changes_schema(shape), || "writing the schema".to_owned())
            }
            A::Insert { table_name } | A::Update { table_name, .. } | A::Delete { table_name } => {
                self.writes(table_name)
            }
            A::CreateTable { table_name } if table_name.eq_ignore_ascii_case("sqlite_sequence") => Ok(()),
            A::CreateTable { table_name } | A::CreateIndex { table_name, .. } => self.writes(table_name),
            A::AlterTable { table_name, .. } => {
                allow(shape == Shape::AlterAdd, || "ALTER TABLE other than ADD COLUMN".to_owned())?;
                self.writes(table_name)
            }
            A::Reindex { .. } => allow(shape == Shape::Create, || "REINDEX".to_owned()),
            A::Pragma { pragma_name, pragma_value: Some(table) } => {
                let known = contains(TABLE_PRAGMAS, pragma_name)
                    || shape == Shape::AlterAdd && pragma_name.eq_ignore_ascii_case("quick_check");
                allow(known, || format!("pragma {pragma_name}"))?;
                self.granted(table, |rights| rights.read || rights.write)
            }
            ref other => Err(Refusal::Denied(describe(other))),
        }
    }

    fn reads_granted(&self, table: &str, column: &str, shape: Shape) -> Result<(), Refusal> {
        if self.rights(table).read || contains(PURE_TABLES, table) || contains(PRAGMA_TABLES, table) {
            return Ok(());
        }
        if is_schema(table) {
            let own =
                shape == Shape::AlterAdd || shape == Shape::Create && column.eq_ignore_ascii_case("rowid");
            return allow(own, || "reading the schema".to_owned());
        }
        if shape == Shape::AlterAdd && table.eq_ignore_ascii_case("pragma_quick_check") {
            return Ok(());
        }
        if column.is_empty() {
            return Err(Refusal::Unnamed(table.to_owned()));
        }
        self.granted(table, |rights| rights.read)
    }

    fn writes(&self, table: &str) -> Result<(), Refusal> {
        self.granted(table, |rights| rights.write)
    }

    fn granted(&self, table: &str, enough: impl Fn(Rights) -> bool) -> Result<(), Refusal> {
        allow(enough(self.rights(table)), || format!("table {table}"))
    }

    fn rights(&self, table: &str) -> Rights {
        self.tables.get(&table.to_ascii_lowercase()).copied().unwrap_or_default()
    }
}

/// What no access opens, because it reaches the host's files or the connection, which is shared.
fn closed_to_all(action: &AuthAction<'_>, database: Option<&str>, shape: Shape) -> Result<(), Refusal> {
    use AuthAction as A;
    match *action {
        // Not each way to make one has an action of its own, but each puts a row into their schema.
        A::Insert { table_name }
            if database.is_some_and(|name| name.eq_ignore_ascii_case("temp"))
                && contains(&["sqlite_master", "sqlite_temp_master"], table_name) =>
        {
            Err(Refusal::Denied(TEMPORARY.to_owned()))
        }
        // VACUUM attaches a nameless temporary database and runs a transaction on it.
        A::Attach { filename: "" } | A::Transaction { .. } if shape == Shape::Vacuum => Ok(()),
        A::Transaction { .. } | A::Savepoint { .. } => Err(Refusal::Transaction),
        A::Attach { .. }
        | A::Detach { .. }
        | A::Unknown { .. }
        | A::CreateTempIndex { .. }
        | A::CreateTempTable { .. }
        | A::CreateTempTrigger { .. }
        | A::CreateTempView { .. } => Err(Refusal::Denied(describe(action))),
        A::Function { function_name } => {
            allow(!contains(CLOSED_FUNCTIONS, function_name), || format!("function {function_name}"))
        }
        A::CreateVtable { module_name, .. } => {
            allow(contains(OPEN_MODULES, module_name), || format!("module {module_name}"))
        }
        A::Pragma { pragma_name, pragma_value } => {
            let known = contains(INSPECTING_PRAGMAS, pragma_name)
                || pragma_value.is_none() && contains(READABLE_PRAGMAS, pragma_name)
                || contains(WRITING_PRAGMAS, pragma_name);
            allow(known, || format!("pragma {pragma_name}"))
        }
        _ => Ok(()),
    }
}

fn reads(action: &AuthAction<'_>) -> Result<(), Refusal> {
    use AuthAction as A;
    match *action {
        A::Select | A::Recursive | A::Read { .. } | A::Function { .. } => Ok(()),
        A::Pragma { pragma_name, pragma_value } => {
            let writes = !contains(INSPECTING_PRAGMAS, pragma_name)
                && (pragma_value.is_some() || !contains(READABLE_PRAGMAS, pragma_name));
            allow(!writes, || format!("pragma {pragma_name}"))
        }
        _ => Err(Refusal::Denied(describe(action))),
    }
}

fn changes_schema(shape: Shape) -> bool {
    matches!(shape, Shape::Create | Shape::AlterAdd)
}

fn is_schema(table: &str) -> bool {
    contains(&["sqlite_master", "sqlite_schema"], table)
}

fn contains(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn allow(condition: bool, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    if condition { Ok(()) } else { Err(Refusal::Denied(what())) }
}

/// What was refused, for the message.
fn describe(action: &AuthAction<'_>) -> String {
    use AuthAction as A;
    match action {
        A::Attach { .. } | A::Unknown { .. } => "reaching another database or file".to_owned(),
        A::Detach { .. } => "DETACH".to_owned(),
        A::CreateTempIndex { .. }
        | A::CreateTempTable { .. }
        | A::CreateTempTrigger { .. }
        | A::CreateTempView { .. } => TEMPORARY.to_owned(),
        A::DropTable { table_name } => format!("dropping table {table_name}"),
        A::DropIndex { index_name, .. } => format!("dropping index {index_name}"),
        A::CreateView { view_name } => format!("creating view {view_name}"),
        A::CreateTrigger { trigger_name, .. } => format!("creating trigger {trigger_name}"),
        A::Insert { table_name } | A::Update { table_name, .. } | A::Delete { table_name } => {
            format!("writing table {table_name}")
        }
        A::Pragma { pragma_name, .. } => format!("pragma {pragma_name}"),
        _ => "this statement".to_owned(),
    }
}

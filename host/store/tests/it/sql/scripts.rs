//! The scripts of `tests/sql/`, in sqllogictest's format, on native SQLite and on the store.
//!
//! A record is one call. A line `-- then` in it stands between the statements of a batch. `BLESS=1` writes what native
//! SQLite answers into the scripts; what it wrote is then held against the store.

use std::path::{Path, PathBuf};

use sqllogictest::{DBOutput, DefaultColumnType as Kind, Runner, default_normalizer, default_validator};
use tollgate_store::{Statement, Value};

use super::engines::{Engine, Native, Ours, Refused};

/// What the runner calls.
struct Database<E>(E);

impl<E: Engine> sqllogictest::DB for Database<E> {
    type Error = Refused;
    type ColumnType = Kind;

    fn run(&mut self, sql: &str) -> Result<DBOutput<Kind>, Refused> {
        let statements: Vec<_> = sql.split("\n-- then\n").map(Statement::from).collect();
        let outcomes = self.0.run(&statements)?;
        let outcome = outcomes.into_iter().next_back().unwrap();
        if outcome.columns.is_empty() {
            return Ok(DBOutput::StatementComplete(outcome.rows_written));
        }
        let types = (0..outcome.columns.len()).map(|column| kind(&outcome.rows, column)).collect();
        let rows = outcome.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        Ok(DBOutput::Rows { types, rows })
    }
}

/// The one type of a column's values.
fn kind(rows: &[Vec<Value>], column: usize) -> Kind {
    let mut kinds = rows.iter().filter_map(|row| match row[column] {
        Value::Null => None,
        Value::Integer(_) => Some(Kind::Integer),
        Value::Real(_) => Some(Kind::FloatingPoint),
        Value::Text(_) => Some(Kind::Text),
        Value::Blob(_) => Some(Kind::Any),
    });
    let first = kinds.next().unwrap_or(Kind::Any);
    if kinds.all(|kind| kind == first) { first } else { Kind::Any }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => format!("{real:?}"),
        Value::Text(text) if text.is_empty() => "(empty)".to_owned(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => bytes.iter().fold("x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

fn check<E: Engine + 'static>(path: &Path, engine: fn() -> E) {
    let mut runner = Runner::new(|| async { Ok(Database(engine())) });
    runner.with_column_validator(sqllogictest::strict_column_validator);
    let result = runner.run_file(path);
    result.unwrap_or_else(|error| panic!("{}:\n{}", std::any::type_name::<E>(), error.display(false)));
}

fn bless(path: &Path) {
    let mut runner = Runner::new(|| async { Ok(Database(Native::new())) });
    let blessed = runner.update_test_file(
        path,
        " ",
        default_validator,
        default_normalizer,
        sqllogictest::strict_column_validator,
    );
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(blessed).unwrap();
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    paths.sort();
    paths
}

#[test]
fn every_script_holds_on_native_sqlite_and_on_the_store() {
    let scripts = scripts();
    assert!(!scripts.is_empty());
    for path in scripts {
        if std::env::var_os("BLESS").is_some() {
            bless(&path);
        }
        check(&path, Native::new);
        check(&path, Ours::new);
    }
}

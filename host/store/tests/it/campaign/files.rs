//! Turns that replace a database by an SQLite file.

use tollgate_store::Database;

use super::{Fallible, rows::integers};

/// Rows of a file.
const ROWS: u64 = 500;

/// An SQLite file that says of which turn it is, in each of its rows.
fn file(turn: u64) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let native = rusqlite::Connection::open(&path).unwrap();
    let sql = format!(
        "CREATE TABLE f (id INTEGER PRIMARY KEY, turn INTEGER, body BLOB);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
            INSERT INTO f SELECT i, {turn}, zeroblob(i % 50 * 10) FROM n;
        CREATE INDEX f_turn ON f (turn, id);"
    );
    native.execute_batch(&sql).unwrap();
    native.close().unwrap();
    std::fs::read(path).unwrap()
}

pub(super) async fn import_turn(database: &Database, turn: u64) -> Fallible<()> {
    let mut import = database.import(true).await?;
    for piece in file(turn).chunks(100_003) {
        import.write(piece).await?;
    }
    import.finish().await?;
    Ok(())
}

pub(super) async fn imported(database: &Database) -> Fallible<u64> {
    if integers(database, "SELECT count(*) FROM sqlite_schema").await? == [0] {
        return Ok(0);
    }
    let row = integers(database, "SELECT max(turn), min(turn), count(*) FROM f NOT INDEXED").await?;
    assert_eq!(row, [row[0], row[0], ROWS]);
    assert_eq!(integers(database, "SELECT count(*) FROM f INDEXED BY f_turn WHERE turn > 0").await?, [ROWS]);
    Ok(row[0])
}

/// The bytes of a database as a file.
pub(super) async fn export(database: &Database) -> Fallible<Vec<u8>> {
    let mut export = database.export().await?;
    let mut bytes = Vec::new();
    while let Some(piece) = export.next().await? {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, export.size());
    Ok(bytes)
}

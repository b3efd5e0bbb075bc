//! Databases as SQLite files: taken over, given out, and what is left of those that were replaced.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use redb::{ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use tollgate_store::{
    Access, Database, Joint, KvOptions, Options, SqlError, Store, TableGrant, Value,
    sql::{Imported, Source},
};

use crate::support::Memory;

/// Something of everything, with `rows` rows.
fn make(path: &Path, before: &str, rows: usize) {
    let native = rusqlite::Connection::open(path).unwrap();
    native.execute_batch(before).unwrap();
    native
        .execute_batch(&format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, blob BLOB);
            CREATE INDEX t_body ON t (body);
            CREATE TABLE w (k TEXT PRIMARY KEY, n ANY) STRICT, WITHOUT ROWID;
            CREATE VIEW v AS SELECT count(*) AS n FROM t;
            CREATE TRIGGER g AFTER DELETE ON t BEGIN INSERT INTO w VALUES (old.id, old.body); END;
            CREATE VIRTUAL TABLE f USING fts5 (body);
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                INSERT INTO t SELECT i, hex(randomblob(40)), randomblob(i % 300) FROM n;
            INSERT INTO f SELECT body FROM t WHERE id < 100;
            DELETE FROM t WHERE id % 7 = 0;"
        ))
        .unwrap();
}

const SUM: &str = "SELECT (SELECT count(*) || total(length(body)) || total(length(blob)) || max(body) FROM t) ||
    (SELECT count(*) || group_concat(n) FROM (SELECT n FROM w ORDER BY k)) || (SELECT n FROM v) || (SELECT count(*) FROM f)";

fn native_sum(path: &Path) -> String {
    let native = rusqlite::Connection::open(path).unwrap();
    let check: String = native.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{}", path.display());
    native.query_row(SUM, [], |row| row.get(0)).unwrap()
}

async fn sum(database: &Database) -> String {
    assert_eq!(one(database, "PRAGMA integrity_check").await, Value::from("ok"));
    match one(database, SUM).await {
        Value::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

async fn one(database: &Database, sql: &str) -> Value {
    database.query(sql.into()).await.unwrap().rows.remove(0).remove(0)
}

async fn import(database: &Database, bytes: &[u8], replace: bool) -> Result<Imported, SqlError> {
    let mut import = database.import(replace).await?;
    // Pieces that fit no page.
    for piece in bytes.chunks(100_003) {
        import.write(piece).await?;
    }
    import.finish().await
}

async fn export(database: &Database, path: &Path) {
    let mut export = database.export().await.unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    while let Some(piece) = export.next().await.unwrap() {
        file.write_all(&piece).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), export.size());
}

fn bytes_of(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    Source::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

struct Place {
    folder: tempfile::TempDir,
    memory: Memory,
    store: Store,
    database: Database,
}

impl Place {
    fn new() -> Self {
        let memory = Memory::default();
        let store = memory.open();
        let database = store.database("d").unwrap().with_deadline(Duration::from_secs(120));
        Self { folder: tempfile::tempdir().unwrap(), memory, store, database }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_kind_come_in_and_go_out_again() {
    for (number, before) in [
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 1024; PRAGMA auto_vacuum = FULL",
        "PRAGMA page_size = 4096",
        "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA page_size = 65536",
        "PRAGMA encoding = 'UTF-16le'",
        "PRAGMA journal_mode = WAL",
        "PRAGMA user_version = 7; PRAGMA application_id = 99",
    ]
    .into_iter()
    .enumerate()
    {
        let place = Place::new();
        let (from, to) = (place.path("from"), place.path("to"));
        make(&from, before, 3_000);
        let expected = native_sum(&from);
        let imported = import(&place.database, &bytes_of(&from), false).await.unwrap();
        assert_eq!(imported.bytes, from.metadata().unwrap().len(), "{before}");
        assert_eq!(sum(&place.database).await, expected, "{before}");
        place.database.execute("INSERT INTO t (body) VALUES ('more')".into()).await.unwrap();
        place.database.execute("DELETE FROM t WHERE body = 'more' OR id = 5".into()).await.unwrap();
        let changed = sum(&place.database).await;
        export(&place.database, &to).await;
        assert_eq!(native_sum(&to), changed, "{before}");
        // And in again, into another database.
        let other = place.store.database(&format!("other {number}")).unwrap();
        import(&other, &std::fs::read(&to).unwrap(), false).await.unwrap();
        assert_eq!(sum(&other).await, changed, "{before}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_never_written_is_exported_as_an_empty_file() {
    let place = Place::new();
    let to = place.path("to");
    export(&place.database, &to).await;
    let native = rusqlite::Connection::open(&to).unwrap();
    assert_eq!(native.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)), Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_goes_on_over_the_switch_and_sees_one_file_or_the_other() {
    let place = Place::new();
    let from = place.path("from");
    make(&from, "", 200_000);
    let database = &place.database;
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)".into()).await.unwrap();
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) INSERT INTO t SELECT i, 'old' FROM n";
    database.execute(fill.into()).await.unwrap();
    let mut pages = database.pages("SELECT id, body FROM t".into()).await.unwrap();
    let mut old_export = database.export().await.unwrap();
    let count = || async { one(database, "SELECT count(*) FROM t WHERE body IS NOT NULL").await };
    let reading = async {
        let mut seen = Vec::new();
        while seen.last() != Some(&Value::Integer(200_000 - 200_000 / 7)) {
            seen.push(count().await);
        }
        seen.dedup();
        seen
    };
    let error = import(database, &bytes_of(&from), false).await.unwrap_err();
    assert!(error.is_not_empty(), "{error:?}");
    let bytes = bytes_of(&from);
    let (imported, seen) = tokio::join!(import(database, &bytes, true), reading);
    imported.unwrap();
    assert_eq!(seen, [Value::Integer(9_000), Value::Integer(200_000 - 200_000 / 7)]);
    // Who began before ends on the old one.
    let mut rows = 0;
    while let Some(page) = pages.next().await.unwrap() {
        rows += page.iter().filter(|row| row[1] == Value::from("old")).count();
    }
    assert_eq!(rows, 9_000);
    let mut bytes = 0;
    while let Some(piece) = old_export.next().await.unwrap() {
        bytes += piece.len() as u64;
    }
    assert_eq!(bytes, old_export.size());
    // The writer is on the new one, together with others too.
    let kv = place.store.kv("k", KvOptions::default()).unwrap();
    let joint = Joint::new().set(&kv, "key", b"value".to_vec(), None).unwrap();
    let statement = "INSERT INTO w VALUES ('joint', 1)".into();
    place.store.commit(joint.statement(database, statement).unwrap()).await.unwrap();
    assert_eq!(one(database, "SELECT n FROM w WHERE k = 'joint'").await, Value::Integer(1));
    assert!(kv.get("key").await.unwrap().is_some());
    drop((pages, old_export));
    place.store.close().await.unwrap();
    let store = place.memory.open();
    let database = store.database("d").unwrap();
    assert_eq!(one(&database, "SELECT n FROM w WHERE k = 'joint'").await, Value::Integer(1));
}

/// Chunks and leftovers in the file, as a crash at this instant would leave them.
fn stored(memory: &Memory) -> (u64, u64) {
    let redb = redb::Builder::new().create_with_backend(memory.copy()).unwrap();
    let transaction = redb.begin_read().unwrap();
    let pages = transaction.open_table(TableDefinition::<u64, &[u8]>::new("sql-pages"));
    let leftovers = transaction.open_table(TableDefinition::<u32, ()>::new("sql-leftovers"));
    (pages.map_or(0, |table| table.len().unwrap()), leftovers.map_or(0, |table| table.len().unwrap()))
}

/// Waits until the committer has removed what nobody has.
async fn cleaned(memory: &Memory) -> u64 {
    let started = Instant::now();
    loop {
        match stored(memory) {
            (pages, 0) => return pages,
            left => assert!(started.elapsed() < Duration::from_secs(60), "{left:?}"),
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_files_that_were_replaced_given_up_or_cut_by_a_crash() {
    let place = Place::new();
    let (small, large) = (place.path("small"), place.path("large"));
    make(&small, "", 100);
    make(&large, "", 30_000);
    import(&place.database, &bytes_of(&small), false).await.unwrap();
    let least = cleaned(&place.memory).await;
    for _ in 0..3 {
        import(&place.database, &bytes_of(&large), true).await.unwrap();
        import(&place.database, &bytes_of(&small), true).await.unwrap();
    }
    assert_eq!(cleaned(&place.memory).await, least);
    let bytes = bytes_of(&large);
    let half = &bytes[..bytes.len() / 2];
    // More than one commit's worth, so that there is something to remove.
    let mut given_up = place.database.import(true).await.unwrap();
    for _ in 0..4 {
        given_up.write(half).await.unwrap();
    }
    let second = place.database.import(true).await;
    assert!(matches!(second, Err(SqlError::Unavailable(_))), "one at a time: {second:?}");
    assert!(stored(&place.memory).0 > least);
    let crashed = place.memory.copy();
    drop(given_up);
    assert_eq!(cleaned(&place.memory).await, least);
    let store = crashed.open();
    assert_eq!(cleaned(&crashed).await, least);
    assert_eq!(sum(&store.database("d").unwrap()).await, native_sum(&small));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_sqlite_file_is_refused_with_the_reason() {
    let place = Place::new();
    let from = place.path("from");
    make(&from, "", 2_000);
    let good = bytes_of(&from);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    for (bytes, reason) in [
        (Vec::new(), "no SQLite database"),
        (b"SQLite format 3\0".to_vec(), "no SQLite database"),
        (b"hello ".repeat(1_000), "no SQLite database"),
        (with(&|bytes| bytes.truncate(50_000)), "no whole pages"),
        (with(&|bytes| bytes.truncate(40_960)), "cut off"),
        (with(&|bytes| bytes[16..18].copy_from_slice(&[3, 0])), "page size"),
        (with(&|bytes| bytes[18] = 3), "newer SQLite"),
        (with(&|bytes| bytes[21] = 0), "header"),
        (with(&|bytes| bytes[81_920..163_840].fill(0)), "damaged"),
        (with(&|bytes| bytes[3_000..4_000].fill(0xee)), "damaged"),
    ] {
        match import(&place.database, &bytes, false).await {
            Err(SqlError::Invalid(text)) => assert!(text.contains(reason), "{reason}: {text}"),
            other => panic!("{reason}: {other:?}"),
        }
        assert_eq!(one(&place.database, "SELECT count(*) FROM sqlite_schema").await, Value::Integer(0));
    }
    let narrow = place.database.with_access(Access::Tables { rules: vec![TableGrant::read_write("t")] });
    assert!(matches!(narrow.import(true).await, Err(SqlError::AccessDenied(_))));
    assert!(matches!(narrow.export().await, Err(SqlError::AccessDenied(_))));
    assert!(matches!(
        place.database.with_access(Access::ReadOnly).import(true).await,
        Err(SqlError::AccessDenied(_))
    ));
    import(&place.database, &good, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damage_to_a_file_damages_the_store() {
    let place = Place::new();
    let from = place.path("from");
    make(&from, "", 400);
    let good = bytes_of(&from);
    import(&place.database, &good, false).await.unwrap();
    let (mut state, mut refused) = (1_u64, 0);
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    for round in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..=below(4) {
            let at = if below(2) == 0 { below(4_096) } else { below(bytes.len()) };
            bytes[at] = below(256) as u8;
        }
        match import(&place.database, &bytes, true).await {
            Ok(_) => {
                // Whatever it is now, it is something that can be read, written and replaced.
                let _ = place.database.query("SELECT * FROM t JOIN w".into()).await;
                let _ = place.database.execute("DELETE FROM t".into()).await;
                let _ = place.database.execute("CREATE TABLE IF NOT EXISTS more (a)".into()).await;
            }
            Err(SqlError::Invalid(_)) => refused += 1,
            Err(other) => panic!("round {round}: {other:?}"),
        }
    }
    assert!(refused > 50, "{refused}");
    import(&place.database, &good, true).await.unwrap();
    assert_eq!(sum(&place.database).await, native_sum(&from));
}

#[test]
fn a_source_folds_its_log_in_and_is_held_still() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    let writer = rusqlite::Connection::open(&path).unwrap();
    writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
    writer.busy_timeout(Duration::ZERO).unwrap();
    assert!(folder.path().join("live-wal").metadata().unwrap().len() > 0);
    let bytes = {
        let mut source = Source::open(&path).unwrap();
        assert!(writer.execute_batch("INSERT INTO t VALUES (2)").is_err(), "it is held");
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, source.size());
        bytes
    };
    let copy = folder.path().join("copy");
    std::fs::write(&copy, bytes).unwrap();
    let count =
        rusqlite::Connection::open(&copy).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    assert_eq!(count, Ok(1));
    // A reader of old content keeps the log from being emptied.
    writer.execute_batch("INSERT INTO t VALUES (3)").unwrap();
    let reader = rusqlite::Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    writer.execute_batch("INSERT INTO t VALUES (4)").unwrap();
    let error = Source::open(&path).unwrap_err().to_string();
    assert!(error.contains("live-wal holds changes"), "{error}");
    for (name, content) in [("empty", &b""[..]), ("text", b"hello")] {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        assert!(Source::open(&path).unwrap_err().to_string().contains("no SQLite database"));
    }
    assert!(Source::open(&folder.path().join("none")).unwrap_err().to_string().contains("cannot read"));
}

const PATH_VARIABLE: &str = "TOLLGATE_IMPORT_PATH";
/// Kills in a row on one store; the variable sets more.
const ROUNDS: usize = 5;
const ROUNDS_VARIABLE: &str = "TOLLGATE_CRASH_ROUNDS";

/// The child: imports one file and the other in turns, until it is killed.
#[tokio::test]
#[ignore = "runs as the child of the next test"]
async fn importing() {
    let Ok(folder) = std::env::var(PATH_VARIABLE).map(PathBuf::from) else { return };
    let store = Store::open(&folder.join("store.redb"), Options::default()).unwrap();
    let database = store.database("d").unwrap();
    loop {
        for name in ["one", "other"] {
            println!("begin {name}");
            import(&database, &bytes_of(&folder.join(name)), true).await.unwrap();
            println!("done {name}");
        }
    }
}

#[test]
fn a_process_killed_in_an_import_leaves_the_file_before_or_after() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["one", "other"];
    for (name, rows) in names.iter().zip([60_000, 50_000]) {
        make(&folder.path().join(name), "", rows);
    }
    let sums = names.map(|name| native_sum(&folder.path().join(name)));
    let rounds = std::env::var(ROUNDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["sql::files::importing", "--exact", "--ignored", "--nocapture"])
            .env(PATH_VARIABLE, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (mut done, mut begun) = (None, 0);
        for line in lines.by_ref() {
            if let Some((_, name)) = line.split_once("done ") {
                done = Some(name.to_owned());
            } else if line.contains("begin ") {
                begun += 1;
                if begun == 2 + round % 3 {
                    break;
                }
            }
        }
        // Somewhere in the import that has begun.
        std::thread::sleep(Duration::from_millis(17 * (round as u64 % 11)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            if let Some((_, name)) = line.split_once("done ") {
                done = Some(name.to_owned());
            }
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let found = runtime.block_on(async {
            let store = Store::open(&folder.path().join("store.redb"), Options::default()).unwrap();
            let database = store.database("d").unwrap();
            let found = sum(&database).await;
            store.close().await.unwrap();
            found
        });
        // What was said to be done is there, or what came after it and had no time to say so.
        let last = names.iter().position(|name| Some(*name) == done.as_deref()).unwrap();
        assert!(found == sums[last] || found == sums[1 - last], "{done:?}");
        assert!(sums.contains(&found));
    }
}

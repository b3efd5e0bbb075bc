//! SQL and kv in one commit, on a whole store.

use std::{fmt, io, path::Path};

use parking_lot::Mutex;

use super::*;
use crate::{Joint, Kv, KvOptions, Options, Store};

/// A storage in memory that fails on demand; a clone is the same.
#[derive(Clone, Default)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    fails: Arc<AtomicBool>,
}

impl Memory {
    fn open(&self) -> (Store, Database, Kv) {
        let options = Options { backend: Some(Box::new(self.clone())), ..Options::default() };
        let store = Store::open(Path::new("unused"), options).unwrap();
        let database = store.database("d").unwrap();
        let kv = store.kv("k", KvOptions::default()).unwrap();
        (store, database, kv)
    }

    fn check(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) { Err(io::Error::other("injected")) } else { Ok(()) }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Memory")
    }
}

impl redb::StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        out.copy_from_slice(&self.bytes.lock()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.bytes.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let offset = offset as usize;
        self.bytes.lock()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn joint(kv: &Kv, database: &Database, n: i64) -> Joint {
    Joint::new()
        .set(kv, "n", n.to_string().into_bytes(), None)
        .and_then(|joint| joint.delete(kv, "old"))
        .unwrap()
        .statement(database, Statement::new("INSERT INTO t VALUES (?1)", vec![n.into()]))
        .unwrap()
}

async fn state(kv: &Kv, database: &Database) -> (String, String) {
    let value = kv.get("n").await.unwrap().map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
    (value.unwrap_or_default(), rows(database, "SELECT coalesce(max(id), '') FROM t").await)
}

#[test]
fn a_joint_commit_makes_both_visible_or_neither() {
    let memory = Memory::default();
    block_on(async {
        let (store, database, kv) = memory.open();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
        for n in 1..20 {
            store.commit(joint(&kv, &database, n)).await.unwrap();
            assert_eq!(state(&kv, &database).await, (n.to_string(), n.to_string()));
        }
        // The row is there already.
        let error = store.commit(joint(&kv, &database, 7)).await.unwrap_err();
        assert!(matches!(error, CommitError::Invalid(_)), "{error:?}");
        let denied = database.with_access(crate::Access::ReadOnly);
        let error = store.commit(joint(&kv, &denied, 21)).await.unwrap_err();
        assert_eq!(error, CommitError::AccessDenied);
        assert_eq!(state(&kv, &database).await, ("19".to_owned(), "19".to_owned()));
        // Statements that change nothing still carry the kv writes.
        let quiet = Joint::new().set(&kv, "n", b"20".to_vec(), None).unwrap();
        let quiet = quiet.statement(&database, "DELETE FROM t WHERE id = 1000".into()).unwrap();
        store.commit(quiet).await.unwrap();
        assert_eq!(state(&kv, &database).await, ("20".to_owned(), "19".to_owned()));
        store.close().await.unwrap();
    });
    block_on(async {
        let (_store, database, kv) = memory.open();
        assert_eq!(state(&kv, &database).await, ("20".to_owned(), "19".to_owned()));
        check_integrity(&database).await;
    });
}

#[test]
fn after_a_failed_disk_neither_is_there_and_nothing_is_acknowledged() {
    let memory = Memory::default();
    block_on(async {
        let (store, database, kv) = memory.open();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
        store.commit(joint(&kv, &database, 1)).await.unwrap();
        memory.fails.store(true, Ordering::SeqCst);
        let error = store.commit(joint(&kv, &database, 2)).await.unwrap_err();
        assert!(matches!(error, CommitError::Storage(_)), "{error:?}");
        memory.fails.store(false, Ordering::SeqCst);
        let error = database.execute("INSERT INTO t VALUES (3)".into()).await.unwrap_err();
        assert!(matches!(error, SqlError::Storage(_)), "{error:?}");
        let _ = store.close().await;
    });
    block_on(async {
        let (_store, database, kv) = memory.open();
        assert_eq!(state(&kv, &database).await, ("1".to_owned(), "1".to_owned()));
        check_integrity(&database).await;
    });
}

#[test]
fn the_file_is_free_when_the_last_handle_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    for round in 1..=10_i64 {
        block_on(async {
            let database = Store::open(&path, Options::default()).unwrap().database("d").unwrap();
            execute(&database, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY)").await;
            execute(&database, "INSERT INTO t DEFAULT VALUES").await;
            assert_eq!(rows(&database, "SELECT count(*) FROM t").await, round.to_string());
        });
    }
}

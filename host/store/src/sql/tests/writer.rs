//! The writer's queue and groups, readers beside it, deadlines.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::sql::{
    access::{Access, Rules},
    connection::Connection,
    vfs::{Shared, Vfs},
    writer::{Job, Writer},
};

const SLOW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[test]
fn calls_that_wait_together_share_commits_and_fail_apart() {
    block_on(async {
        let (database, committer) = database();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER CHECK (n >= 0)) STRICT").await;
        let before = committer.commits.load(Ordering::SeqCst);
        let calls = (0..400_i64).map(|i| {
            let database = database.clone();
            tokio::spawn(async move {
                let statements = vec![
                    Statement::new("INSERT INTO t VALUES (?1, 0)", vec![i.into()]),
                    // Every third fails, after it has written.
                    Statement::new("UPDATE t SET n = ?2 WHERE id = ?1", vec![i.into(), (i % 3 - 1).into()]),
                ];
                database.batch(statements).await
            })
        });
        for (i, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
            let result = call.await.unwrap();
            assert_eq!(result.is_err(), i % 3 == 0, "{i}: {result:?}");
        }
        let commits = committer.commits.load(Ordering::SeqCst) - before;
        assert!(commits < 200, "{commits}");
        assert_eq!(rows(&database, "SELECT count(*), min(id % 3), sum(n) FROM t").await, "266|1|133");
        check_integrity(&database).await;
    });
}

/// A job with a deadline of an hour once kept every other writer out for that hour.
#[test]
fn a_call_that_takes_longer_than_its_turn_ends_and_the_next_one_writes() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
        let greedy = database.with_deadline(Duration::from_secs(3_600)).with_turn(Duration::from_millis(50));
        let (held, next) =
            tokio::join!(greedy.execute(SLOW.into()), database.execute("INSERT INTO t VALUES (1)".into()));
        let error = held.unwrap_err();
        assert!(error.is_overlong(), "{error}");
        assert!(error.to_string().contains("50 ms"), "{error}");
        next.unwrap();
        assert!(greedy.query(SLOW.into()).await.unwrap_err().is_overlong());
        assert_eq!(rows(&database, "SELECT id FROM t").await, "1");
    });
}

#[test]
fn a_call_that_fails_at_the_commit_or_loses_the_transaction_takes_nobody_along() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
        execute(&database, "CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)").await;
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
        // Holds the writer, so that the others wait together.
        let blocker = database.with_deadline(Duration::from_millis(300));
        let blocked = tokio::spawn(async move { blocker.execute(SLOW.into()).await });
        let insert = |id: i64| {
            let database = database.clone();
            tokio::spawn(async move {
                database.execute(Statement::new("INSERT INTO t VALUES (?1)", vec![id.into()])).await
            })
        };
        let sql = |sql: &'static str, wait: Duration| {
            let database = database.with_deadline(wait);
            tokio::spawn(async move { database.execute(sql.into()).await })
        };
        let long = Duration::from_secs(20);
        let first = insert(1);
        let orphan = sql("INSERT INTO c VALUES (99)", long);
        let second = insert(2);
        let rollback = sql("INSERT OR ROLLBACK INTO t VALUES (1)", long);
        let third = insert(3);
        let endless = sql(
            "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0",
            Duration::from_secs(1),
        );
        let fourth = insert(4);
        assert_eq!(blocked.await.unwrap(), Err(SqlError::deadline()));
        for call in [first, second, third, fourth] {
            call.await.unwrap().unwrap();
        }
        assert!(matches!(orphan.await.unwrap(), Err(SqlError::Invalid(_))));
        assert!(matches!(rollback.await.unwrap(), Err(SqlError::Invalid(_))));
        assert_eq!(endless.await.unwrap(), Err(SqlError::deadline()));
        assert_eq!(rows(&database, "SELECT id FROM t").await, "1 2 3 4");
        assert_eq!(rows(&database, "SELECT count(*) FROM c").await, "0");
        check_integrity(&database).await;
    });
}

#[test]
fn readers_see_whole_transactions_while_the_writer_works() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)").await;
        execute(&database, "WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 200) INSERT INTO t SELECT i, 100 FROM i").await;
        let done = Arc::new(AtomicBool::new(false));
        let readers = (0..6).map(|_| {
            let (database, done) = (database.clone(), done.clone());
            tokio::spawn(async move {
                let mut reads = 0;
                while !done.load(Ordering::SeqCst) || reads == 0 {
                    assert_eq!(rows(&database, "SELECT count(*), sum(n) FROM t").await, "200|20000");
                    reads += 1;
                }
            })
        });
        let readers = readers.collect::<Vec<_>>();
        for round in 0..300_i64 {
            let (from, to) = (round % 200 + 1, (round * 7) % 200 + 1);
            let statements = vec![
                Statement::new("UPDATE t SET n = n - 5 WHERE id = ?1", vec![from.into()]),
                Statement::new("UPDATE t SET n = n + 5 WHERE id = ?1", vec![to.into()]),
            ];
            database.batch(statements).await.unwrap();
            if round % 100 == 50 {
                execute(&database, "VACUUM").await;
                execute(&database, "CREATE INDEX IF NOT EXISTS i ON t (n)").await;
            }
        }
        done.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
        check_integrity(&database).await;
    });
}

#[test]
fn a_read_ends_at_its_deadline_and_the_connection_serves_on() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (a)").await;
        let hasty = database.with_deadline(Duration::from_millis(50));
        let started = Instant::now();
        let calls = (0..12).map(|_| {
            let hasty = hasty.clone();
            tokio::spawn(async move { hasty.query(SLOW.into()).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), Err(SqlError::deadline()));
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(rows(&database, "SELECT count(*) FROM t").await, "0");
    });
}

#[test]
fn a_read_whose_caller_has_gone_ends() {
    block_on(async {
        let (database, _) = database();
        for _ in 0..8 {
            let call = tokio::spawn({
                let database = database.clone();
                async move { database.query(SLOW.into()).await }
            });
            tokio::task::yield_now().await;
            call.abort();
        }
        // All readers would be busy for ten seconds each.
        let hasty = database.with_deadline(Duration::from_secs(5));
        hasty.query("SELECT 1".into()).await.unwrap();
    });
}

#[test]
fn own_writes_are_read_at_once() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
        for i in 1..=200_i64 {
            let insert = Statement::new("INSERT INTO t VALUES (?1)", vec![i.into()]);
            assert_eq!(database.execute(insert).await.unwrap().last_insert_rowid, i);
            assert_eq!(rows(&database, "SELECT max(id) FROM t").await, i.to_string());
        }
    });
}

/// OR FAIL leaves the rows that stood before the one that failed; the call they belong to does not.
#[test]
fn a_statement_that_fails_half_way_is_undone_with_its_call() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
        execute(&database, "INSERT INTO t VALUES (3)").await;
        let statements = ["INSERT INTO t VALUES (1)", "INSERT OR FAIL INTO t VALUES (2), (3), (4)"];
        let failed = database.batch(statements.map(Statement::from).into()).await;
        assert!(matches!(failed, Err(SqlError::Invalid(_) | SqlError::Conflict)), "{failed:?}");
        assert_eq!(rows(&database, "SELECT id FROM t").await, "3");
    });
}

/// Such statements are prepared once, so nothing of one may remain for the next.
#[test]
fn statements_of_one_text_each_have_their_own_parameters_result_and_count() {
    block_on(async {
        let (database, _) = database();
        execute(&database, "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)").await;
        let insert = |id, name: Value| {
            let sql = "INSERT OR IGNORE INTO t VALUES (?1, ?2) RETURNING name";
            Statement::new(sql, vec![Value::Integer(id), name])
        };
        let named = |name: &str| Value::Text(name.to_owned());
        let batch = vec![insert(7, named("a")), insert(7, named("b")), insert(9, Value::Null)];
        let outcomes = database.batch(batch).await.unwrap();
        let seen: Vec<_> = outcomes
            .iter()
            .map(|outcome| (text(outcome), outcome.rows_written, outcome.last_insert_rowid))
            .collect();
        assert_eq!(seen, [("a".to_owned(), 1, 7), (String::new(), 0, 0), ("null".to_owned(), 1, 9)]);
        let missing = Statement::new(insert(0, Value::Null).sql, vec![Value::Integer(1)]);
        let failed = database.batch(vec![insert(1, named("c")), missing, insert(2, named("d"))]).await;
        assert!(matches!(failed, Err(SqlError::Invalid(_))), "{failed:?}");
        assert_eq!(rows(&database, "SELECT id, name FROM t").await, "7|a 9|null");
        let altered = ["SELECT * FROM t", "ALTER TABLE t ADD more DEFAULT 1", "SELECT * FROM t"];
        let outcomes = database.batch(altered.map(Statement::from).into()).await.unwrap();
        assert_eq!(text(outcomes.last().unwrap()), "7|a|1 9|null|1");
    });
}

/// A ROLLBACK can fail, as for want of memory; once nobody could write any more after that.
#[test]
fn a_transaction_that_was_left_open_keeps_nobody_out() {
    block_on(async {
        for sql in ["CREATE TABLE t (a)", "VACUUM"] {
            let committer = TestCommitter::in_memory();
            let file = Arc::new(committer.files().create(None).unwrap());
            let shared = Shared::new(file, "test".into(), false, committer.clone());
            let connection = Connection::writer(Arc::new(Vfs::register(Arc::new(shared)).unwrap())).unwrap();
            connection.control("BEGIN IMMEDIATE").unwrap();
            let (sender, inbox) = mpsc::channel(1);
            let writer = Writer::new(connection, inbox);
            let thread = std::thread::spawn(move || writer.run());
            let (reply, answer) = oneshot::channel();
            let job = Job {
                rules: Arc::new(Rules::new(Access::Full, 0)),
                statements: vec![sql.into()],
                companions: Vec::new(),
                switch: None,
                deadline: Instant::now() + Duration::from_secs(60),
                turn: Duration::MAX,
                reply,
                _place: None,
            };
            sender.send(job).await.ok().unwrap();
            answer.await.unwrap().unwrap();
            drop(sender);
            thread.join().unwrap();
        }
    });
}

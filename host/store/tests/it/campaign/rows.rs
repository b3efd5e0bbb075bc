//! Turns of what is small: kv stores, a queue, a database.

use tollgate_store::{CacheSet, Database, Kv, SetOptions, Statement, Value};

use super::{Fallible, world::World};

const GROUP: [&str; 3] = ["left", "middle", "right"];

/// Rows that stay in the table.
const ROWS: u64 = 60;

/// Events that stay in the queue.
const EVENTS: usize = 20;

const SCHEMA: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS turn (n INTEGER NOT NULL, joint INTEGER NOT NULL, rows INTEGER NOT NULL)",
    "INSERT INTO turn SELECT 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM turn)",
    "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS t_owner ON t (owner, id)",
    "CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON t BEGIN UPDATE turn SET rows = rows + 1; END",
    "CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON t BEGIN UPDATE turn SET rows = rows - 1; END",
];

pub(super) async fn create(database: &Database) -> Fallible<()> {
    database.batch(SCHEMA.map(Statement::from).into()).await?;
    Ok(())
}

/// Everything that kv stores can do; the last write, a durable one, makes it count.
pub(super) async fn kv_turn(world: &World, turn: u64) -> Fallible<()> {
    let (durable, relaxed) = (&world.durable, &world.relaxed);
    let bytes = turn.to_string().into_bytes();
    for key in GROUP {
        relaxed.set(key, bytes.clone(), SetOptions::default()).await?;
    }
    relaxed.put("brief", bytes.clone(), Some(1)).await?;
    let mut batch = world.store.batch();
    for kv in [relaxed, durable] {
        batch.set(kv, "batch", bytes.clone(), None)?;
    }
    batch.write().await?;
    let mut transaction = world.store.transaction();
    for (kv, change) in [(relaxed, 1), (durable, -1)] {
        let balance = transaction.get(kv, "balance").await?;
        let balance = balance.map_or(0, |bytes| std::str::from_utf8(&bytes).unwrap().parse::<i64>().unwrap());
        transaction.set(kv, "balance", (balance + change).to_string().into_bytes(), None)?;
    }
    transaction.commit().await?;
    durable.set_many(GROUP.map(|key| (key.to_owned(), vec![turn as u8; 1_000])).into(), None).await?;
    durable.delete(&format!("odd {}", (turn + 1) % 2)).await?;
    durable.increment(&format!("odd {}", turn % 2), 1, None).await?;
    durable.set("turn", bytes.clone(), SetOptions::default()).await?;
    world.cache.set("turn", bytes, CacheSet::default())?;
    Ok(())
}

pub(super) async fn kv_found(world: &World) -> Fallible<u64> {
    let (durable, relaxed) = (&world.durable, &world.relaxed);
    let turn = number(durable, "turn").await?;
    let (batch, balance) = (number(durable, "batch").await?, number(durable, "balance").await?);
    assert_eq!((batch, balance), (number(relaxed, "batch").await?, -number(relaxed, "balance").await?));
    assert!(batch >= turn && -balance >= turn, "{batch} {balance} {turn}");
    // Of the relaxed writes a first part.
    let mut before = i64::MAX;
    for key in GROUP {
        let relaxed = number(relaxed, key).await?;
        assert!(relaxed <= before && relaxed >= turn, "{key}: {relaxed} after {before} in turn {turn}");
        before = relaxed;
    }
    let group = read(durable, GROUP[0]).await?;
    for key in GROUP {
        assert!(read(durable, key).await? == group, "{key}");
    }
    Ok(u64::try_from(turn).unwrap())
}

async fn read(kv: &Kv, key: &str) -> Fallible<Option<Vec<u8>>> {
    Ok(kv.get(key).await?.map(|entry| entry.value.to_vec()))
}

pub(super) async fn number(kv: &Kv, key: &str) -> Fallible<i64> {
    let value = read(kv, key).await?;
    Ok(value.map_or(0, |value| String::from_utf8(value).unwrap().parse().unwrap()))
}

pub(super) async fn queue_turn(world: &World, turn: u64) -> Fallible<()> {
    let sequence = world.queue.append(turn.to_string().into_bytes())?;
    world.queue.wait(sequence - 1).await;
    if world.queue.watermark() < sequence {
        return Err("the queue has ended".into());
    }
    if turn.is_multiple_of(10) {
        let events = world.queue.read(0, usize::MAX, usize::MAX).await?;
        if let Some((old, _)) = events.len().checked_sub(EVENTS).and_then(|old| events.get(old)) {
            world.queue.remove_through(*old);
        }
    }
    Ok(())
}

pub(super) async fn queue_found(world: &World) -> Fallible<u64> {
    let events = world.queue.read(0, usize::MAX, usize::MAX).await?;
    let events: Vec<(u64, u64)> = events
        .into_iter()
        .map(|(sequence, event)| (sequence, String::from_utf8(event).unwrap().parse().unwrap()))
        .collect();
    for pair in events.windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].1 + 1 == pair[1].1, "{events:?}");
    }
    Ok(events.last().map_or(0, |(_, turn)| *turn))
}

/// Adds a row and removes an old one, whose number the triggers count.
pub(super) async fn sql_turn(database: &Database, turn: u64) -> Fallible<()> {
    let integer = |number: u64| Value::Integer(i64::try_from(number).unwrap());
    let insert = "INSERT INTO t VALUES (?1, 'owner ' || (?1 % 7), randomblob(?1 * 997 % 9000))";
    let statements = vec![
        Statement::new(insert, vec![integer(turn)]),
        Statement::new("DELETE FROM t WHERE id <= ?1", vec![integer(turn.saturating_sub(ROWS))]),
        Statement::new("UPDATE turn SET n = ?1", vec![integer(turn)]),
    ];
    database.batch(statements).await?;
    Ok(())
}

pub(super) async fn sql_found(database: &Database) -> Fallible<u64> {
    let sums = "SELECT n, rows, (SELECT coalesce(max(id), 0) FROM t), (SELECT count(*) FROM t NOT INDEXED),
        (SELECT count(*) FROM t INDEXED BY t_owner WHERE owner >= '') FROM turn";
    let row = integers(database, sums).await?;
    let turn = row[0];
    assert_eq!(row, [turn, turn.min(ROWS), turn, turn.min(ROWS), turn.min(ROWS)]);
    Ok(turn)
}

/// The numbers of the first row.
pub(super) async fn integers(database: &Database, sql: &str) -> Fallible<Vec<u64>> {
    let row = database.query(sql.into()).await?.rows.remove(0);
    let integer = |value| match value {
        Value::Integer(integer) => u64::try_from(integer).unwrap(),
        other => panic!("{other:?}"),
    };
    Ok(row.into_iter().map(integer).collect())
}

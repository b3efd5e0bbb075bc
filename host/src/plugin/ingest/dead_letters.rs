//! Events that ingestion failed on again and again, kept for people.

use super::encoding::text;
use tollgate_store::Clock;
use tollgate_store::sql::{Database, SqlError, Statement, Value};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS ingestion_dead_letters(
    sequence INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, reason TEXT NOT NULL, event TEXT NOT NULL)";

/// The table `ingestion_dead_letters`. It grows slowly: every row has cost seconds of attempts.
pub(super) struct DeadLetters {
    database: Database,
    clock: Clock,
}

impl DeadLetters {
    pub(super) async fn open(database: Database, clock: Clock) -> Result<DeadLetters, SqlError> {
        database.execute(Statement { sql: SCHEMA.to_owned(), params: Vec::new() }).await?;
        Ok(DeadLetters { database, clock })
    }

    /// Keeps an event; keeping it twice (after a crash before it left the queue) is keeping it once.
    pub(super) async fn keep(&self, sequence: u64, event: &[u8], reason: &str) -> Result<(), SqlError> {
        let statement = Statement {
            sql: "INSERT OR IGNORE INTO ingestion_dead_letters(sequence, time_ms, reason, event)
                  VALUES (?1, ?2, ?3, ?4)"
                .to_owned(),
            params: vec![
                Value::Integer(sequence.cast_signed()),
                Value::Integer((self.clock)().cast_signed()),
                Value::Text(reason.to_owned()),
                Value::Text(text(event)),
            ],
        };
        self.database.execute(statement).await.map(drop)
    }
}

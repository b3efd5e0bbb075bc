//! Removes expired rows in small steps.

use std::time::Instant;

use super::record::{ROWS, Record};
use crate::{
    commit::CommitError,
    core::{Core, unavailable},
    limits::{SWEEP_EVERY, SWEEP_ROWS, SWEEP_SOON},
};

/// The committer's own: walks through all rows again and again, a step at a time. A row it finds expired can be
/// removed whatever the overlay holds, since the row itself is seen by nobody any more.
#[derive(Debug)]
pub(crate) struct Sweeper {
    /// The last row of the step before.
    cursor: Vec<u8>,
    due: Instant,
}

impl Sweeper {
    pub(crate) fn new() -> Self {
        Self { cursor: Vec::new(), due: Instant::now() + SWEEP_EVERY }
    }

    /// When the next step is to be made.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Keys of expired rows among the next few, when it is time.
    pub(crate) fn step(&mut self, core: &Core) -> Result<Vec<Vec<u8>>, CommitError> {
        if Instant::now() < self.due {
            return Ok(Vec::new());
        }
        let expired = self.scan(core, core.now_ms()).map_err(unavailable)?;
        let many = expired.len() > SWEEP_ROWS / 4;
        self.due = Instant::now() + if many { SWEEP_SOON } else { SWEEP_EVERY };
        Ok(expired)
    }

    fn scan(&mut self, core: &Core, now_ms: u64) -> Result<Vec<Vec<u8>>, redb::Error> {
        let transaction = {
            use redb::ReadableDatabase;
            let database = core.database.read();
            database.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?
        };
        let table = transaction.open_table(ROWS)?;
        let mut expired = Vec::new();
        let mut seen = 0;
        let from = std::mem::take(&mut self.cursor);
        for row in table.range::<&[u8]>(from.as_slice()..)?.take(SWEEP_ROWS) {
            let (key, row) = row?;
            seen += 1;
            if (1..=now_ms).contains(&Record::expiry(row.value())) {
                expired.push(key.value().to_vec());
            }
            if seen == SWEEP_ROWS {
                self.cursor = key.value().to_vec();
            }
        }
        Ok(expired)
    }
}

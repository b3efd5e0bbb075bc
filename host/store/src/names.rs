//! Names of kv stores, queues, blob containers and vector indexes, and the numbers they have in rows.

use std::collections::HashMap;

use parking_lot::Mutex;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use crate::limits::{NAME_BYTES, NAMES};

/// Kind and name to number.
pub(crate) const TABLE: TableDefinition<'_, (u8, &str), u32> = TableDefinition::new("names");

/// What a name stands for; one table has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Kv = 1,
    Queue = 2,
    Blob = 3,
    Vector = 4,
}

/// The names in memory. A new one goes to disk with the next commit, hence never after rows that need it.
#[derive(Debug, Default)]
pub(crate) struct Names {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<(u8, String), u32>,
    unwritten: Vec<(u8, String, u32)>,
    last: u32,
}

impl Names {
    /// Reads them when the store is opened.
    pub(crate) fn load(transaction: &WriteTransaction) -> Result<Self, redb::Error> {
        let mut state = State::default();
        for row in transaction.open_table(TABLE)?.iter()? {
            let (name, number) = row?;
            let (kind, name) = name.value();
            state.known.insert((kind, name.to_owned()), number.value());
            state.last = state.last.max(number.value());
        }
        Ok(Self { state: Mutex::new(state) })
    }

    /// The number of a name, given now if it has none yet. The error is for people.
    pub(crate) fn number(&self, kind: Kind, name: &str) -> Result<u32, String> {
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(format!("a name has 1 to {NAME_BYTES} bytes"));
        }
        let mut state = self.state.lock();
        let key = (kind as u8, name.to_owned());
        if let Some(number) = state.known.get(&key) {
            return Ok(*number);
        }
        if state.known.len() >= NAMES {
            return Err(format!("a store has at most {NAMES} names"));
        }
        state.last += 1;
        let number = state.last;
        state.unwritten.push((key.0, key.1.clone(), number));
        state.known.insert(key, number);
        Ok(number)
    }

    /// The number of a name, if it has one.
    pub(crate) fn find(&self, kind: Kind, name: &str) -> Option<u32> {
        self.state.lock().known.get(&(kind as u8, name.to_owned())).copied()
    }

    /// All names of a kind, in no order.
    pub(crate) fn of(&self, kind: Kind) -> Vec<String> {
        let state = self.state.lock();
        state.known.keys().filter(|(of, _)| *of == kind as u8).map(|(_, name)| name.clone()).collect()
    }

    /// For the committer: the names that no commit has written. To be taken after whatever uses them.
    pub(crate) fn collect(&self) -> Vec<(u8, String, u32)> {
        std::mem::take(&mut self.state.lock().unwritten)
    }

    /// For the committer: writes them.
    pub(crate) fn write(
        transaction: &WriteTransaction,
        names: &[(u8, String, u32)],
    ) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(TABLE)?;
        for (kind, name, number) in names {
            table.insert((*kind, name.as_str()), number)?;
        }
        Ok(())
    }
}

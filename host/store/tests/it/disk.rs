//! A disk in memory that loses its power at any step, and of what is not synced any part; or one that fails at any step.

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Error, ErrorKind},
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;
use redb::StorageBackend;
use tollgate_store::{OpenError, Options, Store};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A clone is the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    now: Bytes,
    steps: Steps,
    /// The change at which the power goes, and what the disk was like then.
    power_until: Option<u64>,
    at_power_failure: Option<Bytes>,
    fault: Option<Fault>,
}

/// How often it was asked for something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) reads: u64,
    /// Writes, syncs, and changes of the length.
    pub(crate) changes: u64,
}

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The steps at which it comes; they count from 1.
    pub(crate) at: Steps,
    /// Whether it goes on from there, for steps of that kind.
    pub(crate) stays: bool,
    pub(crate) kind: ErrorKind,
}

#[derive(Clone, Default)]
struct Bytes {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that differ, perhaps.
    unsynced: BTreeSet<usize>,
}

impl Disk {
    pub(crate) fn try_open(&self, options: Options) -> Result<Store, OpenError> {
        Store::open(Path::new("unused"), self.options(options))
    }

    pub(crate) fn open(&self, two_phase: bool) -> Store {
        self.try_open(Options { two_phase, ..Options::default() }).unwrap()
    }

    pub(crate) fn options(&self, options: Options) -> Options {
        Options { backend: Some(Box::new(self.clone())), ..options }
    }

    /// The power goes with the `change`th change from now on; whoever is at work does not notice.
    pub(crate) fn cut_power_after(&self, change: u64) {
        let mut state = self.0.lock();
        state.power_until = Some(state.steps.changes + change);
    }

    /// False: what was acknowledged by now has to be found.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.lock().at_power_failure.is_some()
    }

    /// What another machine may find: the synced bytes, and of the sectors changed since, those that `chance` picks. It is as
    /// the disk was when the power went, or as it is now.
    pub(crate) fn after_power_failure(&self, chance: &mut impl FnMut() -> bool) -> Self {
        let state = self.0.lock();
        Self::with(state.at_power_failure.as_ref().unwrap_or(&state.now).survivors(chance))
    }

    /// What another process finds when this one is killed now.
    pub(crate) fn after_kill(&self) -> Self {
        Self::with(self.0.lock().now.written.clone())
    }

    fn with(bytes: Vec<u8>) -> Self {
        let now = Bytes { written: bytes.clone(), synced: bytes, unsynced: BTreeSet::new() };
        Self(Arc::new(Mutex::new(State { now, ..State::default() })))
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.0.lock().fault = Some(fault);
    }

    pub(crate) fn steps(&self) -> Steps {
        self.0.lock().steps
    }

    /// Waits until no store has it any more.
    pub(crate) async fn released(&self) {
        while Arc::strong_count(&self.0) > 1 {
            tokio::task::yield_now().await;
        }
    }
}

impl State {
    fn change(&mut self) -> io::Result<()> {
        self.steps.changes += 1;
        self.fault.map_or(Ok(()), |fault| fault.check(self.steps.changes, fault.at.changes))
    }

    /// After what was changed: its sectors are among those that may have been written.
    fn look_at_power(&mut self) {
        if self.power_until == Some(self.steps.changes) {
            self.at_power_failure = Some(self.now.clone());
        }
    }
}

impl Fault {
    fn check(&self, step: u64, at: u64) -> io::Result<()> {
        let comes = at > 0 && (step == at || self.stays && step > at);
        if comes { Err(Error::new(self.kind, "injected")) } else { Ok(()) }
    }
}

impl Bytes {
    fn write(&mut self, offset: usize, data: &[u8]) {
        self.written[offset..offset + data.len()].copy_from_slice(data);
        self.unsynced.extend(offset / SECTOR..(offset + data.len()).div_ceil(SECTOR));
    }

    fn set_len(&mut self, length: usize) {
        let grown = self.written.len()..length.min(self.synced.len());
        self.written.resize(length, 0);
        if !grown.is_empty() {
            self.unsynced.extend(grown.start / SECTOR..grown.end.div_ceil(SECTOR));
        }
    }

    fn sync(&mut self) {
        self.synced.resize(self.written.len(), 0);
        for sector in std::mem::take(&mut self.unsynced) {
            copy_sector(&self.written, &mut self.synced, sector);
        }
    }

    fn survivors(&self, chance: &mut impl FnMut() -> bool) -> Vec<u8> {
        let mut found = self.synced.clone();
        if self.written.len() != found.len() && chance() {
            found.resize(self.written.len(), 0);
        }
        for sector in &self.unsynced {
            if chance() {
                copy_sector(&self.written, &mut found, *sector);
            }
        }
        found
    }
}

/// As far as both have it.
fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let begin = sector * SECTOR;
    let end = (begin + SECTOR).min(from.len()).min(to.len());
    if begin < end {
        to[begin..end].copy_from_slice(&from[begin..end]);
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Disk")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().now.written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.steps.reads += 1;
        if let Some(fault) = state.fault {
            fault.check(state.steps.reads, fault.at.reads)?;
        }
        let offset = offset as usize;
        out.copy_from_slice(&state.now.written[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change()?;
        state.now.set_len(len as usize);
        state.look_at_power();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change()?;
        // It was not at its end.
        state.look_at_power();
        state.now.sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let done = state.change();
        // A disk that fails, or is full, may have taken a part.
        let taken = if done.is_ok() { data.len() } else { data.len() / 2 };
        state.now.write(offset as usize, &data[..taken]);
        state.look_at_power();
        done
    }
}

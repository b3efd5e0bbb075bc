//! The engine's ticks, which end guests that run too long.
//!
//! A tick wakes a thread, which takes some 20 µs of a small virtual machine, so their pace follows the guests: quick while
//! one is slow, calm while all of them are quick, and nearly none while nothing is called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::limits::{CALM_TICK, IDLE_TICK, PACE_KEPT, TICK};

/// Raises the epoch, from a thread of its own: on a worker it would stop with the guest that it is to end.
pub(crate) struct Ticker {
    pulse: Arc<Pulse>,
    thread: Thread,
}

/// What guests tell the ticker, and the ticker them.
#[derive(Default)]
pub(crate) struct Pulse {
    stopped: AtomicBool,
    /// A call began since the last tick.
    called: AtomicBool,
    /// A guest was slow since the last tick.
    slow: AtomicBool,
    /// The thread sleeps for long.
    idle: AtomicBool,
    /// How long the last tick was, in `TICK`s.
    length: AtomicU64,
}

impl Ticker {
    pub(super) fn start(engine: wasmtime::Engine) -> std::io::Result<Ticker> {
        let pulse = Arc::new(Pulse::default());
        let shared = pulse.clone();
        let ticks = move || tick(&shared, || engine.increment_epoch());
        let thread = std::thread::Builder::new().name("epoch".to_owned()).spawn(ticks)?;
        Ok(Ticker { pulse, thread: thread.thread().clone() })
    }

    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// A call begins. Costs a look at two flags, but for the first call in each tick.
    pub(crate) fn called(&self) {
        if !self.pulse.called.load(Ordering::Relaxed) {
            self.pulse.called.store(true, Ordering::SeqCst);
            if self.pulse.idle.load(Ordering::SeqCst) {
                self.thread.unpark();
            }
        }
    }
}

impl Pulse {
    /// A guest is slow: the next ticks are to come quickly.
    pub(crate) fn slow(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    /// How long the last tick was, in `TICK`s, rounded.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.pulse.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn tick(pulse: &Pulse, raise: impl Fn()) {
    let mut pace = Pace::new(Instant::now());
    while !pulse.stopped.load(Ordering::SeqCst) {
        let length = pace.length(Instant::now());
        let idle = length == IDLE_TICK;
        pulse.idle.store(idle, Ordering::SeqCst);
        // A call that began before it could see that the thread will sleep has set its flag before.
        if !(idle && pulse.called.load(Ordering::SeqCst)) {
            std::thread::park_timeout(length);
        }
        let ticks = u64::try_from(length.as_micros() / TICK.as_micros()).unwrap_or(u64::MAX);
        pulse.length.store(ticks, Ordering::Relaxed);
        raise();
        pace.note(
            pulse.called.swap(false, Ordering::Relaxed),
            pulse.slow.swap(false, Ordering::Relaxed),
            Instant::now(),
        );
    }
}

/// How long the next tick is.
struct Pace {
    called: Instant,
    slow: Option<Instant>,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { called: now, slow: None }
    }

    fn note(&mut self, called: bool, slow: bool, now: Instant) {
        if called || slow {
            self.called = now;
        }
        if slow {
            self.slow = Some(now);
        }
    }

    fn length(&self, now: Instant) -> Duration {
        let lately = |then: Instant| now.saturating_duration_since(then) < PACE_KEPT;
        match self.slow {
            Some(slow) if lately(slow) => TICK,
            _ if lately(self.called) => CALM_TICK,
            _ => IDLE_TICK,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_pace_follows_the_guests() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let kept = PACE_KEPT.as_millis() as u64;
        let mut pace = Pace::new(start);
        assert_eq!(pace.length(at(kept)), IDLE_TICK);
        pace.note(true, false, at(kept));
        assert_eq!(pace.length(at(kept)), CALM_TICK);
        pace.note(true, true, at(kept + 4));
        assert_eq!(pace.length(at(kept + 4)), TICK);
        pace.note(true, false, at(2 * kept + 3));
        assert_eq!(pace.length(at(2 * kept + 3)), TICK);
        assert_eq!(pace.length(at(2 * kept + 4)), CALM_TICK);
        pace.note(false, false, at(3 * kept + 3));
        assert_eq!(pace.length(at(3 * kept + 3)), IDLE_TICK);
    }

    #[test]
    fn an_idle_ticker_is_woken_by_a_call_and_ends_when_told() {
        let pulse = Arc::new(Pulse::default());
        let shared = pulse.clone();
        let (raised, ticks) = mpsc::channel();
        let thread = std::thread::spawn(move || tick(&shared, || raised.send(()).unwrap()));
        let ticker = Ticker { pulse: pulse.clone(), thread: thread.thread().clone() };
        while !pulse.idle.load(Ordering::SeqCst) {
            ticks.recv().unwrap();
        }
        ticker.called();
        while pulse.idle.load(Ordering::SeqCst) {
            ticks.recv().unwrap();
        }
        drop(ticker);
        thread.join().unwrap();
    }
}

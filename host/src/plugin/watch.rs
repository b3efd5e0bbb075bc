//! Watches a new generation for a burst of traps.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{BURST_CALLS_PER_TRAP, BURST_CHECK, BURST_TRAPS, BURST_WINDOW};
use super::{Counters, Generation};

/// Waits for a burst since the counters were as in `before`, at most so long, and says what it was.
pub(super) async fn burst(generation: &Generation, before: Counters, within: Duration) -> Option<String> {
    let watch = async {
        let mut window = Window::new(Instant::now(), before);
        loop {
            // Looked at now and then too: a failure may fall between two waits.
            let _ = tokio::time::timeout(BURST_CHECK, generation.failed()).await;
            if let Some(reason) = window.look(Instant::now(), generation.counters()) {
                return reason;
            }
        }
    };
    tokio::time::timeout(within, watch).await.ok()
}

/// Counters over about the last `BURST_WINDOW`, oldest first.
struct Window(VecDeque<(Instant, Counters)>);

impl Window {
    fn new(now: Instant, counters: Counters) -> Window {
        Window(VecDeque::from([(now, counters)]))
    }

    fn look(&mut self, now: Instant, counters: Counters) -> Option<String> {
        while self.0.len() > 1
            && self.0.front().is_some_and(|(then, _)| now.duration_since(*then) > BURST_WINDOW)
        {
            self.0.pop_front();
        }
        let (_, first) = self.0.front()?;
        let (calls, traps) = (counters.calls - first.calls, counters.traps - first.traps);
        if self.0.back().is_some_and(|(last, _)| now.duration_since(*last) >= BURST_CHECK) {
            self.0.push_back((now, counters));
        }
        let burst = traps >= BURST_TRAPS && traps.saturating_mul(BURST_CALLS_PER_TRAP) >= calls;
        burst.then(|| {
            format!("{traps} of {calls} calls trapped or overran within {} s", BURST_WINDOW.as_secs())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(calls: u64, traps: u64) -> Counters {
        Counters { calls, traps, errors: 0 }
    }

    #[test]
    fn a_burst_is_several_traps_in_a_short_time_and_a_good_part_of_the_calls() {
        let start = Instant::now();
        let mut window = Window::new(start, counters(100, 3));
        let second = Duration::from_secs(1);
        assert_eq!(window.look(start + second, counters(104, 7)), None);
        assert_eq!(window.look(start + second, counters(1_000, 8)), None);
        assert!(window.look(start + second, counters(105, 8)).is_some());
    }

    #[test]
    fn traps_far_apart_are_no_burst() {
        let start = Instant::now();
        let mut window = Window::new(start, counters(0, 0));
        for number in 1..100 {
            let now = start + Duration::from_secs(4) * u32::try_from(number).unwrap();
            assert_eq!(window.look(now, counters(number, number)), None, "{number}");
        }
    }
}

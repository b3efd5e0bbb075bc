//! A new generation that answers a part of a plugin's calls while the old one stands by.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::arm::{Arm, Sample, worse};
use crate::plugin::admission::{Decision, Request, Subject};
use crate::plugin::limits::{CANARY_SHARE_MOST, TICKET_BYTES};
use crate::plugin::settle::Settlement;
use crate::plugin::{CallError, Generation, Limit};

/// A new generation beside the one that serves. A call that fails on it is answered by that one.
///
/// [`Canary::ended`] → `promote` or `abandon` of the [`ActivePlugin`](super::ActivePlugin).
pub struct Canary {
    generation: Arc<Generation>,
    part: Part,
    end: watch::Sender<Option<CanaryEnd>>,
}

/// What it answers.
enum Part {
    /// The first calls that come, as a last check of a push.
    First {
        calls: u32,
        /// Calls that may still begin on it.
        left: AtomicU32,
        passed: AtomicU32,
    },
    /// A share of the requests, until it is told to end; it is compared with the old one meanwhile.
    Share { share: Share, new: Box<Arm>, old: Box<Arm> },
}

/// How a canary went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryEnd {
    /// It answered all its calls.
    Passed,
    /// A call failed (and was answered by the old generation); how.
    Failed(CallError),
    /// The time ran out with no failure, before it had all its calls; or another canary took its place.
    Quiet,
}

/// A part of the requests, in hundredths of a percent; as text `5%` or `0.5%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u16);

impl Share {
    /// All of the requests.
    const WHOLE: u16 = 10_000;

    /// Reads a share; the error says how one is written.
    pub fn parse(text: &str) -> Result<Share, String> {
        let most = CANARY_SHARE_MOST;
        let wrong = || format!("a share is written as 5% or 0.5%; from 0.01% to {most}%");
        let number = text.strip_suffix('%').ok_or_else(wrong)?;
        let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let percent: f64 = number.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        let share = (percent * 100.0).round();
        let range = 1.0..=f64::from(most) * 100.0;
        if range.contains(&share) { Ok(Share(share as u16)) } else { Err(wrong()) }
    }

    /// Whether a request is of the share: always the same answer for the same request, in each of its phases.
    fn has(self, request: &Request) -> bool {
        let mut hasher = DefaultHasher::new();
        request.id.hash(&mut hasher);
        hasher.finish() % u64::from(Share::WHOLE) < u64::from(self.0)
    }

    /// As a ratio from 0 to 1.
    pub(crate) fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Share::WHOLE)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}%", f64::from(self.0) / 100.0)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Canary {
    /// For the next `calls` admit calls.
    pub(super) fn first(generation: Arc<Generation>, calls: u32) -> Canary {
        let part = Part::First { calls, left: AtomicU32::new(calls), passed: AtomicU32::new(0) };
        Canary { generation, part, end: watch::Sender::new(None) }
    }

    /// For a share of the requests.
    pub(super) fn share(generation: Arc<Generation>, share: Share) -> Canary {
        let arm = |version| Box::new(Arm::new(generation.name(), version));
        let part = Part::Share { share, new: arm("new"), old: arm("old") };
        Canary { generation, part, end: watch::Sender::new(None) }
    }

    /// Waits for the end, at most so long.
    pub async fn ended(&self, within: Duration) -> CanaryEnd {
        let mut end = self.end.subscribe();
        match timeout(within, end.wait_for(Option::is_some)).await {
            Ok(Ok(end)) => end.clone().unwrap_or(CanaryEnd::Quiet),
            _ => CanaryEnd::Quiet,
        }
    }

    /// What the new generation and the old one did since it began; nothing where it has the first calls only.
    pub fn samples(&self) -> (Sample, Sample) {
        match &self.part {
            Part::First { .. } => Default::default(),
            Part::Share { new, old, .. } => (new.sample(), old.sample()),
        }
    }

    /// Why it must not serve: a call failed that ends it, or it is worse than the old generation. None: it may.
    pub fn fault(&self) -> Option<String> {
        if let Some(CanaryEnd::Failed(error)) = &*self.end.borrow() {
            return Some(format!("a call failed: {error}"));
        }
        let (new, old) = self.samples();
        worse(&new, &old)
    }

    /// The number of its generation.
    pub(super) fn number(&self) -> u64 {
        self.generation.identity().number
    }

    /// None: the call is for the current generation.
    pub(super) async fn admit(
        &self,
        request: &Arc<Request>,
        subjects: &Arc<[Arc<Subject>]>,
    ) -> Option<Vec<Decision>> {
        if !self.takes(request) {
            return None;
        }
        let began = Instant::now();
        let answer = self.generation.admit(request.clone(), subjects.clone()).await;
        let took = began.elapsed();
        match answer {
            Ok(decisions) if decisions.len() != subjects.len() => {
                let text = format!("{} decisions for {} subjects", decisions.len(), subjects.len());
                self.fail(CallError::Guest(text));
                None
            }
            Ok(decisions) => self.answered(decisions, took),
            Err(CallError::Busy) => None,
            Err(error) => {
                self.failed(error, took);
                None
            }
        }
    }

    /// None: a ticket is over its limit, which is a failure as an error is.
    fn answered(&self, decisions: Vec<Decision>, took: Duration) -> Option<Vec<Decision>> {
        let Some(bytes) = decisions.iter().find_map(oversized) else {
            self.passed(took, &decisions);
            return Some(decisions);
        };
        self.generation.hit(Limit::Ticket);
        self.failed(CallError::Guest(format!("a ticket of {bytes} bytes, more than {TICKET_BYTES}")), took);
        None
    }

    /// Whether a settlement of what the canary of generation `admitted_by` allowed, if one did, is for it: while it has the
    /// first calls all of them, since it must settle the tickets of others too, and else its own.
    pub(super) fn hears(&self, admitted_by: Option<u64>) -> bool {
        admitted_by == Some(self.number()) || matches!(self.part, Part::First { .. })
    }

    pub(super) async fn settle(&self, settlements: &Arc<Vec<Settlement>>) -> bool {
        match self.generation.settle(settlements.clone()).await {
            Ok(()) => true,
            Err(CallError::Busy) => false,
            Err(error) => {
                self.failed(error, Duration::ZERO);
                false
            }
        }
    }

    /// Takes note of a call that the old generation answered.
    pub(super) fn compare(&self, took: Duration, answer: &Result<Vec<Decision>, CallError>) {
        let Part::Share { old, .. } = &self.part else { return };
        match answer {
            Ok(decisions) => old.answered(took, decisions),
            Err(CallError::Busy) => {}
            Err(_) => old.note(took, true),
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.end.borrow(), Some(CanaryEnd::Failed(_)))
    }

    fn takes(&self, request: &Request) -> bool {
        match &self.part {
            Part::First { left, .. } => {
                let take = |left: u32| left.checked_sub(1);
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            }
            Part::Share { share, .. } => share.has(request),
        }
    }

    fn passed(&self, took: Duration, decisions: &[Decision]) {
        match &self.part {
            Part::First { calls, passed, .. } => {
                if passed.fetch_add(1, Ordering::Relaxed) + 1 >= *calls {
                    self.end(CanaryEnd::Passed);
                }
            }
            Part::Share { new, .. } => new.answered(took, decisions),
        }
    }

    /// A trap ends it. An overrun and an error do where it has the first calls only; among many they are compared with those of
    /// the old generation, since any version has one now and then.
    fn failed(&self, reason: CallError, took: Duration) {
        match (&self.part, &reason) {
            (Part::Share { new, .. }, CallError::Deadline(_) | CallError::Guest(_)) => new.note(took, true),
            _ => self.fail(reason),
        }
    }

    fn fail(&self, reason: CallError) {
        if let Part::First { left, .. } = &self.part {
            left.store(0, Ordering::Relaxed);
        }
        self.end(CanaryEnd::Failed(reason));
    }

    /// A failure stands, even after all calls have passed; otherwise the first end does.
    fn end(&self, end: CanaryEnd) {
        self.end.send_if_modified(|now| {
            let changes = now.is_none() || (*now == Some(CanaryEnd::Passed) && end != CanaryEnd::Passed);
            if changes {
                *now = Some(end);
            }
            changes
        });
    }
}

/// The bytes of a ticket that is over its limit.
fn oversized(decision: &Decision) -> Option<usize> {
    match decision {
        Decision::Allow(Some(ticket)) => Some(ticket.len()).filter(|bytes| *bytes > TICKET_BYTES),
        Decision::Allow(None) | Decision::Deny(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::request;

    #[test]
    fn shares_are_read_as_written_and_shown_likewise() {
        for (text, share) in [("5%", 500), ("0.5%", 50), ("0.01%", 1), ("50%", 5_000), ("12.34%", 1_234)] {
            assert_eq!(Share::parse(text), Ok(Share(share)), "{text}");
            assert_eq!(Share(share).to_string(), text);
        }
        for wrong in
            ["", "5", "%", "0%", "0.001%", "50.1%", "100%", "-5%", "+5%", "1e1%", "inf%", "NaN%", "5 %"]
        {
            assert!(Share::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_has_about_its_part_of_the_requests_and_each_of_them_always() {
        let share = Share::parse("5%").unwrap();
        let of = |number: u32| Request { id: format!("req_{number:x}"), ..(*request(1)).clone() };
        let has = |share: Share| (0..20_000).filter(|number| share.has(&of(*number))).count();
        assert!((850..1_150).contains(&has(share)), "{}", has(share));
        assert_eq!(has(share), has(share));
    }
}

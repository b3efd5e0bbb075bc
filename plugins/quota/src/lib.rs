//! Holds client keys and upstream accounts to their limits: requests and tokens in any minute, requests in any day.
//!
//! An admission reserves the request and its estimated tokens; the settlement replaces the estimate by the truth, or
//! gives back everything when the request failed, since only requests without error count. All that is known of a
//! subject is one value in the kv store `quota`, changed by read and swap, so no concurrency gets past a limit. An
//! allow that is never settled keeps its charge as estimated until it leaves the windows.

mod ledger;
mod limits;
mod ticket;
mod value;
mod window;

use tollgate_guest::admission::{
    Decision, Ending, Guest, Identity, Request, Settlement, Subject, SubjectKind, Usage,
};
use tollgate_guest::kv::{Change, Named, Versioned, update};

use crate::ledger::Ledger;

thread_local! {
    static STORE: Named = const { Named::new("quota") };
}

struct Quota;

tollgate_guest::admission::export!(Quota);

impl Guest for Quota {
    fn admit(request: Request, subjects: Vec<Subject>) -> Result<Vec<Decision>, String> {
        if subjects.iter().all(is_unlimited) {
            return Ok(subjects.iter().map(|_| Decision::Allow(None)).collect());
        }
        STORE.with(|store| admit(store.get()?, &request, &subjects))
    }

    fn settle(settlements: Vec<Settlement>) -> Result<(), String> {
        if settlements.iter().all(|settlement| settlement.ticket.is_none()) {
            return Ok(());
        }
        STORE.with(|store| settle(store.get()?, &settlements))
    }
}

/// One decision for each subject. On an error nothing stays reserved, as far as the store allows.
fn admit(store: &impl Versioned, request: &Request, subjects: &[Subject]) -> Result<Vec<Decision>, String> {
    let mut decisions = Vec::with_capacity(subjects.len());
    for subject in subjects {
        match admit_one(store, request, subject) {
            Ok(decision) => decisions.push(decision),
            Err(error) => {
                for (subject, decision) in subjects.iter().zip(&decisions) {
                    if let Decision::Allow(Some(ticket)) = decision {
                        // The first error is the one to report; what cannot be given back here, its lease's end does.
                        let _ = give_back(store, subject, ticket, request.now_ms);
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(decisions)
}

fn admit_one(store: &impl Versioned, request: &Request, subject: &Subject) -> Result<Decision, String> {
    if is_unlimited(subject) {
        return Ok(Decision::Allow(None));
    }
    update(store, &key(subject.kind, &subject.id), |value| {
        let mut ledger = Ledger::open(value)?;
        let moved = ledger.step_back(request.now_ms);
        let answer =
            match ledger.reserve(&request.id, request.estimated_tokens, &subject.limits, request.now_ms) {
                Err(denial) if !moved => return Ok(Change::Keep(Decision::Deny(denial))),
                Err(denial) => Decision::Deny(denial),
                Ok(lease) => Decision::Allow(Some(ticket::encode(lease))),
            };
        Ok(Change::Write { ttl_ms: ledger.ttl_ms(), value: ledger.into_value(), answer })
    })
}

/// Settles every subject's settlements in one change of its value. An error of one keeps none of the others back.
fn settle(store: &impl Versioned, settlements: &[Settlement]) -> Result<(), String> {
    let mut ordered: Vec<&Settlement> =
        settlements.iter().filter(|settlement| settlement.ticket.is_some()).collect();
    ordered.sort_by(|a, b| order(&a.subject).cmp(&order(&b.subject)));
    let mut outcome = Ok(());
    for group in ordered.chunk_by(|a, b| a.subject == b.subject) {
        if let Err(error) = settle_group(store, group) {
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}

fn settle_group(store: &impl Versioned, group: &[&Settlement]) -> Result<(), String> {
    let Some(first) = group.first() else { return Ok(()) };
    let mut unreadable = Ok(());
    update(store, &key(first.subject.kind, &first.subject.id), |value| {
        let mut ledger = Ledger::open(value)?;
        let mut changed = false;
        for settlement in group {
            match ticket::decode(settlement.ticket.as_deref().unwrap_or_default()) {
                Ok(lease) => changed |= ledger.settle(lease, &settlement.usage, settlement.now_ms),
                Err(error) => unreadable = Err(error),
            }
        }
        Ok(if changed {
            Change::Write { ttl_ms: ledger.ttl_ms(), value: ledger.into_value(), answer: () }
        } else {
            Change::Keep(())
        })
    })?;
    unreadable
}

fn give_back(store: &impl Versioned, subject: &Subject, ticket: &[u8], now_ms: u64) -> Result<(), String> {
    let lease = ticket::decode(ticket)?;
    let usage = Usage {
        ending: Ending::NeverSent,
        status: None,
        input_tokens: 0,
        output_tokens: 0,
        duration_ms: 0,
        retry_after_ms: None,
    };
    update(store, &key(subject.kind, &subject.id), |value| {
        let mut ledger = Ledger::open(value)?;
        ledger.settle(lease, &usage, now_ms);
        Ok(Change::Write { ttl_ms: ledger.ttl_ms(), value: ledger.into_value(), answer: () })
    })
}

fn is_unlimited(subject: &Subject) -> bool {
    let limits = &subject.limits;
    limits.rpm.is_none() && limits.tpm.is_none() && limits.rpd.is_none()
}

fn order(subject: &Identity) -> (bool, &str) {
    (subject.kind == SubjectKind::Client, &subject.id)
}

fn key(kind: SubjectKind, id: &str) -> String {
    let kind = match kind {
        SubjectKind::Client => "client:",
        SubjectKind::Account => "account:",
    };
    [kind, id].concat()
}

#[cfg(test)]
mod tests;

//! Holds client keys and upstream accounts to their limits: requests and tokens in any minute, requests in any day.
//!
//! An admission reserves the request and its estimated tokens; the settlement replaces the estimate by the truth, or
//! gives back everything when the request failed, since only requests without error count. All that is known of a
//! subject is one value in the kv store `quota`, changed by read and swap, so no concurrency gets past a limit. An
//! allow that is never settled keeps its charge as estimated until it leaves the windows.

mod codec;
mod ledger;
mod limits;

use std::cell::RefCell;

use tollgate_guest::admission::{Decision, Ending, Guest, Request, Settlement, Subject, SubjectKind, Usage};
use tollgate_guest::kv::{Change, Named, Versioned, update};

use crate::ledger::Ledger;

thread_local! {
    static STORE: Named = const { Named::new("quota") };
    static LEDGER: RefCell<Ledger> = RefCell::default();
}

struct Quota;

tollgate_guest::admission::export!(Quota);

impl Guest for Quota {
    fn admit(request: Request, subjects: Vec<Subject>) -> Result<Vec<Decision>, String> {
        if subjects.iter().all(is_unlimited) {
            return Ok(subjects.iter().map(|_| Decision::Allow(None)).collect());
        }
        with_store(|store, ledger| admit(store, ledger, &request, &subjects))
    }

    fn settle(settlements: Vec<Settlement>) -> Result<(), String> {
        if settlements.iter().all(|settlement| settlement.ticket.is_none()) {
            return Ok(());
        }
        with_store(|store, ledger| settle(store, ledger, &settlements))
    }
}

fn with_store<T>(
    run: impl FnOnce(&tollgate_guest::kv::Store, &mut Ledger) -> Result<T, String>,
) -> Result<T, String> {
    STORE.with(|store| LEDGER.with_borrow_mut(|ledger| run(store.get()?, ledger)))
}

/// One decision for each subject. On an error nothing stays reserved, as far as the store allows.
fn admit(
    store: &impl Versioned,
    ledger: &mut Ledger,
    request: &Request,
    subjects: &[Subject],
) -> Result<Vec<Decision>, String> {
    let mut decisions = Vec::with_capacity(subjects.len());
    for subject in subjects {
        match admit_one(store, ledger, request, subject) {
            Ok(decision) => decisions.push(decision),
            Err(error) => {
                for (subject, decision) in subjects.iter().zip(&decisions) {
                    if let Decision::Allow(Some(ticket)) = decision {
                        // The first error is the one to report; what cannot be given back here, its lease's end does.
                        let _ = give_back(store, ledger, subject, ticket, request.now_ms);
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(decisions)
}

fn admit_one(
    store: &impl Versioned,
    ledger: &mut Ledger,
    request: &Request,
    subject: &Subject,
) -> Result<Decision, String> {
    if is_unlimited(subject) {
        return Ok(Decision::Allow(None));
    }
    update(store, &key(subject), |value| {
        codec::decode(value, ledger)?;
        let moved = ledger.step_back(request.now_ms);
        let answer =
            match ledger.reserve(&request.id, request.estimated_tokens, &subject.limits, request.now_ms) {
                Err(denial) if !moved => return Ok(Change::Keep(Decision::Deny(denial))),
                Err(denial) => Decision::Deny(denial),
                Ok(lease) => Decision::Allow(Some(codec::encode_ticket(lease))),
            };
        Ok(Change::Write { value: codec::encode(ledger), ttl_ms: ledger.ttl_ms(), answer })
    })
}

/// Settles every subject's settlements in one change of its value. An error of one keeps none of the others back.
fn settle(store: &impl Versioned, ledger: &mut Ledger, settlements: &[Settlement]) -> Result<(), String> {
    let mut ordered: Vec<&Settlement> =
        settlements.iter().filter(|settlement| settlement.ticket.is_some()).collect();
    ordered.sort_by(|a, b| identity(&a.subject).cmp(&identity(&b.subject)));
    let mut outcome = Ok(());
    for group in ordered.chunk_by(|a, b| identity(&a.subject) == identity(&b.subject)) {
        if let Err(error) = settle_group(store, ledger, group) {
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}

fn settle_group(store: &impl Versioned, ledger: &mut Ledger, group: &[&Settlement]) -> Result<(), String> {
    let Some(first) = group.first() else { return Ok(()) };
    let mut unreadable = Ok(());
    update(store, &key(&first.subject), |value| {
        codec::decode(value, ledger)?;
        let mut changed = false;
        for settlement in group {
            match codec::decode_ticket(settlement.ticket.as_deref().unwrap_or_default()) {
                Ok(lease) => changed |= ledger.settle(lease, &settlement.usage, settlement.now_ms),
                Err(error) => unreadable = Err(error),
            }
        }
        Ok(if changed {
            Change::Write { value: codec::encode(ledger), ttl_ms: ledger.ttl_ms(), answer: () }
        } else {
            Change::Keep(())
        })
    })?;
    unreadable
}

fn give_back(
    store: &impl Versioned,
    ledger: &mut Ledger,
    subject: &Subject,
    ticket: &[u8],
    now_ms: u64,
) -> Result<(), String> {
    let lease = codec::decode_ticket(ticket)?;
    let usage = Usage {
        ending: Ending::NeverSent,
        status: None,
        input_tokens: 0,
        output_tokens: 0,
        duration_ms: 0,
        retry_after_ms: None,
    };
    update(store, &key(subject), |value| {
        codec::decode(value, ledger)?;
        ledger.settle(lease, &usage, now_ms);
        Ok(Change::Write { value: codec::encode(ledger), ttl_ms: ledger.ttl_ms(), answer: () })
    })
}

fn is_unlimited(subject: &Subject) -> bool {
    let limits = &subject.limits;
    limits.rpm.is_none() && limits.tpm.is_none() && limits.rpd.is_none()
}

fn identity(subject: &Subject) -> (bool, &str) {
    (subject.kind == SubjectKind::Client, &subject.id)
}

fn key(subject: &Subject) -> String {
    let kind = match subject.kind {
        SubjectKind::Client => "client:",
        SubjectKind::Account => "account:",
    };
    [kind, &subject.id].concat()
}

#[cfg(test)]
mod tests;

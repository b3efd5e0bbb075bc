//! Holds client keys and upstream accounts to their limits: requests and tokens in any minute, requests in any day,
//! requests at once, and what they may spend, in tokens and money, in a day, a month and in total.
//!
//! An admission reserves the request and what it may come to; the settlement replaces the estimate by the truth. A request
//! that failed is given back, since only requests without error count; what tokens came of its answer are charged. All that is known of a
//! subject is one value in the kv store `quota`, and one more for each group of models with limits of its own, changed by
//! read and swap, so no concurrency gets past a limit. An allow that is never settled keeps its charge as estimated until
//! it leaves the windows.

mod bounds;
mod budget;
mod calendar;
mod demand;
mod ledger;
mod limits;
mod ticket;
mod value;
mod window;

use tollgate_guest::admission::{
    Decision, Denial, Ending, Guest, Request, Settlement, Subject, SubjectKind, Usage,
};
use tollgate_guest::kv::{Change, Named, Versioned, update};

use crate::bounds::Bounds;
use crate::demand::Demand;
use crate::ledger::Ledger;
use crate::limits::{GROUP_BYTES, GROUPS};
use crate::ticket::Held;

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
                        give_back(store, subject, &ticket::decode(ticket)?, request.now_ms);
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(decisions)
}

/// Reserves over all models and in each group of models with limits of its own, or nowhere.
fn admit_one(store: &impl Versioned, request: &Request, subject: &Subject) -> Result<Decision, String> {
    let limits = &subject.limits;
    let groups = bounds::models(limits);
    if groups.len() > GROUPS || groups.iter().any(|models| models.is_empty() || models.len() > GROUP_BYTES) {
        return Err(format!(
            "a subject's limits name at most {GROUPS} groups of models, of 1 to {GROUP_BYTES} bytes"
        ));
    }
    let groups = groups.into_iter().map(|models| (Some(models), Bounds::over(limits, models)));
    let scopes = std::iter::once((None, Bounds::over_all(limits))).chain(groups);
    let mut taken: Vec<Held<'_>> = Vec::new();
    for (models, bounds) in scopes.filter(|(_, bounds)| !bounds.is_unlimited()) {
        let denial = match reserve(store, request, &key(subject.kind, &subject.id, models), &bounds) {
            Ok(Ok(lease)) => {
                taken.push((models, lease));
                continue;
            }
            Ok(Err(denial)) => Ok(Decision::Deny(named(denial, models))),
            Err(error) => Err(error),
        };
        give_back(store, subject, &taken, request.now_ms);
        return denial;
    }
    Ok(Decision::Allow(ticket::encode(&taken)))
}

/// The lease, or why there is none.
fn reserve(
    store: &impl Versioned,
    request: &Request,
    key: &str,
    bounds: &Bounds,
) -> Result<Result<u64, Denial>, String> {
    let asked = budget::Asked {
        tokens: Demand { least: request.prompt_tokens, most: request.estimated_tokens },
        cost: request.estimated_cost.map(|most| Demand { least: 1, most }),
    };
    update(store, key, |value| {
        let mut ledger = Ledger::open(value)?;
        let moved = ledger.step_back(request.now_ms);
        let answer = ledger.reserve(&request.id, &asked, bounds, request.now_ms);
        if answer.is_err() && !moved {
            return Ok(Change::Keep(answer));
        }
        Ok(Change::Write { ttl_ms: ledger.ttl_ms(), value: ledger.into_value(), answer })
    })
}

/// A denial that says of which models it speaks.
fn named(denial: Denial, models: Option<&str>) -> Denial {
    match models {
        Some(models) => Denial { reason: format!("{} (of {models})", denial.reason), ..denial },
        None => denial,
    }
}

/// A lease to be settled, and where it stands.
struct Part<'a> {
    settlement: &'a Settlement,
    models: Option<&'a str>,
    lease: u64,
}

impl Part<'_> {
    fn place(&self) -> (bool, &str, Option<&str>) {
        let subject = &self.settlement.subject;
        (subject.kind == SubjectKind::Client, &subject.id, self.models)
    }
}

/// Settles all that stands in one value in one change of it. An error of one keeps none of the others back.
fn settle(store: &impl Versioned, settlements: &[Settlement]) -> Result<(), String> {
    let mut outcome = Ok(());
    let mut parts = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let Some(ticket) = &settlement.ticket else { continue };
        match ticket::decode(ticket) {
            Ok(leases) => {
                parts.extend(leases.into_iter().map(|(models, lease)| Part { settlement, models, lease }));
            }
            Err(error) => outcome = Err(error),
        }
    }
    parts.sort_by(|a, b| a.place().cmp(&b.place()));
    for group in parts.chunk_by(|a, b| a.place() == b.place()) {
        if let Err(error) = settle_group(store, group) {
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}

fn settle_group(store: &impl Versioned, group: &[Part<'_>]) -> Result<(), String> {
    let Some(first) = group.first() else { return Ok(()) };
    let subject = &first.settlement.subject;
    update(store, &key(subject.kind, &subject.id, first.models), |value| {
        let mut ledger = Ledger::open(value)?;
        let mut changed = false;
        for Part { settlement, lease, .. } in group {
            changed |= ledger.settle(*lease, &settlement.usage, settlement.now_ms);
        }
        Ok(if changed {
            Change::Write { ttl_ms: ledger.ttl_ms(), value: ledger.into_value(), answer: () }
        } else {
            Change::Keep(())
        })
    })
}

/// Gives back what a request took before it was refused elsewhere. What the store keeps from being given back, the
/// lease's end does.
fn give_back(store: &impl Versioned, subject: &Subject, leases: &[Held<'_>], now_ms: u64) {
    let usage = Usage {
        ending: Ending::NeverSent,
        status: None,
        input_tokens: 0,
        output_tokens: 0,
        cost: None,
        duration_ms: 0,
        retry_after_ms: None,
        reached: None,
    };
    for (models, lease) in leases {
        let _ = update(store, &key(subject.kind, &subject.id, *models), |value| {
            let mut ledger = Ledger::open(value)?;
            ledger.settle(*lease, &usage, now_ms);
            Ok(Change::Write { ttl_ms: ledger.ttl_ms(), value: ledger.into_value(), answer: () })
        });
    }
}

fn is_unlimited(subject: &Subject) -> bool {
    let limits = &subject.limits;
    limits.rpm.is_none() && limits.tpm.is_none() && limits.rpd.is_none() && limits.further.is_empty()
}

/// `client:<id>` or `account:<id>`, with `/<models>` behind it where only some are meant.
fn key(kind: SubjectKind, id: &str, models: Option<&str>) -> String {
    let kind = match kind {
        SubjectKind::Client => "client:",
        SubjectKind::Account => "account:",
    };
    match models {
        None => [kind, id].concat(),
        Some(models) => [kind, id, "/", models].concat(),
    }
}

#[cfg(test)]
mod tests;

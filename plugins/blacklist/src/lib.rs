//! Keeps out client keys and upstream accounts that are on the blacklist, and puts accounts on it when they fail.
//!
//! The list is the kv store `blacklist`; see [`tollgate_guest::blacklist`] for its format, which operators write as
//! well. An entry holds until its time; an account's is half-open for a while after that, when one request at a time
//! may try: a good answer removes the entry, a failure renews it. Where an account has reached a limit that is over one of its
//! models alone, only this model of it is put on the list. Clients are put on the list by operators alone.
//!
//! Requests without an answer in a row are kept beside the entries, under `strikes:<id>`.

mod limits;
mod list;
mod outcome;
mod ticket;

use tollgate_guest::admission::{Decision, Guest, Identity, Request, Settlement, Subject, SubjectKind};
use tollgate_guest::blacklist::{ACCOUNT_PREFIX, CLIENT_PREFIX, Entry};
use tollgate_guest::kv::Named;

use crate::limits::KEY_BYTES;
use crate::list::{Standing, Store};
use crate::outcome::Finding;
use crate::ticket::Ticket;

thread_local! {
    static STORE: Named = const { Named::new("blacklist") };
}

struct Blacklist;

tollgate_guest::admission::export!(Blacklist);

impl Guest for Blacklist {
    fn admit(request: Request, subjects: Vec<Subject>) -> Result<Vec<Decision>, String> {
        STORE.with(|store| admit(store.get()?, &request, &subjects))
    }

    fn settle(settlements: Vec<Settlement>) -> Result<(), String> {
        if !settlements.iter().any(concerns) {
            return Ok(());
        }
        STORE.with(|store| settle(store.get()?, &settlements))
    }
}

/// Where everything about a subject stands.
struct Keys {
    subject: String,
    model: Option<String>,
    strikes: Option<String>,
}

impl Keys {
    fn new(kind: SubjectKind, id: &str, model: &str) -> Keys {
        let prefix = match kind {
            SubjectKind::Client => CLIENT_PREFIX,
            SubjectKind::Account => ACCOUNT_PREFIX,
        };
        let key = [prefix, id].concat();
        let has_model = !model.is_empty() && key.len() + 1 + model.len() <= KEY_BYTES;
        Keys {
            model: has_model.then(|| [&key, "/", model].concat()),
            strikes: (kind == SubjectKind::Account).then(|| strikes_key(id)),
            subject: key,
        }
    }

    fn push_to(self, keys: &mut Vec<String>) {
        keys.push(self.subject);
        keys.extend(self.model);
        keys.extend(self.strikes);
    }
}

fn strikes_key(id: &str) -> String {
    ["strikes:", id].concat()
}

/// One decision for each subject. Where nothing is on the list this asks the store once, for all subjects.
fn admit(store: &impl Store, request: &Request, subjects: &[Subject]) -> Result<Vec<Decision>, String> {
    let mut keys = Vec::with_capacity(3 * subjects.len());
    for subject in subjects {
        Keys::new(subject.kind, &subject.id, &request.model).push_to(&mut keys);
    }
    let values = store.get_many(&keys).map_err(|error| tollgate_guest::kv::explain(&error))?;
    if values.iter().all(Option::is_none) {
        return Ok(subjects.iter().map(|_| Decision::Allow(None)).collect());
    }
    let found: Vec<(String, Vec<u8>)> =
        keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect();
    subjects.iter().map(|subject| admit_one(store, request, subject, &found)).collect()
}

fn admit_one(
    store: &impl Store,
    request: &Request,
    subject: &Subject,
    found: &[(String, Vec<u8>)],
) -> Result<Decision, String> {
    let keys = Keys::new(subject.kind, &subject.id, &request.model);
    let value_of =
        |key: &String| found.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_slice());
    let mut half_open = Vec::new();
    for key in std::iter::once(&keys.subject).chain(&keys.model) {
        match value_of(key).map(|value| list::standing(value, request.now_ms)) {
            None => {}
            Some(Standing::Blocked(denial)) => return Ok(Decision::Deny(denial)),
            Some(Standing::HalfOpen) => half_open.push(key),
        }
    }
    let mut ticket = Ticket {
        has_strikes: keys.strikes.as_ref().is_some_and(|key| value_of(key).is_some()),
        ..Ticket::default()
    };
    // Clients need no probe: nothing that happens upstream is their fault.
    if subject.kind == SubjectKind::Client {
        half_open.clear();
    }
    for (place, key) in half_open.iter().enumerate() {
        if let Some(denial) = list::take_probe(store, key, &request.id, request.now_ms)? {
            for taken in half_open.iter().take(place) {
                list::change_probe(store, taken, &request.id, request.now_ms, false)?;
            }
            return Ok(Decision::Deny(denial));
        }
        if **key == keys.subject {
            ticket.probes_account = true;
        } else {
            ticket.probes_model = Some(request.model.clone());
        }
    }
    Ok(Decision::Allow(ticket.encode()))
}

/// Whether a settlement may change the list.
fn concerns(settlement: &Settlement) -> bool {
    let quiet = || {
        matches!(outcome::finding(&settlement.usage), Finding::Running | Finding::Nothing | Finding::Works)
    };
    settlement.subject.kind == SubjectKind::Account && (settlement.ticket.is_some() || !quiet())
}

/// An error of one settlement keeps none of the others back.
fn settle(store: &impl Store, settlements: &[Settlement]) -> Result<(), String> {
    let mut outcome = Ok(());
    for settlement in settlements.iter().filter(|settlement| concerns(settlement)) {
        outcome = outcome.and(settle_one(store, settlement));
    }
    outcome
}

fn settle_one(store: &impl Store, settlement: &Settlement) -> Result<(), String> {
    let ticket = Ticket::decode(settlement.ticket.as_deref())?;
    let Identity { kind, id } = &settlement.subject;
    let account = Keys::new(*kind, id, ticket.probes_model.as_deref().unwrap_or_default());
    let (request, now_ms) = (settlement.request_id.as_str(), settlement.now_ms);
    let probed = ticket.probes_account.then_some(&account.subject).into_iter().chain(&account.model);
    let finding = outcome::finding(&settlement.usage);
    match finding {
        Finding::Running | Finding::Nothing => {
            let renew = finding == Finding::Running;
            for key in probed {
                list::change_probe(store, key, request, now_ms, renew)?;
            }
        }
        Finding::Works => {
            for key in probed {
                list::clear(store, key, request)?;
            }
            if ticket.has_strikes {
                let key = strikes_key(id);
                store.delete(&key).map_err(|error| tollgate_guest::kv::explain(&error))?;
            }
        }
        Finding::Fails { hold_ms, reason } => {
            hold(store, &account, &ticket, &entry(now_ms, hold_ms, reason))?;
        }
        Finding::Limited { hold_ms, reason, limit, of_model } => {
            let entry = Entry { limit: Some(limit.to_owned()), ..entry(now_ms, hold_ms, reason) };
            match Keys::new(*kind, id, &settlement.model).model.filter(|_| of_model) {
                Some(model) => {
                    // The account works, for other models.
                    for key in probed.filter(|key| **key != model) {
                        list::change_probe(store, key, request, now_ms, false)?;
                    }
                    let model_name = Some(settlement.model.clone());
                    list::hold(store, &model, &Entry { model: model_name, ..entry }, now_ms)?;
                }
                None => hold(store, &account, &ticket, &entry)?,
            }
        }
        Finding::Silent { hold_ms, reason } => {
            let enough = list::strike(store, &strikes_key(id), request)?;
            if enough || ticket.probes_account || ticket.probes_model.is_some() {
                hold(store, &account, &ticket, &entry(now_ms, hold_ms, reason))?;
            }
        }
    }
    Ok(())
}

fn entry(now_ms: u64, hold_ms: u64, reason: String) -> Entry {
    let until_ms = Some(now_ms.saturating_add(hold_ms));
    Entry { reason, created_ms: now_ms, until_ms, ..Entry::default() }
}

/// Blacklists the account, and again the model that the request was trying.
fn hold(store: &impl Store, account: &Keys, ticket: &Ticket, entry: &Entry) -> Result<(), String> {
    list::hold(store, &account.subject, entry, entry.created_ms)?;
    if let Some(key) = &account.model {
        let entry = Entry { model: ticket.probes_model.clone(), ..entry.clone() };
        list::hold(store, key, &entry, entry.created_ms)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

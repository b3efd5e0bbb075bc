//! The list in the kv store: entries, probes of half-open entries, and strikes.

use tollgate_guest::admission::Denial;
use tollgate_guest::blacklist::{Entry, Probe};
use tollgate_guest::kv::{self, Change, Versioned, update};

use crate::limits::{PROBE_MS, RECOVERY_MS, STRIKES, STRIKES_KEPT, STRIKES_TTL_MS};

/// The store as the list uses it.
pub(crate) trait Store: Versioned {
    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, kv::Error>;
    fn delete(&self, key: &str) -> Result<(), kv::Error>;
}

impl Store for kv::Store {
    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, kv::Error> {
        kv::Store::get_many(self, keys)
    }

    fn delete(&self, key: &str) -> Result<(), kv::Error> {
        kv::Store::delete(self, key)
    }
}

/// Where an entry leaves its subject.
#[derive(Debug)]
pub(crate) enum Standing {
    Blocked(Denial),
    /// The entry is over, but nobody has shown yet that the subject works again.
    HalfOpen,
}

/// Reads an entry. One that cannot be read blocks: somebody meant to keep the subject out.
pub(crate) fn standing(value: &[u8], now_ms: u64) -> Standing {
    let entry = match Entry::decode(value) {
        Ok(entry) => entry,
        Err(error) => return Standing::Blocked(denial(&error, None)),
    };
    let until_ms = entry.until_ms();
    if now_ms < until_ms {
        let wait_ms = (until_ms != u64::MAX).then_some(until_ms - now_ms);
        return Standing::Blocked(denial(&entry.reason, wait_ms));
    }
    match &entry.probe {
        Some(probe) if now_ms < probe.until_ms => {
            Standing::Blocked(denial(&entry.reason, Some(probe.until_ms - now_ms)))
        }
        _ => Standing::HalfOpen,
    }
}

/// Lets this request try a half-open entry; a denial when another one was faster or the entry holds again.
pub(crate) fn take_probe(
    store: &impl Store,
    key: &str,
    request: &str,
    now_ms: u64,
) -> Result<Option<Denial>, String> {
    update(store, key, |value| {
        let Some(value) = value else { return Ok(Change::Keep(None)) };
        if let Standing::Blocked(denial) = standing(&value, now_ms) {
            return Ok(Change::Keep(Some(denial)));
        }
        let mut entry = Entry::decode(&value)?;
        entry.probe = Some(Probe { request: request.to_owned(), until_ms: now_ms.saturating_add(PROBE_MS) });
        write(&entry, now_ms, None)
    })
}

/// Gives this request's probe back (`renew_ms` none) or more time.
pub(crate) fn change_probe(
    store: &impl Store,
    key: &str,
    request: &str,
    now_ms: u64,
    renew: bool,
) -> Result<(), String> {
    change_own(store, key, request, |mut entry| {
        let until_ms = now_ms.saturating_add(PROBE_MS);
        entry.probe = renew.then(|| Probe { request: request.to_owned(), until_ms });
        write(&entry, now_ms, ())
    })
}

/// Removes the entry that this request was the probe of. Not if another one stands there by now: that is why it is
/// swapped for one that is gone at once, and not deleted.
pub(crate) fn clear(store: &impl Store, key: &str, request: &str) -> Result<(), String> {
    change_own(store, key, request, |entry| {
        Ok(Change::Write { value: entry.encode()?, ttl_ms: 1, answer: () })
    })
}

/// Blacklists a subject, unless an entry that holds longer is there already.
pub(crate) fn hold(store: &impl Store, key: &str, entry: &Entry, now_ms: u64) -> Result<(), String> {
    update(store, key, |value| {
        // An entry that cannot be read blocks until a person looks at it.
        let longer = value.is_some_and(|value| {
            Entry::decode(&value).map_or(true, |present| present.until_ms() >= entry.until_ms())
        });
        if longer { Ok(Change::Keep(())) } else { write(entry, now_ms, ()) }
    })
}

/// Counts a strike of a request, once; true: there are enough of them.
pub(crate) fn strike(store: &impl Store, key: &str, request: &str) -> Result<bool, String> {
    update(store, key, |value| {
        let text = std::str::from_utf8(value.as_deref().unwrap_or_default()).unwrap_or_default();
        let mut requests: Vec<&str> = text.lines().collect();
        if requests.contains(&request) {
            // It may come again because what follows from it failed.
            return Ok(Change::Keep(requests.len() >= STRIKES));
        }
        requests.push(request);
        let kept = requests.get(requests.len().saturating_sub(STRIKES_KEPT)..).unwrap_or_default();
        Ok(Change::Write {
            value: kept.join("\n").into_bytes(),
            ttl_ms: STRIKES_TTL_MS,
            answer: requests.len() >= STRIKES,
        })
    })
}

fn change_own(
    store: &impl Store,
    key: &str,
    request: &str,
    change: impl Fn(Entry) -> Result<Change<()>, String>,
) -> Result<(), String> {
    update(store, key, |value| {
        let entry = value.as_deref().map(Entry::decode).transpose()?;
        match entry {
            Some(entry) if entry.probe.as_ref().is_some_and(|probe| probe.request == request) => {
                change(entry)
            }
            _ => Ok(Change::Keep(())),
        }
    })
}

/// Writes an entry that stays until its recovery is over, and as long as its probe may take.
fn write<T>(entry: &Entry, now_ms: u64, answer: T) -> Result<Change<T>, String> {
    let recovery_ms = entry.until_ms().saturating_add(RECOVERY_MS);
    let probe_ms = entry.probe.as_ref().map_or(0, |probe| probe.until_ms);
    let ttl_ms = recovery_ms.max(probe_ms).saturating_sub(now_ms).max(1);
    Ok(Change::Write { value: entry.encode()?, ttl_ms, answer })
}

fn denial(reason: &str, retry_after_ms: Option<u64>) -> Denial {
    Denial {
        limit_name: "blacklisted".to_owned(),
        reason: format!("blacklisted: {reason}"),
        current: None,
        limit: None,
        retry_after_ms,
    }
}

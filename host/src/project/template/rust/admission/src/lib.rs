//! Closes models: a request for a model is refused while the kv store has an entry for it.

use tollgate_guest::admission::{Decision, Denial, Guest, Request, Settlement, Subject};
use tollgate_guest::kv;

struct Plugin;
tollgate_guest::admission::export!(Plugin);
thread_local!(static CLOSED: kv::Named = const { kv::Named::new("PLUGIN-NAME") });

impl Guest for Plugin {
    fn admit(request: Request, subjects: Vec<Subject>) -> Result<Vec<Decision>, String> {
        let key = format!("closed/{}", request.model);
        let entry = CLOSED.with(|store| store.get()?.get(&key).map_err(|error| store.explain(&error)))?;
        Ok(vec![decide(entry); subjects.len()])
    }

    fn settle(_: Vec<Settlement>) -> Result<(), String> {
        Ok(()) // Nothing was reserved, so nothing is given back.
    }
}

/// The entry's text goes to the client.
fn decide(entry: Option<Vec<u8>>) -> Decision {
    let Some(entry) = entry else { return Decision::Allow(None) };
    let (limit_name, reason) = ("closed".into(), String::from_utf8_lossy(&entry).into());
    Decision::Deny(Denial { limit_name, reason, current: None, limit: None, retry_after_ms: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_entry_everybody_may_pass() {
        assert_eq!(decide(None), Decision::Allow(None));
    }

    #[test]
    fn the_entry_is_the_reason() {
        let Decision::Deny(denial) = decide(Some(b"retired in May".to_vec())) else { panic!("not denied") };
        assert_eq!(denial.reason, "retired in May");
    }
}

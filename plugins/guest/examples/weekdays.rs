//! A policy that lets nobody in at weekends (UTC).

use tollgate_guest::admission::{Decision, Denial, Guest, Request, Settlement, Subject};

struct Weekdays;
tollgate_guest::admission::export!(Weekdays);

impl Guest for Weekdays {
    fn admit(request: Request, subjects: Vec<Subject>) -> Result<Vec<Decision>, String> {
        // The first day of 1970 was a Thursday; Monday is 0.
        let weekday = (request.now_ms / 86_400_000 + 3) % 7;
        Ok(subjects.iter().map(|_| if weekday < 5 { Decision::Allow(None) } else { closed() }).collect())
    }

    fn settle(_: Vec<Settlement>) -> Result<(), String> {
        Ok(())
    }
}

fn closed() -> Decision {
    let (limit_name, reason) = ("weekend".into(), "closed at weekends".into());
    Decision::Deny(Denial { limit_name, reason, current: None, limit: None, retry_after_ms: None })
}

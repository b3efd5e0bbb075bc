//! What a client is told when policies refuse it, or every account.

use std::fmt::{self, Write as _};

use super::{
    error::{Class, Problem},
    limits::REFUSALS_NAMED,
};
use crate::plugin::{Verdict, admission::Denial};

/// Why accounts could not be asked.
#[derive(Default)]
pub(super) struct Refusals {
    limit: Option<Denial>,
    retry_after_ms: Option<u64>,
    /// Each account with what stands in its way, for the log.
    named: String,
    count: usize,
}

impl Refusals {
    /// Takes note of a verdict about an account that is no allow, for a request of this id.
    pub(super) fn note(&mut self, request: &str, account: &str, verdict: Verdict) {
        self.count += 1;
        if self.count <= REFUSALS_NAMED {
            let between = if self.named.is_empty() { "" } else { "; " };
            // Writing to a text does not fail.
            let _ = write!(self.named, "{between}{account}: {}", Reason(&verdict));
        }
        match verdict {
            Verdict::Denied { denial, .. } => {
                self.may_wait(denial.retry_after_ms);
                if denial.limit.is_some() {
                    self.limit = Some(denial);
                }
            }
            Verdict::Failed { plugin, reason } => drop(failed(request, &plugin, &reason)),
            Verdict::Busy | Verdict::Allowed(_) => {}
        }
    }

    /// Takes note of the milliseconds until an account may serve again.
    pub(super) fn may_wait(&mut self, ms: Option<u64>) {
        self.retry_after_ms = [self.retry_after_ms, ms].into_iter().flatten().min();
    }

    /// Milliseconds until the first of the accounts may serve again, as far as known.
    pub(super) fn retry_after_ms(&self) -> Option<u64> {
        self.retry_after_ms
    }

    /// What the client is told: a limit if one stands in the way, for that goes away by itself. Nothing is said about
    /// single accounts.
    pub(super) fn problem(&self) -> Problem {
        let problem = match &self.limit {
            Some(denial) => {
                Problem::new(limit_class(denial), "every upstream account for this model is at its limit")
            }
            None => Problem::new(Class::Unavailable, "no upstream account for this model is available"),
        };
        problem.after(self.retry_after_ms)
    }

    /// What the log is told beyond that; none: nothing was refused.
    pub(super) fn detail(&self, problem: &Problem) -> Option<String> {
        let more = self.count.saturating_sub(REFUSALS_NAMED);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        (self.count > 0).then(|| format!("{}: {}{more}", problem.message, self.named))
    }
}

/// A refusal as the log has it.
struct Reason<'a>(&'a Verdict);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Verdict::Denied { denial, .. } => match (denial.current, denial.limit) {
                (Some(current), Some(limit)) => write!(f, "{} {current} of {limit}", denial.limit_name),
                _ => write!(f, "{} ({})", denial.limit_name, denial.reason),
            },
            Verdict::Failed { plugin, .. } => write!(f, "plugin {plugin} failed"),
            Verdict::Busy => f.write_str("busy"),
            Verdict::Allowed(_) => f.write_str("allowed"),
        }
    }
}

/// The refusal of a client.
pub(super) fn denied(denial: &Denial) -> Problem {
    let class = match (denial.limit, denial.retry_after_ms) {
        (None, None) => Class::Forbidden,
        _ => limit_class(denial),
    };
    let message = match (denial.current, denial.limit) {
        (Some(current), Some(limit)) => {
            format!("{} ({}: {current} of {limit})", denial.reason, denial.limit_name)
        }
        _ => denial.reason.clone(),
    };
    Problem::new(class, message).after(denial.retry_after_ms)
}

fn limit_class(denial: &Denial) -> Class {
    match denial.limit_name.as_str() {
        "tpm" => Class::TokenLimit,
        name if name.starts_with("tokens-") || name.starts_with("cost-") => Class::Budget,
        _ => Class::RequestLimit,
    }
}

/// A policy failed for the request of this id.
pub(super) fn failed(request: &str, plugin: &str, reason: &str) -> Problem {
    tracing::warn!(request_id = request, plugin, reason, "admission failed");
    Problem::new(Class::Unavailable, "a policy of this gateway is failing").after(Some(1_000))
}

pub(super) fn busy() -> Problem {
    Problem::new(Class::Unavailable, "too many requests are under way").after(Some(1_000))
}

//! What a client is told when policies refuse it, or every account.

use super::error::{Class, Problem};
use crate::plugin::{Verdict, admission::Denial};

/// Why accounts could not be asked.
#[derive(Default)]
pub(super) struct Refusals {
    limit: Option<Denial>,
    retry_after_ms: Option<u64>,
}

impl Refusals {
    /// Takes note of a verdict about an account that is no allow.
    pub(super) fn note(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Denied { denial, .. } => {
                self.retry_after_ms =
                    [self.retry_after_ms, denial.retry_after_ms].into_iter().flatten().min();
                if denial.limit.is_some() {
                    self.limit = Some(denial);
                }
            }
            Verdict::Failed { plugin, reason } => drop(failed(&plugin, &reason)),
            Verdict::Busy | Verdict::Allowed(_) => {}
        }
    }

    /// What the client is told: a limit if one stands in the way, for that goes away by itself. Nothing is said about
    /// single accounts.
    pub(super) fn problem(self) -> Problem {
        let problem = match &self.limit {
            Some(denial) => {
                Problem::new(limit_class(denial), "every upstream account for this model is at its limit")
            }
            None => Problem::new(Class::Unavailable, "no upstream account for this model is available"),
        };
        problem.after(self.retry_after_ms)
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

pub(super) fn failed(plugin: &str, reason: &str) -> Problem {
    tracing::warn!(plugin, reason, "admission failed");
    Problem::new(Class::Unavailable, "a policy of this gateway is failing").after(Some(1_000))
}

pub(super) fn busy() -> Problem {
    Problem::new(Class::Unavailable, "too many requests are under way").after(Some(1_000))
}

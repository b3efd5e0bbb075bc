//! One pass of a request's subjects through the chain.

use std::sync::Arc;

use super::active::{ActivePlugin, Admitted};
use super::lease::{Common, Lease, Open};
use super::{CallError, Shared, Verdict, limits};
use crate::plugin::admission::{Decision, Denial, Request, Subject, Ticket};
use crate::plugin::settle::Allow;
use crate::plugin::{Limit, OnError, cut};

/// The subjects that are asked about, each with its place in the settle queue.
pub(super) struct Phase {
    subjects: Vec<Asked>,
}

struct Asked {
    subject: Arc<Subject>,
    open: Open,
    /// Set once a plugin refuses.
    refusal: Option<Refusal>,
}

enum Refusal {
    Denied { plugin: Arc<str>, denial: Denial },
    Failed { plugin: Arc<str>, reason: String },
    Busy,
}

/// Who answered.
#[derive(Clone, Copy)]
struct By<'a> {
    plugin: &'a Arc<ActivePlugin>,
    request: &'a Request,
    generation: u64,
    on_error: OnError,
}

impl Phase {
    /// Takes a place in the settle queue for each subject; none when it is full or closed.
    pub(super) fn begin(shared: &Arc<Shared>, request: &Request, subjects: &[Arc<Subject>]) -> Option<Phase> {
        if subjects.len() > limits::SUBJECTS || shared.closing.is_cancelled() {
            return None;
        }
        let common =
            Common { request_id: Arc::from(request.id.as_str()), model: Arc::from(request.model.as_str()) };
        let ask = |subject: &Arc<Subject>| {
            let place = shared.queue.clone().try_reserve_owned().ok()?;
            let open = Open::new(place, shared.clone(), common.clone(), request.now_ms);
            Some(Asked { subject: subject.clone(), open, refusal: None })
        };
        Some(Phase { subjects: subjects.iter().map(ask).collect::<Option<_>>()? })
    }

    pub(super) async fn run(
        mut self,
        chain: Arc<Vec<Arc<ActivePlugin>>>,
        request: Arc<Request>,
        subjects: Arc<[Arc<Subject>]>,
    ) -> Vec<Verdict> {
        for plugin in chain.iter() {
            let allowed = self.subjects.iter().filter(|asked| asked.refusal.is_none());
            let still: Arc<[Arc<Subject>]> = match allowed.clone().count() {
                0 => break,
                count if count == subjects.len() => subjects.clone(),
                _ => allowed.map(|asked| asked.subject.clone()).collect(),
            };
            let admitted = plugin.admit(&request, &still).await;
            let asked = self.subjects.iter_mut().filter(|asked| asked.refusal.is_none());
            apply(plugin, &request, admitted, still.len(), asked);
        }
        self.subjects.into_iter().map(Asked::verdict).collect()
    }
}

fn apply<'a>(
    plugin: &Arc<ActivePlugin>,
    request: &Request,
    admitted: Admitted,
    count: usize,
    asked: impl Iterator<Item = &'a mut Asked>,
) {
    let Admitted { decisions, on_error, generation } = admitted;
    let by = By { plugin, request, generation, on_error };
    match decisions {
        Ok(decisions) if decisions.len() == count => {
            asked.zip(decisions).for_each(|(asked, decision)| asked.decide(by, decision));
        }
        Ok(decisions) => {
            let reason = format!("gave {} decisions for {count} subjects", decisions.len());
            tracing::warn!(request_id = request.id, plugin = &**plugin.name(), reason, "a plugin failed");
            asked.for_each(|asked| asked.fail(by, &reason));
        }
        // Its new version has dropped the hook, and the chain is about to be told.
        Err(CallError::NoHook(_)) => {}
        Err(CallError::Busy) if on_error == OnError::Deny => {
            asked.for_each(|asked| asked.refusal = Some(Refusal::Busy));
        }
        Err(error) => {
            let reason = error.to_string();
            asked.for_each(|asked| asked.fail(by, &reason));
        }
    }
}

impl Asked {
    fn decide(&mut self, by: By<'_>, decision: Decision) {
        let By { plugin, request, on_error, .. } = by;
        match decision {
            Decision::Allow(Some(ticket)) if ticket.len() > limits::TICKET_BYTES => {
                let most = limits::TICKET_BYTES;
                let reason = format!("gave a ticket of {} bytes, more than {most}", ticket.len());
                plugin.current().hit(Limit::Ticket);
                tracing::warn!(request_id = request.id, plugin = &**plugin.name(), reason, "a plugin failed");
                // It has allowed, so it is told of an end that went wrong, though without its ticket.
                self.allow(by, None);
                if on_error == OnError::Deny {
                    self.fail(by, &reason);
                }
            }
            Decision::Allow(ticket) => self.allow(by, ticket),
            Decision::Deny(denial) => {
                plugin.denials.increment(1);
                let denial = Denial {
                    limit_name: cut(denial.limit_name, limits::TEXT_BYTES),
                    reason: cut(denial.reason, limits::TEXT_BYTES),
                    ..denial
                };
                self.refusal = Some(Refusal::Denied { plugin: plugin.name().clone(), denial });
            }
        }
    }

    fn allow(&mut self, By { plugin, generation, .. }: By<'_>, ticket: Option<Ticket>) {
        self.open.push(Allow { plugin: plugin.clone(), generation, ticket });
    }

    /// With `on-error = "allow"` it may have allowed, so it is told of an end that went wrong.
    fn fail(&mut self, by: By<'_>, reason: &str) {
        match by.on_error {
            OnError::Allow => self.allow(by, None),
            OnError::Deny => {
                let (plugin, reason) = (by.plugin.name().clone(), reason.to_owned());
                self.refusal = Some(Refusal::Failed { plugin, reason });
            }
        }
    }

    fn verdict(self) -> Verdict {
        let Asked { subject, open, refusal } = self;
        let Some(refusal) = refusal else { return Verdict::Allowed(Lease::open(subject, open)) };
        open.never_sent(&subject);
        match refusal {
            Refusal::Denied { plugin, denial } => Verdict::Denied { plugin, denial },
            Refusal::Failed { plugin, reason } => Verdict::Failed { plugin, reason },
            Refusal::Busy => Verdict::Busy,
        }
    }
}

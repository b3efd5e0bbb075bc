//! Which plugin answers which paths.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::answer::Answer;
use super::incoming::{Fault, Incoming};
use crate::plugin::limits::{HTTP_CALLS, HTTP_HEAD, HTTP_SILENCE, HTTP_TOTAL};
use crate::plugin::{ActivePlugin, CallError, Limit};

/// The routes under which plugins answer; they follow every push. A clone is the same set.
#[derive(Clone)]
pub struct Mounts {
    mounted: Arc<ArcSwap<Vec<Mount>>>,
    room: Arc<Semaphore>,
    patience: Patience,
}

/// How long the host waits for a guest and its client.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// To the head of an answer.
    pub(super) head: Duration,
    /// To the last byte of it.
    pub(super) total: Duration,
    /// For the next bytes of a request's body.
    pub(super) silence: Duration,
}

/// A plugin under its route. Not to be kept longer than a request.
#[derive(Clone)]
pub struct Mount {
    route: Arc<str>,
    public: bool,
    plugin: Arc<ActivePlugin>,
    room: Arc<Semaphore>,
    patience: Patience,
}

/// Why a plugin brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Too many requests are with it, or with all plugins together.
    #[error("the plugin has as many requests as it may have")]
    Busy,
    /// It trapped, or ran into a limit.
    #[error("the plugin failed: it {0}")]
    Failed(CallError),
    /// It used up its time.
    #[error("the plugin did not answer in time")]
    Late,
    /// It ended without an answer.
    #[error("the plugin ended without an answer")]
    Nothing,
    /// It answered with one of the standard's errors.
    #[error("the plugin answered with an error: {0}")]
    Refused(String),
    /// The client sent more than a plugin takes.
    #[error("the request's body has more bytes than a plugin takes")]
    TooLarge,
    /// The client stopped sending.
    #[error("the request's body did not come in time")]
    Slow,
}

impl Default for Mounts {
    fn default() -> Mounts {
        Mounts::with(Patience { head: HTTP_HEAD, total: HTTP_TOTAL, silence: HTTP_SILENCE })
    }
}

impl Mounts {
    pub(super) fn with(patience: Patience) -> Mounts {
        Mounts { mounted: Arc::default(), room: Arc::new(Semaphore::new(HTTP_CALLS)), patience }
    }

    /// Mounts those of the plugins that have a route. Of two with the same one it is the first.
    pub(crate) fn install<'a>(&self, plugins: impl Iterator<Item = &'a Arc<ActivePlugin>>) {
        let mount = |plugin: &Arc<ActivePlugin>| {
            let generation = plugin.current();
            let http = generation.manifest().http.as_ref()?;
            let (route, plugin, room) = (http.route.as_str().into(), plugin.clone(), self.room.clone());
            Some(Mount { route, public: http.public, plugin, room, patience: self.patience })
        };
        let mut mounted: Vec<Mount> = plugins.filter_map(mount).collect();
        // A route within another comes first.
        mounted.sort_by_key(|mount| std::cmp::Reverse(mount.route.len()));
        self.mounted.store(Arc::new(mounted));
    }

    /// The plugin that answers a path: of those whose routes it is under, the one with the longest.
    pub fn of(&self, path: &str) -> Option<Mount> {
        let mounted = self.mounted.load();
        mounted.iter().find(|mount| mount.has(path)).cloned()
    }
}

impl Mount {
    /// The plugin's name.
    pub fn plugin(&self) -> &str {
        self.plugin.name()
    }

    /// Whether anybody may ask, without a key.
    pub fn is_public(&self) -> bool {
        self.public
    }

    /// Has the plugin answer. What it says after the head of its answer comes as the answer's body.
    ///
    /// # Errors
    ///
    /// See [`Unanswered`]; the request may have been seen by the plugin nevertheless.
    pub async fn answer<B>(&self, request: Request<B>) -> Result<Response<Answer>, Unanswered>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let place = self.room.clone().try_acquire_owned().map_err(|_| Unanswered::Busy)?;
        let generation = self.plugin.current();
        let tally = generation.tally().clone();
        let Patience { head: head_wait, total, silence } = self.patience;
        let end = Box::pin(sleep(total));
        let (at_fault, fault) = oneshot::channel();
        let (sender, head) = oneshot::channel();
        let request = request.map(|body| Incoming::new(body, silence, at_fault).boxed_unsync());
        let running = AbortOnDropHandle::new(tokio::spawn(async move {
            let _place = place;
            generation.handle(request, sender).await
        }));
        let late = sleep(head_wait);
        tokio::pin!(head, late);
        let mut fault = Some(fault);
        let answered = loop {
            tokio::select! {
                biased;
                answered = &mut head => break answered,
                () = &mut late => {
                    tally.hit(Limit::Waiting);
                    return Err(Unanswered::Late);
                }
                wrong = heard(&mut fault) => match wrong {
                    Some(Fault::TooLarge) => return Err(Unanswered::TooLarge),
                    Some(Fault::Slow) => return Err(Unanswered::Slow),
                    // The guest has done with the body.
                    None => fault = None,
                },
            }
        };
        match answered {
            Ok(Ok(response)) => Ok(response.map(|body| Answer::new(body, running, fault, end))),
            Ok(Err(code)) => Err(Unanswered::Refused(format!("{code:?}"))),
            Err(_) => Err(match running.await {
                Ok(Err(CallError::Busy)) => Unanswered::Busy,
                Ok(Err(error)) => Unanswered::Failed(error),
                Ok(Ok(())) | Err(_) => Unanswered::Nothing,
            }),
        }
    }

    #[cfg(test)]
    pub(super) fn traps(&self) -> u64 {
        self.plugin.current().counters().traps
    }

    fn has(&self, path: &str) -> bool {
        path.starts_with(&*self.route) || self.route.strip_suffix('/') == Some(path)
    }
}

/// What is wrong with the request's body, once that is known; none: nothing can be any more.
async fn heard(fault: &mut Option<oneshot::Receiver<Fault>>) -> Option<Fault> {
    match fault {
        Some(fault) => fault.await.ok(),
        None => std::future::pending().await,
    }
}

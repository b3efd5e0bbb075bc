//! Which plugin answers which paths.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::answer::Answer;
use super::incoming::{Fault, Incoming};
use super::unanswered::Unanswered;
use crate::plugin::limits::{HTTP_CALLS, HTTP_HEAD, HTTP_SILENCE, HTTP_TOTAL};
use crate::plugin::{ActivePlugin, CallError, Generation, Limit};

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

/// The version of a plugin that serves under its route. Not to be kept longer than a request.
#[derive(Clone)]
pub struct Mount {
    route: Arc<str>,
    public: bool,
    generation: Arc<Generation>,
    room: Arc<Semaphore>,
    patience: Patience,
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

    /// Mounts those of the plugins that have a route. Of two with the same one, as a rollback may bring about, it is the one
    /// that has it already.
    pub(crate) fn install<'a>(&self, plugins: impl Iterator<Item = &'a Arc<ActivePlugin>>) {
        let mount = |plugin: &Arc<ActivePlugin>| {
            let generation = plugin.current();
            let http = generation.manifest().http.as_ref()?;
            let (route, public, room) = (http.route.as_str().into(), http.public, self.room.clone());
            Some(Mount { route, public, generation, room, patience: self.patience })
        };
        let before = self.mounted.load();
        let is_new = |mount: &Mount| !before.iter().any(|other| other.is_same(mount));
        let mut mounted: Vec<Mount> = plugins.filter_map(mount).collect();
        // A route within another comes first.
        mounted.sort_by_cached_key(|mount| (Reverse(mount.route.len()), mount.route.clone(), is_new(mount)));
        mounted.dedup_by(|mount, holder| {
            let (plugin, route) = (mount.plugin(), &*mount.route);
            if mount.route == holder.route {
                tracing::error!(plugin, route, by = holder.plugin(), "the route is another plugin's");
            }
            mount.route == holder.route
        });
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
        self.generation.name()
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
        let generation = self.generation.clone();
        let unread = request.method() == Method::HEAD;
        let Patience { head: head_wait, total, silence } = self.patience;
        let (at_fault, fault) = oneshot::channel();
        let (sender, head) = oneshot::channel();
        let request = request.map(|body| Incoming::new(body, silence, at_fault).boxed_unsync());
        let mut running = AbortOnDropHandle::new(tokio::spawn(async move {
            let _place = place;
            // A client that does not read can make it wait as long as it likes: no failure of the guest's.
            match timeout(total, generation.handle(request, sender)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(CallError::Busy)) => Err(Unanswered::Busy),
                Ok(Err(error)) => Err(Unanswered::Failed(error)),
                Err(_) => Err(Unanswered::Late),
            }
        }));
        let mut fault = Some(fault);
        let answered = {
            let late = sleep(head_wait);
            let answered = async {
                match head.await {
                    Ok(answered) => Ok(answered),
                    // It has let go of the place for its answer, at its end or before.
                    Err(_) => Err((&mut running).await),
                }
            };
            tokio::pin!(answered, late);
            loop {
                tokio::select! {
                    biased;
                    answered = &mut answered => break answered,
                    () = &mut late => {
                        self.generation.hit(Limit::Waiting);
                        return Err(Unanswered::Late);
                    }
                    wrong = heard(&mut fault) => match wrong {
                        Some(wrong) => return Err(wrong.into()),
                        // The guest has done with the body.
                        None => fault = None,
                    },
                }
            }
        };
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(code)) => return Err(Unanswered::refused(code)),
            Err(ended) => return Err(ended.map_or(Unanswered::Nothing, without_answer)),
        };
        let (head, body) = response.into_parts();
        let declared = length(&head.headers);
        let mut answer = Answer::new(body, declared, running, fault);
        // The connection lets go of a body that it has no use for, and the guest would end in the middle of its work.
        if unread || has_no_body(head.status) || declared == Some(0) {
            answer.finish().await?;
        }
        Ok(Response::from_parts(head, answer))
    }

    #[cfg(test)]
    pub(super) fn traps(&self) -> u64 {
        self.generation.counters().traps
    }

    /// Whether it is the same plugin under the same route, in whatever version.
    fn is_same(&self, other: &Mount) -> bool {
        (self.plugin(), &self.route) == (other.plugin(), &other.route)
    }

    fn has(&self, path: &str) -> bool {
        path.starts_with(&*self.route) || self.route.strip_suffix('/') == Some(path)
    }
}

/// What the end of a call means that has brought no answer.
fn without_answer(ended: Result<(), Unanswered>) -> Unanswered {
    ended.err().unwrap_or(Unanswered::Nothing)
}

/// The length of the body, where the head tells it.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What is wrong with the request's body, once that is known; none: nothing can be any more.
async fn heard(fault: &mut Option<oneshot::Receiver<Fault>>) -> Option<Fault> {
    match fault {
        Some(fault) => fault.await.ok(),
        None => std::future::pending().await,
    }
}

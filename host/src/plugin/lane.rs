//! Where guests run: a policy's call on the worker of its request, one that takes long on threads of low priority.
//!
//! A worker that ran a guest for a whole tick kept the requests behind it waiting, and with a few such guests at once each
//! of them for tens of milliseconds. So a call that has used a tick's worth of processor time moves to the slow lane, and
//! the next calls of that hook start there, until they prove quick again.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::sync::PollSemaphore;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::UpdateDeadline;

use super::limits;

/// The slow lane's threads. Calls that are on them when this is dropped are given up.
pub(crate) struct Lane(Option<Runtime>);

/// How long the calls of one hook take, as far as that decides where the next one starts.
#[derive(Default)]
pub(crate) struct Pace {
    /// Calls that start in the lane yet.
    suspect: AtomicU32,
}

/// The turns of one generation's calls in the lane.
pub(crate) struct Turns(Arc<Semaphore>);

/// Where a call starts.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Where it is awaited, as long as it is quick.
    Here(&'a Pace),
    /// Where it is awaited, to its end, giving way at each tick.
    Stay,
    /// In the lane.
    Lane,
}

thread_local! {
    static WATCH: Cell<Watch> = const { Cell::new(Watch::Off) };
}

/// What is known of the guest that this thread runs.
#[derive(Clone, Copy)]
enum Watch {
    /// The thread is one of the lane: its guests are slow, and give way at each tick.
    Lane,
    /// It may stay, and gives way at each tick.
    Off,
    /// No tick has passed.
    New,
    /// A tick has passed when the thread had used so much processor time.
    Since(Duration),
    /// It is to leave the thread.
    Slow,
}

/// What a tick says of a guest.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Seen {
    /// Nothing: it may end right after the call's start.
    Once,
    /// It is slow.
    Slow,
    /// It may take its time.
    Steady,
}

/// What a guest does when a tick has passed, and what that says of it.
pub(crate) fn at_tick() -> (UpdateDeadline, Seen) {
    match WATCH.get() {
        Watch::Lane => (UpdateDeadline::Yield(1), Seen::Slow),
        Watch::Off => (UpdateDeadline::Yield(1), Seen::Steady),
        // A tick may end right after the call's start, or while the thread waits for a processor.
        Watch::New => {
            WATCH.set(Watch::Since(processor_time()));
            (UpdateDeadline::Continue(1), Seen::Once)
        }
        Watch::Since(then) if processor_time().saturating_sub(then) < limits::QUICK_CALL => {
            (UpdateDeadline::Continue(1), Seen::Slow)
        }
        Watch::Since(_) | Watch::Slow => {
            WATCH.set(Watch::Slow);
            (UpdateDeadline::Yield(1), Seen::Slow)
        }
    }
}

/// Of this thread.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl Lane {
    pub(crate) fn start() -> std::io::Result<Lane> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(limits::LANE_THREADS)
            .thread_name("slow-guests")
            .enable_all()
            .on_thread_start(|| {
                WATCH.set(Watch::Lane);
                // Refused it is only less kind to the others.
                let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
                let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
                if let Err(error) = set {
                    tracing::warn!(?error, "slow guests have the priority of everybody else");
                }
            })
            .build()?;
        Ok(Lane(Some(runtime)))
    }

    /// Runs a call to its end; the error is that it was given up, or has panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        start: Start<'_>,
        turns: &Turns,
        mut call: BoxFuture<'static, T>,
    ) -> Result<T, JoinError> {
        match start {
            Start::Stay => return Ok(call.await),
            Start::Lane => return self.go_on(turns, call).await,
            Start::Here(pace) if pace.starts_in_lane() => return self.go_on(turns, call).await,
            Start::Here(pace) => match quick(&mut call).await {
                Some(output) => return Ok(output),
                None => pace.suspect.store(limits::SUSPECT_CALLS, Ordering::Relaxed),
            },
        }
        self.go_on(turns, call).await
    }

    async fn go_on<T: Send + 'static>(
        &self,
        turns: &Turns,
        call: BoxFuture<'static, T>,
    ) -> Result<T, JoinError> {
        let call = InTurns { call, turns: PollSemaphore::new(turns.0.clone()) };
        match &self.0 {
            Some(runtime) => AbortOnDropHandle::new(runtime.spawn(call)).await,
            None => Ok(call.await),
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Pace {
    fn starts_in_lane(&self) -> bool {
        self.suspect.load(Ordering::Relaxed) > 0
            && self
                .suspect
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
    }

    /// Takes note of a call that ended, after so many ticks and with so many bytes that the host moved for it: while it
    /// does so no tick is seen.
    pub(crate) fn ran(&self, ticks: u64, bytes: usize) {
        if ticks > limits::QUICK_TICKS || bytes > limits::QUICK_BYTES {
            self.suspect.store(limits::SUSPECT_CALLS, Ordering::Relaxed);
        }
    }
}

impl Default for Turns {
    fn default() -> Turns {
        Turns(Arc::new(Semaphore::new(limits::LANE_TURNS)))
    }
}

/// Polls a call as long as it is quick; none: it is to go on elsewhere.
async fn quick<T>(call: &mut BoxFuture<'static, T>) -> Option<T> {
    std::future::poll_fn(|context| {
        WATCH.set(Watch::New);
        let polled = call.as_mut().poll(context);
        let slow = matches!(WATCH.replace(Watch::Off), Watch::Slow);
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if slow => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A call in the lane, which takes turns of a tick with the others of its generation: however many there are, they have
/// one part of the lane together.
struct InTurns<T> {
    call: BoxFuture<'static, T>,
    turns: PollSemaphore,
}

impl<T> Future for InTurns<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let _turn = ready!(self.turns.poll_acquire(context));
        self.call.as_mut().poll(context)
    }
}

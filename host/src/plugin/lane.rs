//! Where guests run: a policy's call on the worker of its request, one that takes long on threads of low priority.
//!
//! A worker that ran a guest for a whole tick kept the requests behind it waiting, and with a few such guests at once each
//! of them for tens of milliseconds. So a call that has used a tick's worth of processor time moves to the slow lane, and
//! the next calls of that hook start there, until they prove quick again.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::sync::PollSemaphore;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::UpdateDeadline;

use super::limits;

/// The slow lane's threads. Calls that are on them when this is dropped are given up.
pub(crate) struct Lane {
    runtime: Option<Runtime>,
    /// Turns that calls had in it: a lane in which this stays the same stands still.
    turns_had: Arc<AtomicU64>,
    patience: Duration,
}

/// A call that ended.
pub(crate) struct Ended<T> {
    /// What it answered.
    pub(crate) output: T,
    /// Processor time that it used in the lane.
    pub(crate) in_lane: Duration,
}

type Call<T> = BoxFuture<'static, T>;

/// A call in the lane between its turns, from where it may be taken back.
type Place<T> = Arc<Mutex<Option<Call<T>>>>;

/// A call in the lane, as the one who waits for it has it.
type InLane<T> = AbortOnDropHandle<Ended<T>>;

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
    /// With threads of the idle class.
    pub(crate) fn start() -> std::io::Result<Lane> {
        Lane::with_threads(true)
    }

    /// Idle: its threads run when a processor has nothing else to do. Else they are like all others.
    pub(crate) fn with_threads(idle: bool) -> std::io::Result<Lane> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(limits::LANE_THREADS)
            .thread_name("slow-guests")
            .enable_all()
            .on_thread_start(move || {
                WATCH.set(Watch::Lane);
                if !idle {
                    return;
                }
                // Refused it is only less kind to the others.
                let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
                let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
                if let Err(error) = set {
                    tracing::warn!(?error, "slow guests have the priority of everybody else");
                }
            })
            .build()?;
        Ok(Lane { runtime: Some(runtime), turns_had: Arc::default(), patience: limits::LANE_PATIENCE })
    }

    /// Runs a call to its end; the error is that it was given up, or has panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        start: Start<'_>,
        turns: &Turns,
        mut call: Call<T>,
    ) -> Result<Ended<T>, JoinError> {
        let pace = match start {
            Start::Stay => return Ok(Ended::elsewhere(call.await)),
            Start::Lane => return self.enter(turns, &place(call)).await,
            Start::Here(pace) => pace,
        };
        if pace.starts_in_lane() {
            match self.wait(turns, call).await {
                Ok(ended) => return ended,
                Err(taken_back) => call = taken_back,
            }
        }
        match quick(&mut call).await {
            Some(output) => Ok(Ended::elsewhere(output)),
            None => {
                pace.suspect.store(limits::SUSPECT_CALLS, Ordering::Relaxed);
                self.enter(turns, &place(call)).await
            }
        }
    }

    /// Brings a call into the lane.
    fn enter<T: Send + 'static>(&self, turns: &Turns, place: &Place<T>) -> InLane<T> {
        let call = InTurns {
            place: place.clone(),
            turns: PollSemaphore::new(turns.0.clone()),
            turns_had: self.turns_had.clone(),
            used: Duration::ZERO,
        };
        let runtime = self.runtime.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone());
        AbortOnDropHandle::new(runtime.spawn(call))
    }

    /// Has a call run in the lane; the error is the call, taken back since the lane stands still.
    async fn wait<T: Send + 'static>(
        &self,
        turns: &Turns,
        call: Call<T>,
    ) -> Result<Result<Ended<T>, JoinError>, Call<T>> {
        let place = place(call);
        let mut in_lane = self.enter(turns, &place);
        loop {
            let before = self.turns_had.load(Ordering::Relaxed);
            if let Ok(ended) = timeout(self.patience, &mut in_lane).await {
                return Ok(ended);
            }
            // One whose turn it is cannot be had: its thread has it.
            let taken_back = (self.turns_had.load(Ordering::Relaxed) == before)
                .then(|| place.try_lock().ok().and_then(|mut place| place.take()))
                .flatten();
            if let Some(call) = taken_back {
                return Err(call);
            }
        }
    }
}

impl<T> Ended<T> {
    fn elsewhere(output: T) -> Ended<T> {
        Ended { output, in_lane: Duration::ZERO }
    }
}

fn place<T>(call: Call<T>) -> Place<T> {
    Arc::new(Mutex::new(Some(call)))
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
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

    /// Takes note of a call that ended, after so much processor time in the lane and with so many bytes that the host moved
    /// for it: while it does so no tick is seen.
    pub(crate) fn ran(&self, in_lane: Duration, bytes: usize) {
        if in_lane > limits::QUICK_CALL || bytes > limits::QUICK_BYTES {
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
    place: Place<T>,
    turns: PollSemaphore,
    turns_had: Arc<AtomicU64>,
    used: Duration,
}

impl<T> Future for InTurns<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended<T>> {
        let _turn = ready!(self.turns.poll_acquire(context));
        self.turns_had.fetch_add(1, Ordering::Relaxed);
        let place = self.place.clone();
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever took it back gives this one up.
        let Some(call) = place.as_mut() else { return Poll::Pending };
        let before = processor_time();
        let polled = call.as_mut().poll(context);
        self.used += processor_time().saturating_sub(before);
        if polled.is_ready() {
            // One that has ended is nobody's to take back: its output is on the way.
            *place = None;
        }
        polled.map(|output| Ended { output, in_lane: self.used })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn suspect() -> Pace {
        let pace = Pace::default();
        pace.ran(limits::QUICK_CALL * 2, 0);
        pace
    }

    fn thread_of_the_call() -> Call<Option<String>> {
        Box::pin(async { std::thread::current().name().map(str::to_owned) })
    }

    #[tokio::test]
    async fn a_suspect_call_runs_in_the_lane() {
        let (mut lane, turns, pace) = (Lane::start().unwrap(), Turns::default(), suspect());
        // The machine may be busy.
        lane.patience = Duration::from_secs(60);
        let ended = lane.run(Start::Here(&pace), &turns, thread_of_the_call()).await.unwrap();
        assert_eq!(ended.output.as_deref(), Some("slow-guests"));
    }

    #[tokio::test]
    async fn a_call_that_has_ended_in_the_lane_cannot_be_taken_back() {
        let (lane, turns) = (Lane::start().unwrap(), Turns::default());
        let place = place(thread_of_the_call());
        let ended = lane.enter(&turns, &place).await.unwrap();
        assert_eq!(ended.output.as_deref(), Some("slow-guests"));
        assert!(place.lock().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_suspect_call_is_taken_back_from_a_lane_that_stands_still() {
        let (lane, turns, pace) = (Lane::start().unwrap(), Turns::default(), suspect());
        let held: Vec<_> = (0..limits::LANE_THREADS)
            .map(|_| {
                let (there, is_there) = mpsc::channel();
                let (go, gone) = mpsc::channel::<()>();
                lane.runtime.as_ref().unwrap().spawn(async move {
                    there.send(()).unwrap();
                    gone.recv().unwrap_err();
                });
                is_there.recv().unwrap();
                go
            })
            .collect();
        let ended = lane.run(Start::Here(&pace), &turns, thread_of_the_call()).await.unwrap();
        assert_ne!(ended.output.as_deref(), Some("slow-guests"));
        drop(held);
    }
}

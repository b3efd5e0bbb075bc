//! A future that ends even if nobody waits for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Polls a future where it is awaited, which is cheaper than a task of its own, and makes it one when it is dropped
/// before its end: a reservation made in a call that is cut off would be lost.
pub(super) struct Finishing<F>(Option<Pin<Box<F>>>)
where
    F: Future<Output: Send> + Send + 'static;

impl<F: Future<Output: Send> + Send + 'static> Finishing<F> {
    pub(super) fn new(future: F) -> Finishing<F> {
        Finishing(Some(Box::pin(future)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Finishing<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let output = std::task::ready!(future.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Finishing<F> {
    fn drop(&mut self) {
        if let (Some(future), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_in_the_middle_is_finished_all_the_same() {
        let (go, gone) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let mut work = Box::pin(Finishing::new(async move {
            gone.await.unwrap();
            done.send(7).unwrap();
        }));
        assert!(futures_util::poll!(work.as_mut()).is_pending());
        drop(work);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn what_is_awaited_to_its_end_makes_no_task() {
        let before = Handle::current().metrics().num_alive_tasks();
        assert_eq!(Finishing::new(async { 7 }).await, 7);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
    }
}

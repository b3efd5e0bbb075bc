//! Bodies of answers that are sent piece by piece.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A body that a task of its own sends: what a client that takes nothing holds up ends in time, though nobody asks its
/// answer for more.
///
/// It ends when one piece waits for the client for longer than `stall`, or all of it takes longer than `most`. The answer
/// must name its length in its head: then it falls short of it, and is cut.
pub(crate) fn sent(
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    stall: Duration,
    most: Duration,
) -> Body {
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let all = async {
            let mut pieces = pin!(pieces);
            while let Some(piece) = pieces.next().await {
                // Either the client has gone, or it takes nothing.
                if !matches!(timeout(stall, sender.send(piece)).await, Ok(Ok(()))) {
                    return;
                }
            }
        };
        // Too late or not, nobody is there to be told.
        let _ = timeout(most, all).await;
    });
    Body::from_stream(stream::poll_fn(move |context| receiver.poll_recv(context)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(20);

    /// Endless pieces that hold the one place.
    fn pieces(places: &Arc<Semaphore>) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        let place = places.clone().try_acquire_owned().unwrap();
        stream::repeat_with(move || {
            assert_eq!(place.num_permits(), 1);
            Ok(Bytes::from_static(b"piece"))
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_takes_and_what_takes_too_long_lets_go_of_all_it_holds() {
        let places = Arc::new(Semaphore::new(1));
        for (stall, most) in [(SHORT, LONG), (LONG, SHORT)] {
            let mut body = sent(pieces(&places), stall, most);
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "piece");
            // Held by the task and not by the body, which stays.
            places.acquire().await.unwrap().forget();
            places.add_permits(1);
            drop(body);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_pieces_come_in_order() {
        let pieces = stream::iter(["a", "b", "c"].map(|piece| Ok(Bytes::from(piece))));
        let body = sent(pieces, LONG, LONG).collect().await.unwrap().to_bytes();
        assert_eq!(body, "abc");
    }
}

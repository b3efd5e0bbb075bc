//! Queues.

use tollgate_store::{Queue, QueueError};

use crate::support::Place;

async fn all(queue: &Queue) -> Vec<(u64, Vec<u8>)> {
    let mut events = Vec::new();
    let mut after = 0;
    loop {
        let more = queue.read(after, 7, 100).await.unwrap();
        let Some((last, _)) = more.last() else { return events };
        after = *last;
        assert!(more.len() <= 7);
        events.extend(more);
    }
}

#[tokio::test]
async fn events_come_back_in_order_over_restarts() {
    let place = Place::new();
    let mut expected = Vec::new();
    for round in 0..4u8 {
        let store = place.open();
        let queue = store.queue("q", 1 << 20).unwrap();
        let other = store.queue("other", 1 << 20).unwrap();
        assert_eq!(all(&queue).await, expected);
        for event in 0..20 {
            other.append(vec![99]).unwrap();
            expected.push((queue.append(vec![round, event]).unwrap(), vec![round, event]));
        }
        store.flush().await.unwrap();
        assert_eq!(queue.watermark(), expected.last().unwrap().0);
        assert_eq!(all(&queue).await, expected);
        let removed: Vec<_> = expected.drain(..13).collect();
        queue.remove_through(removed.last().unwrap().0);
        assert_eq!(all(&queue).await, expected);
        store.close().await.unwrap();
    }
    assert!(expected.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[tokio::test]
async fn only_what_is_on_disk_is_read() {
    let place = Place::new();
    let store = place.open();
    let queue = store.queue("q", 1 << 20).unwrap();
    assert_eq!(queue.watermark(), 0);
    let first = queue.append(b"1".to_vec()).unwrap();
    assert!(first > 0);
    queue.wait(0).await;
    assert_eq!(queue.watermark(), first);
    let second = queue.append(b"2".to_vec()).unwrap();
    assert!(second > first);
    queue.wait(first).await;
    assert_eq!(queue.read(first, 10, 10).await.unwrap(), [(second, b"2".to_vec())]);
    assert_eq!(queue.read(second, 10, 10).await.unwrap(), []);
    assert_eq!(queue.read(0, 0, 10).await.unwrap(), []);
    queue.remove_through(u64::MAX);
    assert_eq!(queue.bytes(), 0);
    assert_eq!(queue.read(0, 10, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_full_queue_refuses_until_something_is_removed() {
    let place = Place::new();
    let store = place.open();
    let queue = store.queue("q", 950).unwrap();
    let mut sequences = Vec::new();
    let full = loop {
        // Room for it is told before each one, also where they do not fill the queue exactly.
        let room = queue.has_room();
        match queue.append(vec![0; 36]) {
            Ok(sequence) => {
                assert!(room);
                sequences.push(sequence);
            }
            Err(error) => break error,
        }
    };
    assert_eq!((full, sequences.len(), queue.has_room()), (QueueError::Full, 10, false));
    store.flush().await.unwrap();
    queue.remove_through(sequences[0]);
    assert!(queue.has_room());
    assert!(queue.append(vec![0; 36]).is_ok());
    assert_eq!(queue.append(vec![0; 36]), Err(QueueError::Full));
    let big = store.queue("big", 10 << 20).unwrap();
    assert!(matches!(big.append(vec![0; (1 << 20) + 1]), Err(QueueError::TooLarge(_))));
    store.close().await.unwrap();
    let store = place.open();
    let queue = store.queue("q", 950).unwrap();
    assert_eq!((queue.bytes(), queue.has_room()), (1000, false));
    assert_eq!(all(&queue).await.len(), 10);
    assert!(queue.append_anyway(vec![0; 36]).is_ok());
    store.flush().await.unwrap();
    assert_eq!(all(&queue).await.len(), 11);
}

#[tokio::test]
async fn a_reader_far_behind_reads_from_the_disk() {
    let place = Place::new();
    let store = place.open();
    let queue = store.queue("q", 64 << 20).unwrap();
    let mut sequences = Vec::new();
    for event in 0..700u32 {
        let mut content = event.to_le_bytes().to_vec();
        content.resize(20_000, 7);
        sequences.push(queue.append(content).unwrap());
        if event % 50 == 0 {
            store.flush().await.unwrap();
        }
    }
    store.flush().await.unwrap();
    let mut after = 0;
    let mut read = 0;
    loop {
        let events = queue.read(after, 100, 300_000).await.unwrap();
        assert!(events.len() <= 15);
        let Some((last, _)) = events.last() else { break };
        after = *last;
        for (sequence, content) in &events {
            assert_eq!((*sequence, &content[..4]), (sequences[read], &(read as u32).to_le_bytes()[..]));
            read += 1;
        }
        if read.is_multiple_of(2) {
            queue.remove_through(events[0].0);
        }
    }
    assert_eq!(read, 700);
    queue.remove_through(after);
    store.close().await.unwrap();
    let store = place.open();
    let queue = store.queue("q", 64 << 20).unwrap();
    assert_eq!((queue.bytes(), queue.watermark()), (0, after));
    assert_eq!(queue.read(0, 1, 1).await.unwrap(), []);
    let next = queue.append(vec![1]).unwrap();
    assert!(next > after);
    queue.wait(0).await;
    assert_eq!(queue.read(0, 1, 1).await.unwrap(), [(next, vec![1])]);
}

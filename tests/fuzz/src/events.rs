//! An event as it lies in the queue.

use tollgate::fuzzing::{read_event, write_event};

/// An event that can be read is the same when it was written again.
pub fn check(input: &[u8]) {
    let Some(event) = read_event(input) else { return };
    assert_eq!(read_event(&write_event(&event)), Some(event));
}

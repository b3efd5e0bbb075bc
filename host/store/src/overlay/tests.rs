//! The overlay alone.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::kv::key::Keys;

const CACHE: u64 = 1 << 20;

fn record(value: u8, version: u64) -> Record {
    Record { value: Some([value].into()), version, expires_ms: 0 }
}

fn write_joint(key: &dyn AsKey, value: u8) -> KvWrite {
    KvWrite { key: key.to_key(), value: Some([value].into()), expires_ms: 0 }
}

fn overlay(clean_bytes: u64) -> (Overlay, Key) {
    let key = Keys::default().key(1, "k").unwrap().to_key();
    (Overlay::new(clean_bytes, Arc::default()), key)
}

fn shown(overlay: &Overlay, key: &Key) -> Option<(u8, u64)> {
    let record = overlay.peek(key)?.record;
    Some((record.value.map_or(0, |value| value[0]), record.version))
}

fn keys(taken: &Taken) -> impl Iterator<Item = &Key> {
    taken.rows.iter().map(|(key, _)| key)
}

fn commit(overlay: &Overlay) -> usize {
    let taken = overlay.collect(|| 0);
    overlay.committed(keys(&taken));
    taken.rows.len()
}

#[test]
fn what_was_read_before_an_entry_left_is_neither_cached_nor_built_upon() {
    for clean_bytes in [0, CACHE] {
        let (overlay, key) = overlay(clean_bytes);
        let old = Loaded { record: Record::ABSENT, removed: overlay.removed(&key) };
        overlay.put(&key, || record(1, 1)).unwrap();
        overlay.offer(&key, &old);
        assert_eq!(shown(&overlay, &key), Some((1, 1)));
        commit(&overlay);
        overlay.offer(&key, &old);
        assert_eq!(shown(&overlay, &key), (clean_bytes > 0).then_some((1, 1)));
        overlay.clean.invalidate(&key);
        overlay.offer(&key, &old);
        assert_eq!(shown(&overlay, &key), None);
        let step = overlay.update(&key, Some(&old), |_| Ok::<_, CommitError>((None, ())));
        assert!(matches!(step, Ok(Step::Load)));
    }
}

#[test]
fn what_is_read_while_nothing_leaves_is_cached_and_built_upon() {
    let (overlay, key) = overlay(CACHE);
    let loaded = Loaded { record: record(1, 1), removed: overlay.removed(&key) };
    let step = overlay.update(&key, Some(&loaded), |present| Ok::<_, CommitError>((None, present.version)));
    assert!(matches!(step, Ok(Step::Done(1))));
    assert_eq!(shown(&overlay, &key), None);
    overlay.offer(&key, &loaded);
    assert_eq!(shown(&overlay, &key), Some((1, 1)));
}

#[test]
fn an_entry_written_during_a_commit_stays_for_the_next() {
    let (overlay, key) = overlay(0);
    overlay.put(&key, || record(1, 1)).unwrap();
    let taken = overlay.collect(|| 0);
    overlay.put(&key, || record(2, 2)).unwrap();
    overlay.committed(keys(&taken));
    assert_eq!(shown(&overlay, &key), Some((2, 2)));
    assert_eq!(commit(&overlay), 1);
    assert_eq!((shown(&overlay, &key), overlay.bytes()), (None, 0));
    assert_eq!(commit(&overlay), 0);
}

#[test]
fn a_joint_write_replaces_what_the_same_commit_wrote() {
    let (overlay, key) = overlay(CACHE);
    overlay.put(&key, || record(1, 1)).unwrap();
    let taken = overlay.collect(|| 0);
    overlay.publish(&[(&write_joint(&key, 9), 2)], || unreachable!());
    overlay.committed(keys(&taken));
    assert_eq!(shown(&overlay, &key), Some((9, 2)));
    assert_eq!((commit(&overlay), overlay.bytes()), (0, 0));
}

#[test]
fn a_joint_write_replaces_what_was_written_during_its_commit_with_a_newer_version() {
    for (during, expected) in [(5, 6), (1, 2)] {
        let (overlay, key) = overlay(0);
        let taken = overlay.collect(|| 0);
        overlay.put(&key, || record(1, during)).unwrap();
        overlay.publish(&[(&write_joint(&key, 9), 2)], || 6);
        overlay.committed(keys(&taken));
        assert_eq!(shown(&overlay, &key), Some((9, expected)));
        assert_eq!(commit(&overlay), 1);
    }
}

#[test]
fn nothing_is_taken_once_the_store_is_down() {
    let (overlay, key) = overlay(CACHE);
    overlay.health.close();
    assert!(overlay.put(&key, || record(1, 1)).is_err());
    let loaded = Loaded { record: Record::ABSENT, removed: 0 };
    assert!(overlay.update(&key, Some(&loaded), |_| Ok::<_, CommitError>((None, ()))).is_err());
    assert_eq!(commit(&overlay), 0);
}

/// One thread writes its keys in turn, so that at every instant a key is as new as those after it, or newer.
#[test]
fn a_commit_takes_what_was_there_at_one_instant() {
    let (overlay, _) = overlay(0);
    let numbers = Keys::default();
    let all: Vec<Key> = (0..20).map(|number| numbers.key(1, &number.to_string()).unwrap().to_key()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1.. {
                for key in &all {
                    overlay.put(key, || record(0, turn)).unwrap();
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut on_disk: HashMap<Key, u64> = HashMap::new();
        while on_disk.values().max().is_none_or(|turn| *turn < 20_000) {
            let taken = overlay.collect(|| 0);
            on_disk.extend(taken.rows.iter().map(|(key, record)| (key.clone(), record.version)));
            let turns: Vec<u64> = all.iter().map(|key| on_disk.get(key).copied().unwrap_or(0)).collect();
            let whole = turns.is_sorted_by(|left, right| left >= right && *left <= right + 1);
            stop.store(!whole, Ordering::Relaxed);
            assert!(whole, "{turns:?}");
            overlay.committed(keys(&taken));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

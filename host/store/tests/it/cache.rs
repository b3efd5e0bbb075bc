//! Caches: what they may forget, and what they must never answer.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::{prelude::*, test_runner::TestCaseResult};
use tollgate_store::{
    Cache, CacheError, CacheOptions, CacheSet, Priority, Strategy as CacheStrategy,
    limits::{ADAPT_LOOKUPS, CACHE_ENTRIES, CACHE_TTL_MOST_MS},
};

use crate::support::Place;

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Medium, Priority::High];

fn with(priority: Priority) -> CacheSet {
    CacheSet { ttl_ms: None, priority: Some(priority) }
}

fn value(cache: &Cache, key: &str) -> Option<Vec<u8>> {
    cache.get(key).unwrap().map(|value| value.to_vec())
}

fn small(entries: u64) -> CacheOptions {
    CacheOptions { entries, ..CacheOptions::default() }
}

#[test]
fn what_is_set_is_there_until_it_is_removed_or_expires() {
    let place = Place::new();
    let store = place.open();
    let cache = store.cache("a", CacheOptions::default()).unwrap();
    assert_eq!(value(&cache, "k"), None);
    cache.set("k", vec![1], CacheSet { ttl_ms: Some(10), priority: None }).unwrap();
    cache.set_many(vec![("x".into(), vec![2]), ("y".into(), vec![3])], CacheSet::default()).unwrap();
    // The same name is the same cache, whatever is asked of it.
    let again = store.cache("a", small(1)).unwrap();
    let keys = ["y".to_owned(), "none".to_owned(), "k".to_owned()];
    let found = again.get_many(&keys).unwrap();
    assert_eq!(
        found.iter().map(|value| value.as_ref().map(|value| value[0])).collect::<Vec<_>>(),
        [Some(3), None, Some(1)]
    );
    cache.delete("x").unwrap();
    assert_eq!(value(&again, "x"), None);
    place.advance(9);
    assert_eq!(value(&cache, "k"), Some(vec![1]));
    place.advance(1);
    assert_eq!(value(&cache, "k"), None);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.expired, stats.hits, stats.misses), (1, 1, 3, 4));
    assert!((stats.hit_rate() - 3.0 / 7.0).abs() < 1e-9);
    assert!((1..400).contains(&stats.bytes), "{stats:?}");
    assert_eq!(value(&store.cache("b", CacheOptions::default()).unwrap(), "y"), None);
}

#[test]
fn a_strategy_says_how_long_entries_live_and_whose_room_they_take() {
    let minutes = |strategy: CacheStrategy| (strategy.ttl_ms / 60_000, strategy.priority);
    let named = CacheStrategy::NAMED.map(|(name, strategy)| (name, minutes(strategy)));
    assert_eq!(named[0], ("model-list", (60, Priority::High)));
    assert_eq!(named[1], ("health", (5, Priority::Medium)));
    assert_eq!(named[2], ("key-metrics", (10, Priority::Low)));
    assert_eq!(named[3], ("request", (1, Priority::Low)));
    let place = Place::new();
    let options = CacheOptions { strategy: CacheStrategy::HEALTH, ..CacheOptions::default() };
    let cache = place.open().cache("a", options).unwrap();
    cache.set("k", vec![1], CacheSet::default()).unwrap();
    cache.set("long", vec![1], CacheSet { ttl_ms: Some(u64::MAX), priority: None }).unwrap();
    place.advance(5 * 60_000 - 1);
    assert_eq!(value(&cache, "k"), Some(vec![1]));
    place.advance(1);
    assert_eq!(value(&cache, "k"), None);
    place.advance(CACHE_TTL_MOST_MS - 5 * 60_000 - 1);
    assert_eq!(value(&cache, "long"), Some(vec![1]));
    place.advance(1);
    assert_eq!(value(&cache, "long"), None);
}

#[test]
fn expiry_follows_the_hit_rate_where_the_writer_names_none() {
    let place = Place::new();
    let options = CacheOptions { adaptive: true, ..CacheOptions::default() };
    let cache = place.open().cache("a", options).unwrap();
    let exact = CacheSet { ttl_ms: Some(60_000), priority: None };
    cache.set("k", vec![1], CacheSet { ttl_ms: Some(CACHE_TTL_MOST_MS), priority: None }).unwrap();
    (0..ADAPT_LOOKUPS).for_each(|_| assert!(value(&cache, "k").is_some()));
    assert_eq!(cache.stats().ttl_ms, 120_000);
    cache.set("adapted", vec![1], CacheSet::default()).unwrap();
    cache.set("exact", vec![1], exact).unwrap();
    place.advance(60_000);
    assert_eq!((value(&cache, "exact"), value(&cache, "adapted")), (None, Some(vec![1])));
    place.advance(60_000);
    assert_eq!(value(&cache, "adapted"), None);
    (0..3 * ADAPT_LOOKUPS).for_each(|_| assert!(value(&cache, "never").is_none()));
    assert_eq!(cache.stats().ttl_ms, 15_000);
    let fixed = Place::new().open().cache("b", CacheOptions::default()).unwrap();
    (0..2 * ADAPT_LOOKUPS).for_each(|_| assert!(value(&fixed, "never").is_none()));
    assert_eq!(fixed.stats().ttl_ms, 60_000);
}

#[test]
fn a_cache_holds_a_thousand_entries_and_eight_mebibytes_of_each_priority() {
    let store = Place::new().open();
    let cache = store.cache("entries", CacheOptions::default()).unwrap();
    for number in 0..CACHE_ENTRIES {
        cache.set(&number.to_string(), vec![], CacheSet::default()).unwrap();
    }
    assert_eq!(cache.stats().entries, 1_000);
    for number in 0..20_000 {
        cache.set(&number.to_string(), vec![], CacheSet::default()).unwrap();
    }
    assert!((1..=1_000).contains(&cache.stats().entries), "{:?}", cache.stats());
    let cache = store.cache("bytes", CacheOptions::default()).unwrap();
    for number in 0..100 {
        cache.set(&number.to_string(), vec![0; 300_000], with(PRIORITIES[number % 3])).unwrap();
    }
    let stats = cache.stats();
    assert!((8 << 20..=24 << 20).contains(&stats.bytes), "{stats:?}");
    assert!(stats.entries <= 3 * 27, "{stats:?}");
}

#[test]
fn a_flood_of_low_priority_leaves_the_others_alone() {
    let cache = Place::new().open().cache("a", small(50)).unwrap();
    for number in 0..40 {
        cache.set(&format!("high {number}"), vec![1], with(Priority::High)).unwrap();
        cache.set(&format!("medium {number}"), vec![1], with(Priority::Medium)).unwrap();
    }
    for number in 0..5_000 {
        cache.set(&format!("low {number}"), vec![0; 1_000], with(Priority::Low)).unwrap();
    }
    for number in 0..40 {
        assert!(value(&cache, &format!("high {number}")).is_some());
        assert!(value(&cache, &format!("medium {number}")).is_some());
    }
}

#[test]
fn a_flood_spares_what_is_used_often() {
    let cache = Place::new().open().cache("a", small(100)).unwrap();
    let often =
        |cache: &Cache| (0..20).filter(|number| value(cache, &format!("often {number}")).is_some()).count();
    for number in 0..20 {
        cache.set(&format!("often {number}"), vec![], CacheSet::default()).unwrap();
    }
    for number in 0..80 {
        cache.set(&format!("other {number}"), vec![], CacheSet::default()).unwrap();
    }
    cache.clean();
    for _ in 0..8 {
        assert_eq!(often(&cache), 20);
        cache.clean();
    }
    for number in 0..1_000 {
        cache.set(&format!("once {number}"), vec![], CacheSet::default()).unwrap();
    }
    cache.clean();
    assert_eq!(often(&cache), 20);
}

#[test]
fn what_is_expired_leaves_by_itself() {
    let place = Place::new();
    let cache = place.open().cache("a", CacheOptions::default()).unwrap();
    for number in 0..100 {
        cache.set(&number.to_string(), vec![], CacheSet { ttl_ms: Some(1), priority: None }).unwrap();
    }
    cache.set("stays", vec![], CacheSet::default()).unwrap();
    // moka goes by the machine's clock; the injected one stands still, and the answers go by both.
    while cache.stats().entries > 1 {
        std::thread::yield_now();
    }
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.expired), (1, 100));
    assert_eq!(value(&cache, "stays"), Some(vec![]));
}

#[test]
fn warming_up_fills_only_what_is_not_there() {
    let cache = Place::new().open().cache("a", CacheOptions::default()).unwrap();
    cache.set("newer", vec![2], CacheSet::default()).unwrap();
    let stored = ["newer", "older"].map(|key| (key.to_owned(), vec![1]));
    cache.warm_up(stored, with(Priority::High)).unwrap();
    assert_eq!((value(&cache, "newer"), value(&cache, "older")), (Some(vec![2]), Some(vec![1])));
}

#[test]
fn hostile_sizes_are_refused() {
    let store = Place::new().open();
    let cache = store.cache("a", CacheOptions { bytes: 10_000, ..CacheOptions::default() }).unwrap();
    let set = |key: &str, bytes: usize| cache.set(key, vec![0; bytes], CacheSet::default());
    assert!(matches!(set("", 0), Err(CacheError::Invalid(_))));
    assert!(matches!(set(&"k".repeat(513), 0), Err(CacheError::TooLarge(_))));
    assert!(matches!(set("k", (1 << 20) + 1), Err(CacheError::TooLarge(_))));
    assert!(matches!(set("k", 10_000), Err(CacheError::TooLarge(text)) if text.contains("10000")));
    assert_eq!(set(&"k".repeat(512), 9_000), Ok(()));
    assert!(matches!(cache.get(""), Err(CacheError::Invalid(_))));
    assert!(matches!(cache.delete(&"k".repeat(513)), Err(CacheError::TooLarge(_))));
    let keys = vec!["k".to_owned(); 1_001];
    assert!(matches!(cache.get_many(&keys), Err(CacheError::TooLarge(_))));
    let entries = keys.into_iter().map(|key| (key, vec![])).collect();
    assert!(matches!(cache.set_many(entries, CacheSet::default()), Err(CacheError::TooLarge(_))));
    let entries = vec![("good".to_owned(), vec![]), (String::new(), vec![])];
    assert!(matches!(cache.set_many(entries, CacheSet::default()), Err(CacheError::Invalid(_))));
    assert_eq!(value(&cache, "good"), None);
    let large = store.cache("large", CacheOptions::default()).unwrap();
    large.set("k", vec![0; 1 << 20], CacheSet::default()).unwrap();
    assert!(matches!(large.get_many(&vec!["k".to_owned(); 9]), Err(CacheError::TooLarge(_))));
    for options in [small(0), small(u64::MAX), CacheOptions { bytes: 0, ..small(1) }] {
        assert!(matches!(store.cache("wrong", options), Err(CacheError::Invalid(_))));
    }
    assert!(matches!(store.cache("", CacheOptions::default()), Err(CacheError::Invalid(_))));
}

/// A key's writer counts up, through all priorities; a reader never finds less than what was written before it asked.
#[test]
fn nobody_finds_what_was_overwritten() {
    let cache = Place::new().open().cache("a", small(8)).unwrap();
    let written: Arc<Vec<AtomicU64>> = Arc::new((0..4).map(|_| AtomicU64::new(0)).collect());
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (key, written) in written.iter().enumerate() {
            let (cache, done) = (&cache, &done);
            scope.spawn(move || {
                let key = key.to_string();
                for count in 1..4_000_u64 {
                    let priority = PRIORITIES[(count * 7 % 5 % 3) as usize];
                    cache.set(&key, count.to_le_bytes().to_vec(), with(priority)).unwrap();
                    written.store(count, Ordering::SeqCst);
                    // Pushes others out.
                    cache.set(&format!("{key} {}", count % 50), vec![], with(priority)).unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while done.load(Ordering::SeqCst) < 4 {
                    for (key, written) in written.iter().enumerate() {
                        let before = written.load(Ordering::SeqCst);
                        if let Some(found) = cache.get(&key.to_string()).unwrap() {
                            let found = u64::from_le_bytes((*found).try_into().unwrap());
                            assert!(found >= before, "{found} after {before}");
                        }
                    }
                }
            });
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    GetMany(Vec<u8>),
    Set { key: u8, value: u8, ttl_ms: Option<u64>, priority: Option<usize> },
    SetMany { keys: Vec<u8>, value: u8, priority: Option<usize> },
    Delete(u8),
    WarmUp(u8, u8),
    Advance(u64),
    Clean,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u8..10;
    let keys = prop::collection::vec(0u8..10, 0..4);
    let priority = prop::option::of(0usize..3);
    let ttl_ms = prop::option::weighted(0.5, 0u64..60_000);
    let step = prop_oneof![
        6 => key.clone().prop_map(Step::Get),
        1 => keys.clone().prop_map(Step::GetMany),
        5 => (key.clone(), any::<u8>(), ttl_ms, priority.clone())
            .prop_map(|(key, value, ttl_ms, priority)| Step::Set { key, value, ttl_ms, priority }),
        1 => (keys, any::<u8>(), priority).prop_map(|(keys, value, priority)| Step::SetMany { keys, value, priority }),
        2 => key.clone().prop_map(Step::Delete),
        1 => (key, any::<u8>()).prop_map(|(key, value)| Step::WarmUp(key, value)),
        2 => (0u64..40_000).prop_map(Step::Advance),
        1 => Just(Step::Clean),
    ];
    prop::collection::vec(step, 1..150)
}

/// What a cache must have forgotten is not in the map; what it may have is.
struct Model {
    place: Place,
    cache: Cache,
    map: HashMap<u8, (u8, u64)>,
    asked: u64,
}

impl Model {
    fn now_ms(&self) -> u64 {
        self.place.clock.load(Ordering::SeqCst)
    }

    fn found(&mut self, key: u8, found: Option<&[u8]>) -> TestCaseResult {
        self.asked += 1;
        let now_ms = self.now_ms();
        match found {
            // What is forgotten stays so.
            None => drop(self.map.remove(&key)),
            Some(found) => {
                let expected = self.map.get(&key).filter(|(_, expires_ms)| *expires_ms > now_ms);
                prop_assert_eq!(expected.map(|(value, _)| vec![*value]), Some(found.to_vec()));
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> TestCaseResult {
        let options = |ttl_ms, priority: Option<usize>| CacheSet {
            ttl_ms,
            priority: priority.map(|place| PRIORITIES[place]),
        };
        match step {
            Step::Get(key) => {
                let found = self.cache.get(&key.to_string()).unwrap();
                self.found(key, found.as_deref())?;
            }
            Step::GetMany(keys) => {
                let names: Vec<String> = keys.iter().map(u8::to_string).collect();
                for (key, found) in keys.into_iter().zip(self.cache.get_many(&names).unwrap()) {
                    self.found(key, found.as_deref())?;
                }
            }
            Step::Set { key, value, ttl_ms, priority } => {
                self.cache.set(&key.to_string(), vec![value], options(ttl_ms, priority)).unwrap();
                self.map.insert(key, (value, self.now_ms() + ttl_ms.unwrap_or(60_000)));
            }
            Step::SetMany { keys, value, priority } => {
                let entries = keys.iter().map(|key| (key.to_string(), vec![value])).collect();
                self.cache.set_many(entries, options(None, priority)).unwrap();
                let expires_ms = self.now_ms() + 60_000;
                self.map.extend(keys.into_iter().map(|key| (key, (value, expires_ms))));
            }
            Step::Delete(key) => {
                self.cache.delete(&key.to_string()).unwrap();
                self.map.remove(&key);
            }
            Step::WarmUp(key, value) => {
                let before = self.cache.get(&key.to_string()).unwrap();
                self.found(key, before.as_deref())?;
                self.cache.warm_up([(key.to_string(), vec![value])], CacheSet::default()).unwrap();
                if before.is_none() {
                    self.map.insert(key, (value, self.now_ms() + 60_000));
                }
            }
            Step::Advance(ms) => self.place.advance(ms),
            Step::Clean => {
                let stats = self.cache.stats();
                prop_assert!(stats.entries <= 3 * 3 && stats.bytes <= 3 * 2_000, "{:?}", stats);
                prop_assert_eq!(stats.hits + stats.misses, self.asked);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_cache_forgets_but_never_answers_what_is_old(steps in steps()) {
        let place = Place::new();
        let options = CacheOptions { entries: 3, bytes: 2_000, ..CacheOptions::default() };
        let cache = place.open().cache("a", options).unwrap();
        let mut model = Model { place, cache, map: HashMap::new(), asked: 0 };
        for step in steps {
            model.step(step)?;
        }
        model.step(Step::Clean)?;
    }
}

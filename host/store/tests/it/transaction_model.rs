//! Transactions, batches and snapshots over two stores, many of them open at once, against plain maps. The model knows
//! each time whether a transaction has to be refused.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestCaseResult};
use tollgate_store::{Batch, Joint, Kv, KvError, SetOptions, Snapshot, Store, Transaction};

use crate::support::{Place, RELAXED};

/// Store and key.
type Name = (usize, u8);

#[derive(Clone, Debug)]
enum Step {
    Set { name: Name, value: u8, ttl_ms: Option<u64> },
    Delete(Name),
    Increment(Name),
    Joint(Name, Name, u8),
    Begin(usize),
    Read(usize, Name),
    Write { transaction: usize, name: Name, value: Option<u8>, ttl_ms: Option<u64> },
    Commit(usize),
    RollBack(usize),
    BatchSet { name: Name, value: Option<u8>, ttl_ms: Option<u64> },
    BatchWrite,
    BatchReset,
    Snapshot(usize),
    Look { snapshot: usize, store: usize, prefix: Option<u8> },
    LookAt(usize, Name),
    Advance(u64),
    Flush,
    Reopen,
}

/// How many transactions, and snapshots, are open at once.
const OPEN: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = (0usize..2, 0u8..6);
    let open = 0..OPEN;
    let ttl_ms = prop::option::weighted(0.3, 0u64..40);
    let value = prop::option::weighted(0.8, any::<u8>());
    let step = prop_oneof![
        2 => (name.clone(), any::<u8>(), ttl_ms.clone()).prop_map(|(name, value, ttl_ms)| Step::Set { name, value, ttl_ms }),
        1 => name.clone().prop_map(Step::Delete),
        1 => name.clone().prop_map(Step::Increment),
        1 => (name.clone(), name.clone(), any::<u8>()).prop_map(|(set, delete, value)| Step::Joint(set, delete, value)),
        2 => open.clone().prop_map(Step::Begin),
        6 => (open.clone(), name.clone()).prop_map(|(transaction, name)| Step::Read(transaction, name)),
        5 => (open.clone(), name.clone(), value.clone(), ttl_ms.clone())
            .prop_map(|(transaction, name, value, ttl_ms)| Step::Write { transaction, name, value, ttl_ms }),
        4 => open.clone().prop_map(Step::Commit),
        1 => open.clone().prop_map(Step::RollBack),
        2 => (name.clone(), value, ttl_ms).prop_map(|(name, value, ttl_ms)| Step::BatchSet { name, value, ttl_ms }),
        1 => Just(Step::BatchWrite),
        1 => Just(Step::BatchReset),
        2 => open.clone().prop_map(Step::Snapshot),
        2 => (open.clone(), 0usize..2, prop::option::of(0u8..3))
            .prop_map(|(snapshot, store, prefix)| Step::Look { snapshot, store, prefix }),
        1 => (open, name).prop_map(|(snapshot, name)| Step::LookAt(snapshot, name)),
        2 => (0u64..30).prop_map(Step::Advance),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

fn key(name: Name) -> String {
    format!("{}{}", prefix(name.1 % 3), name.1)
}

fn prefix(number: u8) -> &'static str {
    ["a/", "äö/", "a/b"][usize::from(number)]
}

/// What is written; `write` counts all writes, so that no two are the same.
#[derive(Clone, Debug, PartialEq)]
struct Value {
    bytes: Vec<u8>,
    expires_ms: Option<u64>,
    write: u64,
}

/// Entries by store and key, as bytes order them.
type Map = BTreeMap<(usize, String), Value>;

/// What waits to be written; none removes.
type Writes = BTreeMap<(usize, String), Option<(Vec<u8>, Option<u64>)>>;

struct Open {
    transaction: Transaction,
    reads: BTreeMap<(usize, String), Option<u64>>,
    writes: Writes,
}

struct Checked {
    place: Place,
    store: Store,
    kvs: [Kv; 2],
    map: Map,
    write: u64,
    open: [Option<Open>; OPEN],
    batch: Batch,
    batched: Writes,
    snapshots: [Option<(Snapshot, Map)>; OPEN],
}

fn kvs(store: &Store) -> [Kv; 2] {
    [store.kv("one", RELAXED).unwrap(), store.kv("two", RELAXED).unwrap()]
}

impl Checked {
    fn new(kv_cache_bytes: u64) -> Self {
        let mut place = Place::new();
        place.kv_cache_bytes = kv_cache_bytes;
        let store = place.open();
        let (kvs, batch) = (kvs(&store), store.batch());
        Self {
            place,
            store,
            kvs,
            map: Map::new(),
            write: 0,
            open: Default::default(),
            batch,
            batched: Writes::new(),
            snapshots: Default::default(),
        }
    }

    fn expires_ms(&self, ttl_ms: Option<u64>) -> Option<u64> {
        let now_ms = self.place.clock.load(std::sync::atomic::Ordering::SeqCst);
        ttl_ms.map(|ttl_ms| now_ms + ttl_ms)
    }

    /// The map without what is expired.
    fn now(&mut self) -> &Map {
        let now_ms = self.expires_ms(Some(0)).unwrap();
        self.map.retain(|_, value| value.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms));
        &self.map
    }

    fn put(&mut self, name: (usize, String), written: Option<(Vec<u8>, Option<u64>)>) {
        self.write += 1;
        let write = self.write;
        match written {
            Some((bytes, expires_ms)) => self.map.insert(name, Value { bytes, expires_ms, write }),
            None => self.map.remove(&name),
        };
    }

    fn put_all(&mut self, writes: Writes) {
        writes.into_iter().for_each(|(name, written)| self.put(name, written));
    }

    /// Whether all that was read stands.
    fn stands(&mut self, transaction: usize) -> bool {
        self.now();
        let reads = &self.open[transaction].as_ref().unwrap().reads;
        reads.iter().all(|(name, write)| self.map.get(name).map(|value| value.write) == *write)
    }

    async fn step(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Set { name, value, ttl_ms } => {
                let options = SetOptions { ttl_ms, if_absent: false };
                self.kvs[name.0].set(&key(name), vec![value], options).await.unwrap();
                let written = (vec![value], self.expires_ms(ttl_ms));
                self.put((name.0, key(name)), Some(written));
            }
            Step::Delete(name) => {
                self.kvs[name.0].delete(&key(name)).await.unwrap();
                self.put((name.0, key(name)), None);
            }
            Step::Increment(name) => {
                let sum = self.kvs[name.0].increment(&key(name), 1, None).await;
                let place = (name.0, key(name));
                let expires_ms = self.now().get(&place).and_then(|value| value.expires_ms);
                if let Ok(sum) = sum {
                    self.put(place, Some((sum.to_string().into_bytes(), expires_ms)));
                }
            }
            Step::Joint(set, delete, value) => {
                let joint = Joint::new().set(&self.kvs[set.0], &key(set), vec![value], None).unwrap();
                let joint = joint.delete(&self.kvs[delete.0], &key(delete)).unwrap();
                self.store.commit(joint).await.unwrap();
                self.put((set.0, key(set)), Some((vec![value], None)));
                self.put((delete.0, key(delete)), None);
            }
            Step::BatchSet { name, value, ttl_ms } => {
                let (kv, key) = (&self.kvs[name.0], key(name));
                match value {
                    Some(value) => self.batch.set(kv, &key, vec![value], ttl_ms).unwrap(),
                    None => self.batch.delete(kv, &key).unwrap(),
                }
                let written = value.map(|value| (vec![value], self.expires_ms(ttl_ms)));
                self.batched.insert((name.0, key), written);
                prop_assert_eq!(self.batch.len(), self.batched.len());
            }
            Step::BatchWrite => {
                self.batch.write().await.unwrap();
                prop_assert!(self.batch.is_empty() && self.batch.bytes() == 0);
                let batched = std::mem::take(&mut self.batched);
                self.put_all(batched);
            }
            Step::BatchReset => {
                self.batch.reset();
                self.batched.clear();
            }
            Step::Advance(ms) => self.place.advance(ms),
            Step::Flush => self.store.flush().await.unwrap(),
            Step::Reopen => self.reopen().await,
            Step::Snapshot(place) => {
                let snapshot = self.store.snapshot().await.unwrap();
                prop_assert_eq!(snapshot.at_ms(), self.expires_ms(Some(0)).unwrap());
                self.snapshots[place] = Some((snapshot, self.now().clone()));
            }
            Step::Look { snapshot, store, prefix: number } => {
                self.look(snapshot, store, number.map(prefix)).await?;
            }
            Step::LookAt(snapshot, name) => {
                let Some((snapshot, map)) = &self.snapshots[snapshot] else { return Ok(()) };
                let found = snapshot.get(&self.kvs[name.0], &key(name)).await.unwrap();
                let expected =
                    map.get(&(name.0, key(name))).map(|value| (value.bytes.clone(), value.expires_ms));
                prop_assert_eq!(found.map(|entry| (entry.value.to_vec(), entry.expires_ms)), expected);
            }
            transacting => self.transact(transacting).await?,
        }
        Ok(())
    }

    async fn reopen(&mut self) {
        self.open = Default::default();
        self.snapshots = Default::default();
        self.store.close().await.unwrap();
        self.store = self.place.open();
        self.kvs = kvs(&self.store);
        self.batch = self.store.batch();
        self.batched.clear();
    }

    async fn look(&mut self, snapshot: usize, store: usize, prefix: Option<&str>) -> TestCaseResult {
        let Some((snapshot, map)) = &self.snapshots[snapshot] else { return Ok(()) };
        let prefix = prefix.unwrap_or_default();
        let mut entries = snapshot.entries(&self.kvs[store], prefix).unwrap();
        let mut found = Vec::new();
        while let Some((key, entry)) = entries.next().await.unwrap() {
            found.push((key, entry.value.to_vec(), entry.expires_ms));
        }
        let expected: Vec<_> = map
            .iter()
            .filter(|((of, key), _)| *of == store && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.bytes.clone(), value.expires_ms))
            .collect();
        prop_assert_eq!(found, expected);
        Ok(())
    }

    async fn transact(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Begin(place) => {
                let transaction = self.store.transaction();
                self.open[place] = Some(Open { transaction, reads: BTreeMap::new(), writes: Writes::new() });
            }
            Step::Read(place, name) if self.open[place].is_some() => self.read(place, name).await?,
            Step::Write { transaction, name, value, ttl_ms } => {
                let expires_ms = self.expires_ms(ttl_ms);
                let Some(open) = &mut self.open[transaction] else { return Ok(()) };
                let (kv, key) = (&self.kvs[name.0], key(name));
                match value {
                    Some(value) => open.transaction.set(kv, &key, vec![value], ttl_ms).unwrap(),
                    None => open.transaction.delete(kv, &key).unwrap(),
                }
                open.writes.insert((name.0, key), value.map(|value| (vec![value], expires_ms)));
            }
            Step::Commit(place) if self.open[place].is_some() => {
                let stands = self.stands(place);
                let open = self.open[place].take().unwrap();
                let result = open.transaction.commit().await;
                prop_assert_eq!(result, if stands { Ok(()) } else { Err(KvError::Conflict) });
                if stands {
                    self.put_all(open.writes);
                }
            }
            Step::RollBack(place) => {
                if let Some(open) = self.open[place].take() {
                    open.transaction.roll_back();
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn read(&mut self, place: usize, name: Name) -> TestCaseResult {
        let stands = self.stands(place);
        let now_ms = self.expires_ms(Some(0)).unwrap();
        let (kv, key) = (&self.kvs[name.0], key(name));
        let open = self.open[place].as_mut().unwrap();
        let found = open.transaction.get(kv, &key).await;
        let name = (name.0, key);
        if let Some(own) = open.writes.get(&name) {
            let there = own.as_ref().filter(|(_, expires_ms)| expires_ms.is_none_or(|at| at > now_ms));
            prop_assert_eq!(found, Ok(there.map(|(bytes, _)| bytes.as_slice().into())));
            return Ok(());
        }
        let value = self.map.get(&name);
        open.reads.entry(name).or_insert(value.map(|value| value.write));
        let expected = if stands {
            Ok(value.map(|value| value.bytes.as_slice().into()))
        } else {
            Err(KvError::Conflict)
        };
        prop_assert_eq!(found, expected);
        Ok(())
    }
}

fn check(kv_cache_bytes: u64, steps: Vec<Step>) -> TestCaseResult {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut checked = Checked::new(kv_cache_bytes);
        for step in steps {
            checked.step(step).await?;
        }
        for reopened in [false, true] {
            if reopened {
                checked.reopen().await;
            }
            checked.step(Step::Snapshot(0)).await?;
            for store in 0..2 {
                checked.look(0, store, None).await?;
            }
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn transactions_without_a_cache_are_steps_on_maps(steps in steps()) {
        check(0, steps)?;
    }

    #[test]
    fn transactions_with_a_cache_are_steps_on_maps(steps in steps()) {
        check(1 << 20, steps)?;
    }

    #[test]
    fn transactions_with_a_tiny_cache_are_steps_on_maps(steps in steps()) {
        check(600, steps)?;
    }
}

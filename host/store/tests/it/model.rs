//! Random operations against a plain map.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestCaseResult};
use tollgate_store::{Entry, Kv, KvError, SetOptions, Store, Swapped};

use crate::support::{DURABLE, Place, RELAXED};

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    GetMany(Vec<u8>),
    Set { key: u8, value: u8, ttl_ms: Option<u64>, if_absent: bool },
    SetMany { keys: Vec<u8>, value: u8, ttl_ms: Option<u64> },
    Delete(u8),
    DeleteMany(Vec<u8>),
    List { prefix: Option<u8>, limit: u32 },
    Increment { key: u8, delta: i64, ttl_ms: Option<u64> },
    Swap { key: u8, right: bool, value: u8, ttl_ms: Option<u64> },
    Joint { set: u8, delete: u8, value: u8 },
    Advance(u64),
    Flush,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u8..12;
    let keys = prop::collection::vec(0u8..12, 0..4);
    let ttl_ms = prop::option::weighted(0.3, 0u64..40);
    let step = prop_oneof![
        4 => key.clone().prop_map(Step::Get),
        1 => keys.clone().prop_map(Step::GetMany),
        4 => (key.clone(), any::<u8>(), ttl_ms.clone(), any::<bool>())
            .prop_map(|(key, value, ttl_ms, if_absent)| Step::Set { key, value, ttl_ms, if_absent }),
        1 => (keys.clone(), any::<u8>(), ttl_ms.clone())
            .prop_map(|(keys, value, ttl_ms)| Step::SetMany { keys, value, ttl_ms }),
        2 => key.clone().prop_map(Step::Delete),
        1 => keys.prop_map(Step::DeleteMany),
        2 => (prop::option::of(0u8..3), 1u32..5).prop_map(|(prefix, limit)| Step::List { prefix, limit }),
        3 => (key.clone(), -5i64..5, ttl_ms.clone())
            .prop_map(|(key, delta, ttl_ms)| Step::Increment { key, delta, ttl_ms }),
        3 => (key.clone(), any::<bool>(), any::<u8>(), ttl_ms)
            .prop_map(|(key, right, value, ttl_ms)| Step::Swap { key, right, value, ttl_ms }),
        1 => (key.clone(), key, any::<u8>()).prop_map(|(set, delete, value)| Step::Joint { set, delete, value }),
        2 => (0u64..30).prop_map(Step::Advance),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// Three prefixes, of different lengths.
fn name(key: u8) -> String {
    format!("{}{key}", prefix(key % 3))
}

fn prefix(number: u8) -> &'static str {
    ["a/", "äö/", "a/b"][usize::from(number)]
}

struct Checked {
    place: Place,
    store: Store,
    kv: Kv,
    model: BTreeMap<String, Value>,
    last_version: u64,
}

#[derive(Clone, Debug)]
struct Value {
    bytes: Vec<u8>,
    expires_ms: Option<u64>,
}

impl Checked {
    fn new(kv_cache_bytes: u64) -> Self {
        let mut place = Place::new();
        place.kv_cache_bytes = kv_cache_bytes;
        let store = place.open();
        let kv = store.kv("model", RELAXED).unwrap();
        Self { place, store, kv, model: BTreeMap::new(), last_version: 0 }
    }

    fn now_ms(&self) -> u64 {
        self.place.clock.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn expires_ms(&self, ttl_ms: Option<u64>) -> Option<u64> {
        ttl_ms.map(|ttl_ms| self.now_ms() + ttl_ms)
    }

    /// What the model says about a key.
    fn modelled(&mut self, key: &str) -> Option<Value> {
        let now_ms = self.now_ms();
        self.model.retain(|_, value| value.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms));
        self.model.get(key).cloned()
    }

    fn write(&mut self, key: u8, bytes: Vec<u8>, ttl_ms: Option<u64>) {
        let expires_ms = self.expires_ms(ttl_ms);
        self.model.insert(name(key), Value { bytes, expires_ms });
    }

    fn check(&mut self, key: u8, found: Option<Entry>) -> TestCaseResult {
        let expected = self.modelled(&name(key));
        let shown = found.map(|entry| (entry.value.to_vec(), entry.expires_ms));
        prop_assert_eq!(shown, expected.map(|value| (value.bytes, value.expires_ms)));
        Ok(())
    }

    async fn step(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Get(key) => {
                let found = self.kv.get(&name(key)).await.unwrap();
                prop_assert_eq!(self.kv.exists(&name(key)).await.unwrap(), found.is_some());
                self.check(key, found)?;
            }
            Step::GetMany(keys) => {
                let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
                for (key, found) in keys.into_iter().zip(self.kv.get_many(&names).await.unwrap()) {
                    self.check(key, found)?;
                }
            }
            Step::Set { key, value, ttl_ms, if_absent } => {
                let absent = self.modelled(&name(key)).is_none();
                let options = SetOptions { ttl_ms, if_absent };
                let written = self.kv.set(&name(key), vec![value], options).await.unwrap();
                prop_assert_eq!(written, absent || !if_absent);
                if written {
                    self.write(key, vec![value], ttl_ms);
                }
            }
            Step::SetMany { keys, value, ttl_ms } => {
                let entries = keys.iter().map(|key| (name(*key), vec![value])).collect();
                self.kv.set_many(entries, ttl_ms).await.unwrap();
                keys.into_iter().for_each(|key| self.write(key, vec![value], ttl_ms));
            }
            Step::Delete(key) => {
                self.kv.delete(&name(key)).await.unwrap();
                self.model.remove(&name(key));
            }
            Step::DeleteMany(keys) => {
                let names: Vec<String> = keys.into_iter().map(name).collect();
                self.kv.delete_many(&names).await.unwrap();
                self.model.retain(|name, _| !names.contains(name));
            }
            Step::List { prefix: number, limit } => self.list(number.map(prefix), limit).await?,
            Step::Increment { key, delta, ttl_ms } => self.increment(key, delta, ttl_ms).await?,
            Step::Swap { key, right, value, ttl_ms } => self.swap(key, right, value, ttl_ms).await?,
            Step::Joint { set, delete, value } => {
                let joint = tollgate_store::Joint::new()
                    .set(&self.kv, &name(set), vec![value], None)
                    .and_then(|joint| joint.delete(&self.kv, &name(delete)));
                self.store.commit(joint.unwrap()).await.unwrap();
                self.write(set, vec![value], None);
                self.model.remove(&name(delete));
            }
            Step::Advance(ms) => self.place.advance(ms),
            Step::Flush => self.store.flush().await.unwrap(),
            Step::Reopen => {
                self.store.close().await.unwrap();
                self.store = self.place.open();
                self.kv = self.store.kv("model", RELAXED).unwrap();
            }
        }
        Ok(())
    }

    async fn list(&mut self, prefix: Option<&str>, limit: u32) -> TestCaseResult {
        self.modelled("");
        let matches = |key: &&String| key.starts_with(prefix.unwrap_or_default());
        let expected: Vec<String> = self.model.keys().filter(matches).cloned().collect();
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.kv.list_keys(prefix, cursor.as_deref(), limit).await.unwrap();
            prop_assert!(page.keys.len() <= limit as usize);
            found.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        prop_assert_eq!(found, expected);
        Ok(())
    }

    async fn increment(&mut self, key: u8, delta: i64, ttl_ms: Option<u64>) -> TestCaseResult {
        let present = self.modelled(&name(key));
        let number = match &present {
            None => Some(0),
            Some(value) => std::str::from_utf8(&value.bytes).ok().and_then(|text| text.parse::<i64>().ok()),
        };
        let result = self.kv.increment(&name(key), delta, ttl_ms).await;
        let Some(number) = number else {
            prop_assert!(matches!(result, Err(KvError::Invalid(_))));
            return Ok(());
        };
        prop_assert_eq!(result, Ok(number + delta));
        let expires_ms = present.map_or(self.expires_ms(ttl_ms), |value| value.expires_ms);
        let bytes = (number + delta).to_string().into_bytes();
        self.model.insert(name(key), Value { bytes, expires_ms });
        Ok(())
    }

    async fn swap(&mut self, key: u8, right: bool, value: u8, ttl_ms: Option<u64>) -> TestCaseResult {
        let found = self.kv.get(&name(key)).await.unwrap();
        self.check(key, found.clone())?;
        let version = found.as_ref().map(|entry| entry.version);
        let expected = if right { version } else { Some(version.map_or(7, |version| version + 1)) };
        match self.kv.swap(&name(key), expected, vec![value], ttl_ms).await.unwrap() {
            Swapped::Swapped(version) => {
                prop_assert!(right && version > self.last_version);
                self.last_version = version;
                self.write(key, vec![value], ttl_ms);
            }
            Swapped::Stale(stale) => prop_assert!(!right && stale == found),
        }
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
        checked.step(Step::List { prefix: None, limit: 3 }).await?;
        checked.step(Step::Reopen).await?;
        checked.step(Step::List { prefix: None, limit: 3 }).await
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_store_without_cache_is_a_map(steps in steps()) {
        check(0, steps)?;
    }

    #[test]
    fn a_store_with_a_cache_is_a_map(steps in steps()) {
        check(1 << 20, steps)?;
    }

    #[test]
    fn a_store_with_a_tiny_cache_is_a_map(steps in steps()) {
        check(600, steps)?;
    }
}

#[tokio::test]
async fn a_durable_store_is_a_map_too() {
    let mut checked = Checked::new(0);
    checked.kv = checked.store.kv("model", DURABLE).unwrap();
    for step in 0..40u8 {
        checked.step(Step::Increment { key: step % 5, delta: 1, ttl_ms: None }).await.unwrap();
        checked.step(Step::Get(step % 7)).await.unwrap();
    }
}

//! Key-value stores, and the read–change–swap loop around one value.

use std::cell::OnceCell;

pub use crate::bindings::stores::tollgate::storage::kv::{Entry, Page, SetOptions, Store, Swapped};
pub use crate::bindings::stores::tollgate::storage::types::Error;

/// Attempts of [`update`] before it gives up. Each lost attempt means that another call won, so with the at most some
/// dozens of instances that meet at one key, running out of attempts is the sign of a fault.
const UPDATE_ATTEMPTS: u32 = 64;

/// A store that is opened at the first use and stays open as long as the instance lives. Meant for a `thread_local!`.
pub struct Named {
    name: &'static str,
    store: OnceCell<Store>,
}

impl Named {
    /// A store by the name under which the manifest grants it.
    pub const fn new(name: &'static str) -> Self {
        Named { name, store: OnceCell::new() }
    }

    /// The open store.
    pub fn get(&self) -> Result<&Store, String> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Store::open(self.name).map_err(|error| self.explain(&error))?;
        Ok(self.store.get_or_init(|| store))
    }

    /// An error of this store as text for a log.
    pub fn explain(&self, error: &Error) -> String {
        format!("kv store {}: {}", self.name, explain(error))
    }
}

/// An error as text for a log.
pub fn explain(error: &Error) -> String {
    match error {
        Error::AccessDenied => "access denied".to_owned(),
        Error::NoSuchStore => "no such store".to_owned(),
        Error::Conflict => "a concurrent change won".to_owned(),
        Error::TooLarge(text) => format!("too large: {text}"),
        Error::Invalid(text) => format!("invalid: {text}"),
        Error::Unavailable(text) => format!("unavailable: {text}"),
    }
}

/// The part of a store that [`update`] needs; tests put a map behind it.
pub trait Versioned {
    /// See [`Store::read`].
    fn read(&self, key: &str) -> Result<Option<Entry>, Error>;
    /// See [`Store::swap`].
    fn swap(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, Error>;
}

impl Versioned for Store {
    fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        Store::read(self, key)
    }

    fn swap(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, Error> {
        Store::swap(self, key, expected, value, ttl_ms)
    }
}

/// What [`update`] is to do with the value it gave.
pub enum Change<T> {
    /// Leave the value and answer.
    Keep(T),
    /// Write a value, which expires after this many milliseconds, and answer.
    Write {
        /// The new value.
        value: Vec<u8>,
        /// Milliseconds until the key is absent.
        ttl_ms: u64,
        /// What `update` returns once the value is written.
        answer: T,
    },
}

/// Changes one value atomically: gives the present one to `change` and swaps in what it makes of it, again from the
/// start whenever another call was faster.
pub fn update<T>(
    store: &impl Versioned,
    key: &str,
    mut change: impl FnMut(Option<Vec<u8>>) -> Result<Change<T>, String>,
) -> Result<T, String> {
    let mut current = store.read(key).map_err(|error| explain(&error))?;
    for _ in 0..UPDATE_ATTEMPTS {
        let (value, expected) = current.map(|entry| (entry.value, entry.version)).unzip();
        match change(value)? {
            Change::Keep(answer) => return Ok(answer),
            Change::Write { value, ttl_ms, answer } => {
                match store.swap(key, expected, &value, Some(ttl_ms)).map_err(|error| explain(&error))? {
                    Swapped::Swapped(_) => return Ok(answer),
                    Swapped::Stale(entry) => current = entry,
                }
            }
        }
    }
    Err(format!("lost {UPDATE_ATTEMPTS} races for one key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// A value that somebody else changes before the first `disturbances` swaps.
    struct Contended {
        entry: RefCell<Option<Entry>>,
        disturbances: Cell<u32>,
    }

    impl Versioned for Contended {
        fn read(&self, _: &str) -> Result<Option<Entry>, Error> {
            Ok(self.entry.borrow().clone())
        }

        fn swap(
            &self,
            _: &str,
            expected: Option<u64>,
            value: &[u8],
            _: Option<u64>,
        ) -> Result<Swapped, Error> {
            let mut entry = self.entry.borrow_mut();
            let version = entry.as_ref().map_or(0, |entry| entry.version);
            if self.disturbances.get() > 0 {
                self.disturbances.set(self.disturbances.get() - 1);
                let byte = entry.as_ref().map_or(0, |entry| entry.value[0]);
                *entry = Some(Entry { value: vec![byte + 1], version: version + 1 });
            }
            if entry.as_ref().map(|entry| entry.version) != expected {
                return Ok(Swapped::Stale(entry.clone()));
            }
            *entry = Some(Entry { value: value.to_vec(), version: version + 1 });
            Ok(Swapped::Swapped(version + 1))
        }
    }

    fn add_one(store: &Contended) -> Result<u8, String> {
        update(store, "key", |value| {
            let next = value.map_or(0, |value| value[0]) + 1;
            Ok(Change::Write { value: vec![next], ttl_ms: 1, answer: next })
        })
    }

    #[test]
    fn a_lost_race_is_run_again_on_the_new_value() {
        let store = Contended { entry: RefCell::new(None), disturbances: Cell::new(3) };
        assert_eq!(add_one(&store), Ok(4));
    }

    #[test]
    fn races_lost_without_end_become_an_error() {
        let store = Contended { entry: RefCell::new(None), disturbances: Cell::new(u32::MAX) };
        assert_eq!(add_one(&store), Err("lost 64 races for one key".to_owned()));
    }
}

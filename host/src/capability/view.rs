//! What all capabilities share: which stores a plugin may open, and what one call sees of the instance.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use wasmtime::component::{HasData, Resource, ResourceTable};

use super::Budget;
use crate::plugin::Limit;
use crate::plugin::bindings::imports::tollgate::storage::types::Error;
use crate::plugin::limits::{HANDLES, LIST_ITEMS};

/// The stores of one kind that one plugin may open, by name. `O` is such a store as a guest opens it.
pub(crate) struct Openable<O> {
    granted: BTreeMap<String, O>,
    known: BTreeSet<String>,
}

impl<O> Openable<O> {
    /// Narrows each store to its grant. The error is the name of a store that there is not.
    pub(crate) fn new<S, A>(
        stores: &BTreeMap<String, S>,
        grants: &BTreeMap<String, A>,
        narrow: impl Fn(&str, &S, &A) -> O,
    ) -> Result<Openable<O>, String> {
        let open = |(name, access): (&String, &A)| {
            let store = stores.get(name).ok_or_else(|| name.clone())?;
            Ok((name.clone(), narrow(name, store, access)))
        };
        Ok(Openable {
            granted: grants.iter().map(open).collect::<Result<_, String>>()?,
            known: stores.keys().cloned().collect(),
        })
    }
}

/// The host's side of one call: the stores that may be opened, the open handles, what is left of the budget.
pub(crate) struct View<'a, O> {
    pub(super) openable: &'a Openable<O>,
    pub(super) table: &'a mut ResourceTable,
    pub(super) budget: &'a mut Budget,
}

/// Says to the engine that host functions get a [`View`].
pub(super) struct HasView<O>(PhantomData<O>);

impl<O: 'static> HasData for HasView<O> {
    type Data<'a> = View<'a, O>;
}

impl<'a, O: Clone + Send + 'static> View<'a, O> {
    /// Opens a store by name.
    pub(super) fn open_named(&mut self, name: &str) -> Result<Resource<O>, Error> {
        self.call(name.len())?;
        let store = self.named(name)?;
        self.push(store.clone())
    }

    /// The store of this name, within a call that has been counted.
    pub(super) fn named(&self, name: &str) -> Result<&'a O, Error> {
        let openable = self.openable;
        openable.granted.get(name).ok_or_else(|| {
            self.budget.hit(Limit::Grant);
            if openable.known.contains(name) { Error::AccessDenied } else { Error::NoSuchStore }
        })
    }

    /// The store behind a handle, for a call that brings so many bytes.
    pub(super) fn opened(&mut self, handle: &Resource<O>, bytes: usize) -> Result<(&O, &Budget), Error> {
        self.call(bytes)?;
        let open = self.table.get(handle).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok((open, self.budget))
    }

    /// A handle for the guest.
    pub(super) fn push<R: Send + 'static>(&mut self, resource: R) -> Result<Resource<R>, Error> {
        self.table.push(resource).map_err(|_| {
            self.budget.hit(Limit::Handles);
            Error::TooLarge(format!("an instance may have {HANDLES} handles open"))
        })
    }

    /// Takes a host call that brings so many bytes from the budget.
    pub(super) fn call(&mut self, bytes: usize) -> Result<(), Error> {
        self.budget.call(bytes).map_err(Error::TooLarge)
    }

    /// Takes bytes that are about to be answered from the budget.
    pub(super) fn answer(&mut self, bytes: usize) -> Result<(), Error> {
        self.budget.answer(bytes).map_err(Error::TooLarge)
    }

    /// Refuses lists that are too long; it counts as a call that brings so many bytes.
    pub(super) fn check_items(&mut self, items: usize, bytes: usize) -> Result<(), Error> {
        if items <= LIST_ITEMS {
            return Ok(());
        }
        self.call(bytes)?;
        self.budget.hit(Limit::Size);
        Err(Error::TooLarge(format!("a list may have {LIST_ITEMS} items")))
    }
}

/// Refuses what only a grant of writing allows.
pub(super) fn check_write(budget: &Budget, write: bool) -> Result<(), Error> {
    if write {
        return Ok(());
    }
    budget.hit(Limit::Grant);
    Err(Error::AccessDenied)
}

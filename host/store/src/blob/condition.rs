//! Preconditions, as HTTP has them.

use super::{BlobError, limits::ETAGS};

/// Entity tags that a precondition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Etags {
    /// Those of any object (`*`).
    Any,
    /// One of these.
    Of(Vec<String>),
}

/// What has to hold for the object under a key. Both parts, if both are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// There is an object with such a tag.
    pub if_match: Option<Etags>,
    /// There is no object with such a tag; with `Any`: no object at all.
    pub if_none_match: Option<Etags>,
}

/// Which part of a precondition does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// `if_match`.
    Match,
    /// `if_none_match`: the object is the one that the caller has already.
    NoneMatch,
}

impl Precondition {
    /// Holds when there is no object.
    pub fn absent() -> Self {
        Self { if_match: None, if_none_match: Some(Etags::Any) }
    }

    /// Holds when the object has this tag.
    pub fn etag(etag: &str) -> Self {
        Self { if_match: Some(Etags::Of(vec![etag.to_owned()])), if_none_match: None }
    }

    /// The part that does not hold for an object with this tag (none: for no object).
    pub fn unmet(&self, present: Option<&str>) -> Option<Unmet> {
        if self.if_match.as_ref().is_some_and(|etags| !etags.have(present)) {
            return Some(Unmet::Match);
        }
        self.if_none_match.as_ref().is_some_and(|etags| etags.have(present)).then_some(Unmet::NoneMatch)
    }

    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn check(&self) -> Result<(), BlobError> {
        let lists = [&self.if_match, &self.if_none_match].into_iter().flatten();
        if lists.into_iter().any(|etags| matches!(etags, Etags::Of(list) if list.len() > ETAGS)) {
            return Err(BlobError::TooLarge(format!("a precondition names at most {ETAGS} entity tags")));
        }
        Ok(())
    }
}

impl Etags {
    fn have(&self, present: Option<&str>) -> bool {
        match (self, present) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(list), Some(present)) => list.iter().any(|etag| etag == present),
        }
    }
}

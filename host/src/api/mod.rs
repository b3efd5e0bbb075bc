//! What the admin API and the data API have in common: the shape of errors, how requests are read, values in JSON, bodies
//! that are sent piece by piece.

pub(crate) mod error;
pub(crate) mod extract;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod list;
pub(crate) mod openapi;
pub(crate) mod sent;
pub(crate) mod told;
pub(crate) mod values;

//! `/api/blob/{container}`: objects as streams both ways.

mod get;
mod headers;
mod list;
mod multipart;
mod put;
mod uploads;

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Mutex;
use tollgate_store::Container;
use utoipa::IntoParams;

use super::guard::Token;
use super::{Data, named};
use crate::api::error::ApiError;
use crate::plugin::Access;
use crate::tokens::Keyed;

// Each with what `routes!` needs of it: the document stands beside the handler.
pub(super) use get::{__path_get, __path_head, get, head};
pub(super) use list::{__path_list, list};
pub(super) use put::{__path_delete, __path_post, __path_put, delete, post, put};
pub(super) use uploads::{__path_uploads, uploads};

pub use multipart::sweep;

/// A container, and what there is of uploads in parts to it.
#[derive(Clone)]
pub struct Blob {
    /// The objects.
    pub objects: Container,
    /// Parts that are not an object yet, in a container that nobody else can name.
    pub parts: Container,
    /// Held while an upload in parts begins, so that they are counted exactly.
    beginning: Arc<Mutex<()>>,
}

impl Blob {
    /// A container with that of its parts.
    pub fn new(objects: Container, parts: Container) -> Blob {
        Blob { objects, parts, beginning: Arc::default() }
    }
}

/// Which step of an upload in parts a request is; without them it is about the object itself.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Step {
    /// The id of an upload in parts.
    upload: Option<String>,
    /// The number of a part, 1 to 10,000.
    #[param(minimum = 1, maximum = 10000)]
    part: Option<u32>,
}

/// The container, for a token with a scope that goes so far, and covers this key.
fn container<'a>(
    data: &'a Data,
    token: &Token,
    name: &str,
    access: Access,
    key: &str,
) -> Result<&'a Blob, ApiError> {
    token.scopes.keyed(Keyed::Blob, name, access)?.key(key)?;
    named(&data.stores.blob, "blob container", name)
}

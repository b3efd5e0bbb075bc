//! Vectors: the nearest of many, in named indexes.
//!
//! The file has the truth: ids, records (namespace, metadata) and values, each vector in a numbered *slot* that is never
//! used twice. Memory has a *code* of each vector, its values rounded to bytes, beside what filters ask for. A query scans
//! the codes, or has a *graph* lead it to the nearest when there are many, and compares the vectors that may be nearest, as
//! far as rounding can tell, by their values. Changes are the committer's: it brings them into memory before the commit that
//! makes them count, and out again after it. The graph follows behind, and what is not in it yet is scanned.

mod block;
mod change;
mod check;
mod code;
mod filter;
mod graph;
mod index;
#[expect(unsafe_code, reason = "vector instructions")]
mod kernel;
pub mod limits;
mod memory;
mod metadata;
mod metric;
pub(crate) mod open;
mod recall;
mod rows;
mod search;
mod shortlist;
mod space;

use thiserror::Error;

use self::limits::{DIMENSIONS, EXACT_UP_TO, INDEXED, PROPERTY_BYTES, VECTORS, VECTORS_MOST};
pub(crate) use self::{
    change::{Touched, VectorChange},
    check::report,
    rows::create_tables,
};
pub use self::{check::VectorReport, index::Index, metric::Metric, search::ReturnMetadata};
use crate::{
    StorageError,
    commit::{CommitError, ended},
};

/// What an index takes. Its dimensions and metric stay as they are from its first vector on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorOptions {
    /// Values of each vector, 1 to 4,096.
    pub dimensions: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// Properties of the metadata that filters can ask about, such as `kind` or `size.width`.
    pub indexed: Vec<String>,
    /// Vectors at most.
    pub vectors: u64,
    /// With more vectors than this queries find nearly all of the nearest instead of all, in much less time, by a graph.
    pub exact_up_to: u64,
}

impl VectorOptions {
    /// For vectors of so many dimensions: cosine, nothing indexed.
    pub fn new(dimensions: usize) -> Self {
        let (vectors, exact_up_to) = (VECTORS, EXACT_UP_TO);
        Self { dimensions, metric: Metric::default(), indexed: Vec::new(), vectors, exact_up_to }
    }

    /// Whether an index can have them.
    pub fn check(&self) -> Result<(), VectorError> {
        if !(1..=DIMENSIONS).contains(&self.dimensions) {
            return Err(VectorError::Invalid(format!("an index has 1 to {DIMENSIONS} dimensions")));
        }
        if self.vectors > VECTORS_MOST {
            return Err(VectorError::Invalid(format!("an index has at most {VECTORS_MOST} vectors")));
        }
        if self.indexed.len() > INDEXED {
            return Err(VectorError::Invalid(format!("at most {INDEXED} properties are indexed")));
        }
        for (position, name) in self.indexed.iter().enumerate() {
            if name.len() > PROPERTY_BYTES {
                return Err(VectorError::Invalid(format!("a property has at most {PROPERTY_BYTES} bytes")));
            }
            let wrong = |error| VectorError::Invalid(format!("indexed property {name:?}: {error}"));
            name.split('.').try_for_each(metadata::check_name).map_err(wrong)?;
            if self.indexed.iter().take(position).any(|before| before == name) {
                return Err(VectorError::Invalid(format!("indexed property {name:?} is there twice")));
            }
        }
        Ok(())
    }
}

/// Why a call failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VectorError {
    /// An id, list or metadata is over its limit, or the index is full; the text names the limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// A vector with this id is there already; nothing has changed.
    #[error("vector {0:?} is there already")]
    Conflict(String),
    /// There is no vector with this id to search by.
    #[error("there is no vector {0:?}")]
    Absent(String),
    /// The call itself is wrong.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The store cannot answer now; nothing is known to have changed.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The disk failed or the store is closed; what a write changed is not known.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<CommitError> for VectorError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::TooLarge(text) => Self::TooLarge(text),
            CommitError::Invalid(text) => Self::Invalid(text),
            CommitError::Unavailable(text) => Self::Unavailable(text),
            CommitError::Storage(error) => Self::Storage(error),
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// A vector with what belongs to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vector {
    /// Its name, 1 to 512 bytes; one for the whole index, whatever the namespace.
    pub id: String,
    /// As many finite numbers as the index has dimensions.
    pub values: Vec<f32>,
    /// The part of the index that it is in.
    pub namespace: Option<String>,
    /// A JSON object.
    pub metadata: Option<String>,
}

/// What a query compares with.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// These values.
    Values(Vec<f32>),
    /// The values of this vector, which may itself be a match.
    Id(String),
}

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorQuery {
    /// What to compare with.
    pub target: Target,
    /// Matches at most, 1 to 100.
    pub top_k: usize,
    /// Only vectors of this namespace; none: all.
    pub namespace: Option<String>,
    /// Only vectors with such metadata: a JSON object of indexed properties and what they must be, for example
    /// `{"kind": "image", "size.width": {"$gte": 100}}`.
    pub filter: Option<String>,
    /// Answer the values of matches.
    pub return_values: bool,
    /// What of the metadata of matches is answered.
    pub return_metadata: ReturnMetadata,
}

impl VectorQuery {
    /// For the ids of the ten nearest.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            top_k: 10,
            namespace: None,
            filter: None,
            return_values: false,
            return_metadata: ReturnMetadata::None,
        }
    }
}

/// A vector that a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorMatch {
    /// Its id.
    pub id: String,
    /// By the metric: the cosine, the dot product, or the distance.
    pub score: f64,
    /// The part of the index that it is in.
    pub namespace: Option<String>,
    /// Its values, if asked.
    pub values: Option<Vec<f32>>,
    /// Its metadata as JSON, as far as asked.
    pub metadata: Option<String>,
}

/// What an index has.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorInfo {
    /// Values of each vector.
    pub dimensions: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// Vectors.
    pub vectors: u64,
    /// Bytes of their values in the file.
    pub value_bytes: u64,
    /// Bytes in memory, those of the graph too.
    pub memory_bytes: u64,
    /// Vectors that queries find by the graph; the others they compare all. 0: there is no graph.
    pub graph_vectors: u64,
    /// The share of the nearest vectors that queries found, in samples since the store was opened; none: no query yet.
    pub recall: Option<f64>,
}

/// Changes of an index, to be part of a joint commit.
#[derive(Debug)]
pub struct PreparedVectors {
    pub(crate) index: Index,
    pub(crate) change: VectorChange,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VectorError> + Send + 'static,
) -> Result<T, VectorError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(&error).into()))
}

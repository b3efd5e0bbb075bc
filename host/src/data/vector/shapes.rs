//! Vectors, queries and answers, as they are in JSON. Metadata and filters stay text: the store reads them, within its bounds.

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use tollgate_store::vector::limits::{DIMENSIONS, GET_IDS, LIST_ITEMS};
use tollgate_store::{ReturnMetadata, Target, Vector, VectorInfo, VectorMatch, VectorOptions, VectorQuery};
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::list::bounded;

/// What to do with an index.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[schema(as = VectorCall)]
pub(in crate::data) enum Call {
    /// Finds the nearest vectors.
    Query(Query),
    /// Reads up to 100 vectors by their ids; absent ones are left out.
    #[serde(deserialize_with = "get_ids")]
    Get(Vec<String>),
    /// Writes up to 1,000 vectors; one whose id is there already replaces it whole.
    #[serde(deserialize_with = "vectors")]
    Upsert(Vec<NewVector>),
    /// Writes up to 1,000 vectors whose ids are not there yet.
    #[serde(deserialize_with = "vectors")]
    Insert(Vec<NewVector>),
    /// Removes up to 1,000 vectors by their ids; absent ones are no error.
    #[serde(deserialize_with = "delete_ids")]
    Delete(Vec<String>),
}

fn get_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    bounded(from, GET_IDS, |number| format!("get[{number}]"))
}

fn delete_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    bounded(from, LIST_ITEMS, |number| format!("delete[{number}]"))
}

fn vectors<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NewVector>, D::Error> {
    bounded(from, LIST_ITEMS, |number| format!("vectors[{number}]"))
}

fn values<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
    bounded(from, DIMENSIONS, |number| format!("values[{number}]"))
}

fn some_values<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<f32>>, D::Error> {
    values(from).map(Some)
}

/// A vector to be written.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewVector)]
pub(in crate::data) struct NewVector {
    /// Its name, 1 to 512 bytes, one for the whole index.
    id: String,
    /// As many numbers as the index has dimensions.
    #[serde(deserialize_with = "values")]
    values: Vec<f32>,
    /// The part of the index that it is in.
    namespace: Option<String>,
    /// What belongs to it, at most 10 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
}

impl From<NewVector> for Vector {
    fn from(vector: NewVector) -> Self {
        let NewVector { id, values, namespace, metadata } = vector;
        Self { id, values, namespace, metadata: metadata.map(text) }
    }
}

/// What to look for: what is near `values`, or near the vector `id`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VectorQuery)]
pub(in crate::data) struct Query {
    /// As many numbers as the index has dimensions.
    #[serde(default, deserialize_with = "some_values")]
    #[schema(nullable = false)]
    values: Option<Vec<f32>>,
    /// The id of a vector, which is a match itself.
    id: Option<String>,
    /// Matches at most; left out: 10.
    #[schema(minimum = 1, maximum = 100)]
    top_k: Option<u32>,
    /// Only vectors of this namespace.
    namespace: Option<String>,
    /// Only vectors with such metadata: indexed properties and what they must be, such as
    /// `{"kind": "image", "size.width": {"$gte": 100}}`.
    #[schema(value_type = Option<Object>)]
    filter: Option<Box<RawValue>>,
    /// Answer the values of matches.
    #[serde(default)]
    return_values: bool,
    /// What of the metadata of matches is answered.
    #[serde(default)]
    return_metadata: Returned,
}

/// What of the metadata of matches is answered.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ReturnMetadata)]
enum Returned {
    #[default]
    None,
    Indexed,
    All,
}

impl Query {
    /// The query as the store takes it.
    pub(super) fn checked(self) -> Result<VectorQuery, ApiError> {
        let target = match (self.values, self.id) {
            (Some(values), None) => Target::Values(values),
            (None, Some(id)) => Target::Id(id),
            _ => return Err(ApiError::invalid("`query`: give either `values` or `id`")),
        };
        let mut query = VectorQuery::new(target);
        if let Some(top_k) = self.top_k {
            query.top_k = usize::try_from(top_k).unwrap_or(usize::MAX);
        }
        query.namespace = self.namespace;
        query.filter = self.filter.map(text);
        query.return_values = self.return_values;
        query.return_metadata = match self.return_metadata {
            Returned::None => ReturnMetadata::None,
            Returned::Indexed => ReturnMetadata::Indexed,
            Returned::All => ReturnMetadata::All,
        };
        Ok(query)
    }
}

/// What was found or done.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = VectorDone)]
pub(in crate::data) enum Done {
    /// The nearest vectors, nearest first.
    Matches(Vec<Match>),
    /// The vectors asked for, in that order.
    Vectors(Vec<Found>),
    /// How many vectors were written.
    Written(usize),
    /// How many vectors there were to remove.
    Deleted(usize),
}

/// A vector that a query found.
#[derive(Serialize, ToSchema)]
#[schema(as = VectorMatch)]
pub(in crate::data) struct Match {
    id: String,
    /// By the index's metric: the cosine, the dot product, or the distance.
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    namespace: Option<String>,
    /// If asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    values: Option<Vec<f32>>,
    /// As far as asked.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "json")]
    #[schema(value_type = Object, required = false)]
    metadata: Option<String>,
}

/// A vector that is there.
#[derive(Serialize, ToSchema)]
#[schema(as = Vector)]
pub(in crate::data) struct Found {
    id: String,
    values: Vec<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "json")]
    #[schema(value_type = Object, required = false)]
    metadata: Option<String>,
}

impl Done {
    pub(super) fn matches(found: Vec<VectorMatch>) -> Self {
        let one = |found| {
            let VectorMatch { id, score, namespace, values, metadata } = found;
            Match { id, score, namespace, values, metadata }
        };
        Self::Matches(found.into_iter().map(one).collect())
    }

    pub(super) fn vectors(found: Vec<Vector>) -> Self {
        let one = |Vector { id, values, namespace, metadata }| Found { id, values, namespace, metadata };
        Self::Vectors(found.into_iter().map(one).collect())
    }
}

/// What an index takes, and what is in it.
#[derive(Serialize, ToSchema)]
#[schema(as = VectorInfo)]
pub(in crate::data) struct Info {
    /// Values of each vector.
    dimensions: usize,
    /// How vectors are compared: `cosine`, `dot-product` or `euclidean`.
    metric: &'static str,
    /// Properties of the metadata that filters can ask about.
    indexed: Vec<String>,
    /// Vectors at most.
    vector_limit: u64,
    /// Vectors.
    vectors: u64,
    /// Bytes of their values in the file.
    value_bytes: u64,
    /// Bytes in memory.
    memory_bytes: u64,
    /// Vectors that queries find by the graph, which an index has above `exact_up_to`; they compare the others all.
    graph_vectors: u64,
    /// The share of the nearest vectors that queries found, in samples since the start; null: no query yet.
    recall: Option<f64>,
}

impl Info {
    pub(super) fn new(options: &VectorOptions, info: &VectorInfo) -> Self {
        Self {
            dimensions: info.dimensions,
            metric: info.metric.name(),
            indexed: options.indexed.clone(),
            vector_limit: options.vectors,
            vectors: info.vectors,
            value_bytes: info.value_bytes,
            memory_bytes: info.memory_bytes,
            graph_vectors: info.graph_vectors,
            recall: info.recall,
        }
    }
}

fn text(raw: Box<RawValue>) -> String {
    Box::<str>::from(raw).into_string()
}

/// Metadata as it is stored. It was read when it was written, so only damage can make this fail.
#[expect(clippy::ref_option, reason = "serde calls it so")]
fn json<S: Serializer>(metadata: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    let damaged = |error| S::Error::custom(format!("the metadata of a vector is damaged: {error}"));
    let raw: Option<&RawValue> =
        metadata.as_deref().map(serde_json::from_str).transpose().map_err(damaged)?;
    raw.serialize(to)
}

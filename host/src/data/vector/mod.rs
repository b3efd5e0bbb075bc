//! `/api/vector/{index}`: vectors, and which of them are nearest.

mod shapes;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json as Answer};
use tollgate_store::{Index, VectorError};

use super::body::turn;
use super::guard::Token;
use super::limits::JSON_BYTES;
use super::{Data, Shared, named};
use crate::api::error::ApiError;
use crate::api::extract::Segments;
use crate::plugin::Access;
use shapes::{Call, Done, Info, NewVector};

/// The index, for a token with a scope that goes so far.
fn index<'a>(data: &'a Data, token: &Token, name: &str, access: Access) -> Result<&'a Index, ApiError> {
    token.scopes.vector(name, access)?;
    named(&data.stores.vector, "vector index", name)
}

/// What an index takes, and what is in it.
#[utoipa::path(get, path = "/vector/{index}", responses((status = 200, body = Info)))]
pub(super) async fn describe(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments(name): Segments<String>,
) -> Result<Answer<Info>, ApiError> {
    let index = index(&data, &token, &name, Access::Read)?;
    Ok(Answer(Info::new(index.options(), &index.describe().await?)))
}

/// Searches, reads, writes or removes vectors: `{"query": {…}}`, `{"get": […]}`, `{"upsert": […]}`, `{"insert": […]}` or
/// `{"delete": […]}`.
///
/// What was written is on disk, and found, when it is answered; of one call all is written or nothing.
#[utoipa::path(post, path = "/vector/{index}", request_body = Call, responses((status = 200, body = Done)))]
pub(super) async fn call(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments(name): Segments<String>,
    body: Body,
) -> Result<Response, ApiError> {
    // The scope first: who has none does not send a body for nothing.
    index(&data, &token, &name, Access::Read)?;
    let body = data.memory.whole(body, JSON_BYTES).await?;
    // Before the body is read: so many calls have vectors.
    let place = turn(data.vector_calls.clone().acquire_owned()).await?;
    let (call, share) = data.memory.parse::<Call>(body).await?;
    let reach = |access| index(&data, &token, &name, access);
    let done = match call {
        Call::Query(query) => Done::matches(reach(Access::Read)?.query(query.checked()?).await?),
        Call::Get(ids) => Done::vectors(reach(Access::Read)?.get_by_ids(&ids).await?),
        Call::Upsert(vectors) => {
            let index = reach(Access::ReadWrite)?;
            let count = vectors.len();
            index.upsert(vectors.into_iter().map(NewVector::into).collect()).await?;
            Done::Written(count)
        }
        Call::Insert(vectors) => {
            let index = reach(Access::ReadWrite)?;
            let count = vectors.len();
            index.insert(vectors.into_iter().map(NewVector::into).collect()).await?;
            Done::Written(count)
        }
        Call::Delete(ids) => Done::Deleted(reach(Access::ReadWrite)?.delete_by_ids(&ids).await?),
    };
    data.answers.json(done, (place, share)).await
}

impl From<VectorError> for ApiError {
    fn from(error: VectorError) -> Self {
        let message = error.to_string();
        match error {
            VectorError::TooLarge(_) => Self::too_large(message),
            VectorError::Conflict(_) => Self::conflict(message),
            VectorError::Absent(_) => Self::not_found(message),
            VectorError::Invalid(_) => Self::invalid(message),
            VectorError::Unavailable(_) | VectorError::Storage(_) => Self::unavailable(message),
        }
    }
}

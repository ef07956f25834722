//! What a request holds, read strictly: unknown parameters and fields are mistakes that are told, not passed over.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The query of a URL.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(params) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection: QueryRejection| Problem::wrong("query", rejection.body_text()).next("see /api/v1/openapi.json"))?;
        Ok(Self(params))
    }
}

/// The parts of a path.
pub(super) struct Of<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Of<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(found) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::wrong("path", rejection.body_text()).next("see /api/v1/openapi.json"))?;
        Ok(Self(found))
    }
}

/// A body of JSON.
pub(super) struct Sent<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(sent) = Json::from_request(request, state).await.map_err(|rejection: JsonRejection| {
            Problem::body(rejection.status(), rejection.body_text()).next("send a JSON object as /api/v1/openapi.json has it")
        })?;
        Ok(Self(sent))
    }
}

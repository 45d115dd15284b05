//! Reading bodies, paths and queries. What cannot be read is answered 400 `bad-request` with the reason.

use axum::{
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};

use crate::{HttpError, label, objects::read_json};

/// A JSON body, whatever its content type says; and a JSON answer. What is an object in the type is read from an object
/// alone.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

/// Reads a body whole, within the limit that the route sets.
pub async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, HttpError> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => label::TOO_LARGE.into(),
        _ => label::INVALID_COMPRESSION.into(),
    })
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        let body = body(request, state).await?;
        read_json(&body).map(Self).map_err(|error| bad_json(&error))
    }
}

/// A body that may be left out.
impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, HttpError> {
        let body = body(request, state).await?;
        if body.is_empty() {
            return Ok(None);
        }
        read_json(&body).map(|body| Some(Self(body))).map_err(|error| bad_json(&error))
    }
}

/// Says where a JSON body is wrong without repeating what it holds: serde's texts quote values.
fn bad_json(error: &serde_json::Error) -> HttpError {
    let what = match error.classify() {
        serde_json::error::Category::Data => "has a missing field or a value of the wrong kind",
        _ => "is not JSON",
    };
    let text = format!("The body {what} at line {}, column {}", error.line(), error.column());
    HttpError::with_message(label::BAD_REQUEST, text)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
            Err(error) => {
                tracing::error!(%error, "answer cannot be written as JSON");
                label::SERVER_ERROR.into_response()
            }
        }
    }
}

/// Path parameters.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|_| HttpError::with_message(label::BAD_REQUEST, "The path holds a malformed id or domain"))
    }
}

/// Query parameters.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|_| {
            HttpError::with_message(label::BAD_REQUEST, "The query holds a malformed or missing parameter")
        })
    }
}

//! Who is calling.

use aldis_types::{ClientId, ConnId, UserId};
use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use http::{header, request::Parts};
use serde::Deserialize;

use crate::{HttpError, TokenVerifier, label};

/// An authenticated session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Whose session it is.
    pub user: UserId,
    /// The client that the session was bound to, once it was.
    pub client: Option<ClientId>,
    /// Names the session's sockets; an event that the session causes is not pushed to them.
    pub connection: ConnId,
    /// When the token expires, in seconds since 1970; `None`: never.
    pub expires: Option<i64>,
}

/// The caller of a route that needs an access token; missing, expired and invalid ones are answered 401.
#[derive(Debug, Clone, Copy)]
pub struct UserCaller(pub Session);

impl std::ops::Deref for UserCaller {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

#[derive(Deserialize)]
struct TokenQuery {
    access_token: Option<String>,
}

/// The access token of a request: `Authorization: Bearer`, else the query parameter `access_token`.
pub fn access_token(parts: &Parts) -> Option<String> {
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let value = value.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    axum::extract::Query::<TokenQuery>::try_from_uri(&parts.uri).ok()?.0.access_token
}

/// Seconds since 1970.
pub fn now_seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

impl<S> FromRequestParts<S> for UserCaller
where
    TokenVerifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let token = access_token(parts).ok_or(label::INVALID_TOKEN_401)?;
        let session =
            TokenVerifier::from_ref(state).verify(&token, now_seconds()).map_err(|_| label::INVALID_TOKEN_401)?;
        tracing::Span::current().record("user.id", tracing::field::display(session.user));
        Ok(Self(session))
    }
}

impl<S> OptionalFromRequestParts<S> for UserCaller
where
    TokenVerifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, HttpError> {
        Ok(<Self as FromRequestParts<S>>::from_request_parts(parts, state).await.ok())
    }
}

/// The API version of a request, set where the `/vN` prefix is taken off; the lowest when there is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u8);

impl ApiVersion {
    /// The lowest version that we speak.
    pub const MIN: Self = Self(8);
    /// The highest version that we speak.
    pub const MAX: Self = Self(13);
}

impl<S: Send + Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self::MIN))
    }
}

//! Files in the client API.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use aldis_api::{HttpError, Json, Path, Query, UserCaller, label};
use aldis_types::{AssetKey, Domain, Locality, MediaType, Qualified, Timestamp, UserId};
use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;
use tracing::Instrument;

use super::{Reader, Stored, Upload, multipart::Multipart, range, shown_type};
use crate::{blobs::ByteStream, error::AssetError, routes::App};

const ASSET_TOKEN: HeaderName = HeaderName::from_static("asset-token");
const NO_SNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));

/// Answer to an upload.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Asset")]
pub(crate) struct StoredJson {
    key: AssetKey,
    domain: Domain,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

/// A token that replaces others.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NewAssetToken")]
pub(crate) struct TokenJson {
    token: String,
}

/// The token in the query; whatever else apps put there is ignored.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct TokenQuery {
    asset_token: Option<String>,
}

/// What an answer says about a file.
pub(crate) struct Shown<'a> {
    pub(crate) media_type: &'a MediaType,
    pub(crate) size: u64,
    pub(crate) sha256: &'a [u8; 32],
}

/// `POST /assets`: 201; 400 `client-error`, `invalid-length`, `incomplete-body`; 403 `asset-not-allowed`; 408; 413;
/// 415; 503 when too many uploads are under way.
#[tracing::instrument(name = "http.assets.upload", skip_all)]
pub(crate) async fn upload(
    State(app): State<App>,
    caller: UserCaller,
    request: Request,
) -> Result<Response, HttpError> {
    let is_mixed =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|text| {
            text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("multipart/mixed")
        });
    if !is_mixed {
        return Err(AssetError::MediaType.into());
    }
    let place = app.uploads.clone().try_acquire_owned().map_err(|_| AssetError::Busy)?;
    let (domain, user) = (app.domain.clone(), caller.user);
    // A task of its own: when the client goes away, what it has sent is still removed in good order.
    let receiving = async move {
        let _place = place;
        receive(app, user, request.into_body()).await
    };
    let task = tokio::spawn(receiving.in_current_span());
    let Stored { key, token, expires } = task.await.map_err(|error| {
        tracing::error!(%error, "a task that stores an asset failed");
        HttpError::from(label::SERVER_ERROR)
    })??;
    let location = HeaderValue::try_from(format!("/assets/{key}")).map_err(|_| label::SERVER_ERROR)?;
    let body = Json(StoredJson { key, domain, token, expires });
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

async fn receive(app: App, owner: UserId, body: Body) -> Result<Stored, AssetError> {
    let mut body = Multipart::open(timely(body, app.upload_idle, app.upload_timeout)).await?;
    let description = body.description().await?;
    let data = body.data_headers().await?;
    let conversation = description.conversation();
    let upload = Upload {
        owner,
        retention: description.retention.unwrap_or_default(),
        public: description.public,
        inner_type: description.file_type.and_then(|text| text.parse().ok()),
        media_type: data.media_type,
        size: data.length,
        md5: data.md5,
    };
    if let (Some(audience), Some(conversation)) = (&app.audience, &conversation) {
        app.assets.admit(&upload)?;
        audience.admit(conversation, &upload).await?;
    }
    let bytes = body.data(upload.size);
    app.assets.upload(upload, bytes).await
}

/// The bytes of a body, as long as they keep coming.
fn timely(body: Body, idle: Duration, most: Duration) -> impl Stream<Item = Result<Bytes, AssetError>> + Send {
    let end = Instant::now() + most;
    stream::try_unfold(body.into_data_stream(), move |mut body| async move {
        let until = end.min(Instant::now() + idle);
        match timeout_at(until.into(), body.next()).await {
            Ok(Some(Ok(bytes))) => Ok(Some((bytes, body))),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "an upload broke off");
                Err(AssetError::Incomplete)
            }
            Ok(None) => Ok(None),
            Err(_) => Err(AssetError::TooSlow),
        }
    })
}

/// `GET /assets/{domain}/{key}`: 200, 206, or 302 to the object store; 404 `not-found`, also when the token does not fit;
/// 403 `asset-not-allowed` and the federation labels for files of other backends; 416.
#[tracing::instrument(name = "http.assets.download", skip_all, fields(asset.domain = %domain))]
pub(crate) async fn download(
    State(app): State<App>,
    caller: UserCaller,
    Path((domain, key)): Path<(Domain, AssetKey)>,
    Query(query): Query<TokenQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let token = headers.get(ASSET_TOKEN).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let token = token.or(query.asset_token).filter(|token| !token.is_empty());
    let only_head = method == Method::HEAD;
    match app.domain.locate(Qualified::new(key, domain)) {
        Locality::Local(asset) => {
            let asset = app.assets.find(*asset.id(), Reader::Local(caller.user), token.as_deref()).await?;
            if !only_head && let Some(link) = app.assets.link(&asset).await? {
                return redirect(&link);
            }
            let shown = Shown { media_type: &asset.media_type, size: asset.size, sha256: &asset.sha256 };
            let wanted = wanted(&headers, &shown)?;
            let range = wanted.clone().unwrap_or(0..asset.size);
            let bytes = if only_head { None } else { Some(app.assets.read(&asset, range).await?) };
            answer(&shown, wanted, bytes)
        }
        Locality::Remote(asset) if only_head => {
            let head = app.remotes.check(&asset, caller.user, token.as_deref()).await?;
            let shown = Shown { media_type: &head.media_type, size: head.size, sha256: &head.sha256 };
            answer(&shown, wanted(&headers, &shown)?, None)
        }
        Locality::Remote(asset) => {
            let copy = app.remotes.open(&asset, caller.user, token.as_deref()).await?;
            let head = copy.head().clone();
            let shown = Shown { media_type: &head.media_type, size: head.size, sha256: &head.sha256 };
            let wanted = wanted(&headers, &shown)?;
            let bytes = copy.read(wanted.clone().unwrap_or(0..head.size)).await.map_err(AssetError::from)?;
            answer(&shown, wanted, Some(bytes))
        }
    }
}

fn redirect(link: &str) -> Result<Response, HttpError> {
    let location = HeaderValue::try_from(link).map_err(|_| label::SERVER_ERROR)?;
    let no_store = HeaderValue::from_static("no-store");
    Ok((StatusCode::FOUND, [(header::LOCATION, location), (header::CACHE_CONTROL, no_store)]).into_response())
}

fn entity_tag(sha256: &[u8; 32]) -> String {
    format!("\"{}\"", hex::encode(sha256))
}

/// The range that a request asks for, unless it means another file than this one.
fn wanted(headers: &HeaderMap, shown: &Shown<'_>) -> Result<Option<Range<u64>>, AssetError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|tag| tag != entity_tag(shown.sha256)) {
        return Ok(None);
    }
    range::wanted(text(header::RANGE), shown.size)
}

/// The answer with its length: a body that ends before is broken off, and never looks whole.
fn answer(shown: &Shown<'_>, wanted: Option<Range<u64>>, bytes: Option<ByteStream>) -> Result<Response, HttpError> {
    let status = if wanted.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let range = wanted.clone().unwrap_or(0..shown.size);
    let value = |text: String| HeaderValue::try_from(text).map_err(|_| HttpError::from(label::SERVER_ERROR));
    let mut response = Response::new(bytes.map_or_else(Body::empty, Body::from_stream));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value(shown_type(shown.media_type).to_owned())?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, value(entity_tag(shown.sha256))?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000"));
    headers.insert(NO_SNIFF.0, NO_SNIFF.1);
    if wanted.is_some() {
        headers.insert(
            header::CONTENT_RANGE,
            value(format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), shown.size))?,
        );
    }
    Ok(response)
}

/// `DELETE /assets/{domain}/{key}`: 200; 403 `unauthorised`, 404 `not-found`, 422 for files of other backends.
#[tracing::instrument(name = "http.assets.delete", skip_all)]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: UserCaller,
    Path((domain, key)): Path<(Domain, AssetKey)>,
) -> Result<StatusCode, HttpError> {
    match app.domain.locate(Qualified::new(key, domain)) {
        Locality::Local(asset) => app.assets.delete(*asset.id(), caller.user).await?,
        Locality::Remote(_) => return Err(AssetError::Elsewhere.into()),
    }
    Ok(StatusCode::OK)
}

/// `POST /assets/{key}/token`: 200 with a new token; 403 `unauthorised`, 404 `not-found`.
#[tracing::instrument(name = "http.assets.renew_token", skip_all)]
pub(crate) async fn renew_token(
    State(app): State<App>,
    caller: UserCaller,
    Path(key): Path<AssetKey>,
) -> Result<Json<TokenJson>, HttpError> {
    let token = app.assets.renew_token(key, caller.user).await?;
    Ok(Json(TokenJson { token }))
}

/// `DELETE /assets/{key}/token`: 200, the file is public from now on; 403 `unauthorised`, 404 `not-found`.
#[tracing::instrument(name = "http.assets.drop_token", skip_all)]
pub(crate) async fn drop_token(
    State(app): State<App>,
    caller: UserCaller,
    Path(key): Path<AssetKey>,
) -> Result<StatusCode, HttpError> {
    app.assets.drop_token(key, caller.user).await?;
    Ok(StatusCode::OK)
}

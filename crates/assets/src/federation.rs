//! What other backends may ask about our files. Every caller is a proven origin that our policy admits. Access is by
//! token alone: whoever reads there is never the uploader, whatever id is named.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aldis_api::status;
use aldis_peers::{Origin, Policy};
use aldis_proto::{
    convert::{InvalidWire, user_id},
    federation::v1::{
        AssetAccess, AssetHead, AssetRefused, CheckAssetRequest, CheckAssetResponse, FetchAssetRequest,
        FetchAssetResponse,
        asset_refused::Reason,
        assets_server::{Assets as AssetsRpc, AssetsServer},
        check_asset_response::Outcome,
        fetch_asset_response::Part,
    },
};
use aldis_types::{AssetKey, Domain};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::{
    blobs::ByteStream,
    config::PeersConfig,
    error::AssetError,
    objects::{Assets, Reader, store::Asset, token::MAX_TOKEN_BYTES},
};

/// Largest part of a file in one message.
pub(crate) const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// What we put into one.
const CHUNK_BYTES: usize = 64 * 1024;
/// Largest request.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Parts that wait for the other side.
const AHEAD: usize = 2;
/// Backends whose transfers are counted at once.
const MAX_ORIGINS: usize = 4096;

/// How much each other backend may fetch.
pub(crate) struct Allowance {
    concurrent: usize,
    places: Mutex<HashMap<Domain, Arc<Semaphore>>>,
    bandwidth: Option<DefaultKeyedRateLimiter<Domain>>,
    idle: Duration,
}

impl Allowance {
    pub(crate) fn new(config: &PeersConfig) -> Self {
        let bandwidth = NonZeroU32::new(config.bytes_per_second)
            .map(|rate| RateLimiter::keyed(Quota::per_second(rate).allow_burst(rate)));
        Self {
            concurrent: config.max_concurrent,
            places: Mutex::default(),
            bandwidth,
            idle: Duration::from_secs(config.idle_seconds),
        }
    }

    fn place(&self, origin: &Domain) -> Option<OwnedSemaphorePermit> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MAX_ORIGINS && !places.contains_key(origin) {
            places.retain(|_, place| place.available_permits() < self.concurrent);
        }
        let place = places.entry(origin.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.concurrent)));
        place.clone().try_acquire_owned().ok()
    }

    /// Waits until the origin may have `bytes` more.
    async fn pass(&self, origin: &Domain, bytes: usize) {
        let count = u32::try_from(bytes).ok().and_then(NonZeroU32::new);
        if let (Some(bandwidth), Some(count)) = (&self.bandwidth, count) {
            // A part is never larger than what may be had at once.
            let _ = bandwidth.until_key_n_ready(origin, count).await;
        }
    }

    /// Forgets backends that fetch nothing.
    pub(crate) fn sweep(&self) {
        if let Some(bandwidth) = &self.bandwidth {
            bandwidth.retain_recent();
        }
    }
}

/// What other backends use.
#[derive(Clone)]
pub(crate) struct Federation {
    pub(crate) domain: Domain,
    pub(crate) policy: Policy,
    pub(crate) assets: Assets,
    pub(crate) allowance: Arc<Allowance>,
}

/// What a request asks for.
struct Wanted {
    key: AssetKey,
    token: Option<String>,
}

impl Wanted {
    fn read(access: Option<AssetAccess>) -> Result<Self, InvalidWire> {
        let access = access.ok_or(InvalidWire("access"))?;
        user_id(&access.reader)?;
        if access.token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidWire("token"));
        }
        let key = access.key.parse().map_err(|_| InvalidWire("key"))?;
        Ok(Self { key, token: Some(access.token).filter(|token| !token.is_empty()) })
    }
}

fn refused(reason: Reason) -> AssetRefused {
    AssetRefused { reason: reason.into() }
}

fn head(asset: &Asset, length: u64) -> AssetHead {
    AssetHead {
        size_bytes: asset.size,
        sha256: Bytes::copy_from_slice(&asset.sha256),
        media_type: asset.media_type.as_str().to_owned(),
        expires: asset.expires.map(aldis_types::Timestamp::millis),
        length,
    }
}

fn message(part: Part) -> FetchAssetResponse {
    FetchAssetResponse { part: Some(part) }
}

impl Federation {
    pub(crate) fn server(self) -> AssetsServer<Self> {
        AssetsServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<Origin, Status> {
        self.policy.admit_caller(&self.domain, request)
    }

    async fn find(&self, wanted: &Wanted) -> Result<Option<Asset>, Status> {
        match self.assets.find(wanted.key, Reader::Elsewhere, wanted.token.as_deref()).await {
            Ok(asset) => Ok(Some(asset)),
            Err(AssetError::NotFound) => Ok(None),
            Err(error) => Err(status(&error)),
        }
    }

    /// What answers a request to fetch: the asset and the bytes, or why not.
    async fn begin(&self, request: FetchAssetRequest) -> Result<Result<(Asset, Range<u64>), Reason>, Status> {
        let FetchAssetRequest { access, offset, length } = request;
        let wanted = Wanted::read(access)?;
        let Some(asset) = self.find(&wanted).await? else { return Ok(Err(Reason::NotFound)) };
        if offset >= asset.size {
            return Ok(Err(Reason::OutOfRange));
        }
        let end = if length == 0 { asset.size } else { offset.saturating_add(length).min(asset.size) };
        Ok(Ok((asset, offset..end)))
    }

    /// Gives the bytes to the other side as fast as it takes them and may.
    async fn give(
        self,
        origin: Domain,
        mut bytes: ByteStream,
        parts: mpsc::Sender<Result<FetchAssetResponse, Status>>,
    ) {
        let labels = [("domain", origin.as_str().to_owned())];
        let given = metrics::counter!("aldis_assets_given_bytes_total", &labels);
        while let Some(next) = bytes.next().await {
            let mut next = match next {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, peer.domain = %origin, "an asset cannot be read to its end");
                    let broken = Status::data_loss("the asset cannot be read to its end");
                    let _ = parts.send_timeout(Err(broken), self.allowance.idle).await;
                    return;
                }
            };
            while !next.is_empty() {
                let chunk = next.split_to(next.len().min(CHUNK_BYTES));
                let size = chunk.len();
                self.allowance.pass(&origin, size).await;
                if parts.send_timeout(Ok(message(Part::Chunk(chunk))), self.allowance.idle).await.is_err() {
                    // The reader sees from the length that it does not have all.
                    tracing::debug!(peer.domain = %origin, "a transfer was not taken to its end");
                    return;
                }
                given.increment(size as u64);
            }
        }
    }
}

/// A stream of these parts and nothing more.
fn only(parts: Vec<FetchAssetResponse>) -> BoxStream<'static, Result<FetchAssetResponse, Status>> {
    futures::stream::iter(parts.into_iter().map(Ok)).boxed()
}

/// The parts as they come. A sender that went away before `length` bytes were sent is an error and not an end.
fn until_whole(
    parts: mpsc::Receiver<Result<FetchAssetResponse, Status>>,
    length: u64,
) -> impl Stream<Item = Result<FetchAssetResponse, Status>> {
    futures::stream::unfold((parts, Some(length)), |(mut parts, left)| async move {
        let left = left?;
        match parts.recv().await {
            Some(Ok(part)) => {
                let size = if let Some(Part::Chunk(bytes)) = &part.part { bytes.len() as u64 } else { 0 };
                Some((Ok(part), (parts, Some(left.saturating_sub(size)))))
            }
            Some(Err(status)) => Some((Err(status), (parts, None))),
            None if left == 0 => None,
            None => Some((Err(Status::aborted("the transfer was given up")), (parts, None))),
        }
    })
}

#[tonic::async_trait]
impl AssetsRpc for Federation {
    type FetchStream = BoxStream<'static, Result<FetchAssetResponse, Status>>;

    #[tracing::instrument(name = "grpc.federation.fetch_asset", skip_all)]
    async fn fetch(&self, request: Request<FetchAssetRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let origin = self.admit(&request)?.domain().clone();
        let Some(place) = self.allowance.place(&origin) else {
            return Ok(Response::new(only(vec![message(Part::Refused(refused(Reason::Busy)))])));
        };
        let (asset, range) = match self.begin(request.into_inner()).await? {
            Ok(found) => found,
            Err(reason) => return Ok(Response::new(only(vec![message(Part::Refused(refused(reason)))]))),
        };
        let length = range.end - range.start;
        let bytes = match self.assets.read(&asset, range).await {
            Ok(bytes) => bytes,
            Err(AssetError::NotFound) => {
                return Ok(Response::new(only(vec![message(Part::Refused(refused(Reason::NotFound)))])));
            }
            Err(error) => return Err(status(&error)),
        };
        let labels = [("domain", origin.as_str().to_owned())];
        metrics::counter!("aldis_assets_given_total", &labels).increment(1);
        let (sender, parts) = mpsc::channel(AHEAD);
        let giving = self.clone();
        tokio::spawn(
            async move {
                let _place = place;
                giving.give(origin, bytes, sender).await;
            }
            .in_current_span(),
        );
        let first = only(vec![message(Part::Head(head(&asset, length)))]);
        Ok(Response::new(first.chain(until_whole(parts, length)).boxed()))
    }

    #[tracing::instrument(name = "grpc.federation.check_asset", skip_all)]
    async fn check(&self, request: Request<CheckAssetRequest>) -> Result<Response<CheckAssetResponse>, Status> {
        self.admit(&request)?;
        let CheckAssetRequest { access, sha256 } = request.into_inner();
        if !matches!(sha256.len(), 0 | 32) {
            return Err(InvalidWire("sha256").into());
        }
        let wanted = Wanted::read(access)?;
        let outcome = match self.find(&wanted).await? {
            Some(asset) => Outcome::Head(head(&asset, 0)),
            None => {
                let is_there = !sha256.is_empty()
                    && self.assets.is_there(wanted.key, &sha256).await.map_err(|error| status(&error))?;
                Outcome::Refused(refused(if is_there { Reason::Token } else { Reason::NotFound }))
            }
        };
        Ok(Response::new(CheckAssetResponse { outcome: Some(outcome) }))
    }
}

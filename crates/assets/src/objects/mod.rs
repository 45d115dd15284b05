//! Files that our own users store: who may store which, who may read them, and when they end.

pub(crate) mod audience;
pub(crate) mod http;
pub(crate) mod multipart;
pub(crate) mod range;
pub(crate) mod store;
pub(crate) mod token;

use std::{io, ops::Range, pin::pin, sync::Arc, time::Duration};

use aldis_runtime::{SharedClock, SharedRandom};
use aldis_types::{AssetKey, MediaType, Retention, Timestamp, UserId};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use md5::{Digest, Md5};
use sha2::Sha256;

use self::{
    store::{Asset, AssetStore},
    token::TokenHash,
};
use crate::{
    blobs::{BlobStore, BlobWriter, ByteStream},
    config::Config,
    error::AssetError,
};

/// Files whose bytes one step of a sweep removes.
const SWEPT: u32 = 100;

/// Who wants to read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A user of ours, who needs no token for an own file.
    Local(UserId),
    /// Somebody at another backend, who is never the uploader, whatever id the other backend names.
    Elsewhere,
}

/// A file on its way in, as its uploader describes it.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) owner: UserId,
    pub(crate) retention: Retention,
    /// Everybody may read it, without a token.
    pub(crate) public: bool,
    pub(crate) media_type: MediaType,
    /// What an encrypted file is inside, if the app says so.
    pub(crate) inner_type: Option<MediaType>,
    pub(crate) size: u64,
    pub(crate) md5: Option<[u8; 16]>,
}

/// A file that was stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) key: AssetKey,
    /// Told once; `None` for public files.
    pub(crate) token: Option<String>,
    pub(crate) expires: Option<Timestamp>,
}

/// Our own files. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Assets {
    store: Arc<dyn AssetStore>,
    blobs: Arc<dyn BlobStore>,
    clock: SharedClock,
    random: SharedRandom,
    max_bytes: u64,
    types: Arc<[String]>,
    lease: Duration,
}

/// Whether a list of patterns allows a type; an empty one allows all.
pub(crate) fn allows(types: &[String], media_type: &MediaType) -> bool {
    types.is_empty() || types.iter().any(|pattern| media_type.matches(pattern))
}

impl Assets {
    pub(crate) fn new(
        store: Arc<dyn AssetStore>,
        blobs: Arc<dyn BlobStore>,
        clock: SharedClock,
        random: SharedRandom,
        config: &Config,
    ) -> Self {
        Self {
            store,
            blobs,
            clock,
            random,
            max_bytes: config.max_bytes,
            types: config.types.clone().into(),
            lease: config.upload_lease(),
        }
    }

    /// Whether a file of this description may be stored; before a byte of it is read.
    pub(crate) fn admit(&self, upload: &Upload) -> Result<(), AssetError> {
        if upload.size == 0 {
            return Err(AssetError::Empty);
        }
        if upload.size > self.max_bytes {
            return Err(AssetError::TooLarge);
        }
        let inner = upload.inner_type.as_ref().is_none_or(|inner| allows(&self.types, inner));
        if inner && allows(&self.types, &upload.media_type) { Ok(()) } else { Err(AssetError::NotAllowed) }
    }

    /// Stores a file. Nothing of it is visible before the answer, and nothing stays when it fails.
    pub(crate) async fn upload(
        &self,
        upload: Upload,
        bytes: impl Stream<Item = Result<Bytes, AssetError>> + Send,
    ) -> Result<Stored, AssetError> {
        self.admit(&upload)?;
        let now = self.clock.now();
        let key = AssetKey { retention: upload.retention, id: self.random.uuid() };
        self.store.begin(key, upload.owner, now).await?;
        match self.receive(key, &upload, bytes).await {
            Ok(stored) => {
                metrics::counter!("aldis_assets_stored_total").increment(1);
                metrics::counter!("aldis_assets_stored_bytes_total").increment(upload.size);
                Ok(stored)
            }
            Err(error) => {
                self.store.doom(key).await?;
                self.remove(key).await?;
                Err(error)
            }
        }
    }

    async fn receive(
        &self,
        key: AssetKey,
        upload: &Upload,
        bytes: impl Stream<Item = Result<Bytes, AssetError>> + Send,
    ) -> Result<Stored, AssetError> {
        let mut writer = self.blobs.create(key.id).await?;
        let sha256 = match copy(&mut *writer, upload, bytes).await {
            Ok(sha256) => sha256,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        writer.finish().await?;
        let token = (!upload.public).then(|| token::generate(&self.random));
        let asset = Asset {
            key,
            owner: upload.owner,
            token: token.as_deref().map(TokenHash::of),
            media_type: upload.media_type.clone(),
            size: upload.size,
            sha256,
            expires: upload.retention.expires(self.clock.now()),
        };
        // Given up by a sweep meanwhile.
        if !self.store.publish(&asset).await? {
            return Err(AssetError::TooSlow);
        }
        Ok(Stored { key, token, expires: asset.expires })
    }

    /// The file, if `reader` may have it; one that may not is told the same as one that asks for what does not exist.
    pub(crate) async fn find(&self, key: AssetKey, reader: Reader, token: Option<&str>) -> Result<Asset, AssetError> {
        let asset = self.store.get(key, self.clock.now()).await?.ok_or(AssetError::NotFound)?;
        let fits = match &asset.token {
            Some(hash) => token.is_some_and(|token| hash.fits(token)),
            None => true,
        };
        if fits || reader == Reader::Local(asset.owner) { Ok(asset) } else { Err(AssetError::NotFound) }
    }

    /// Whether the file is there and has this digest, whoever asks: for those who hold a copy of it.
    pub(crate) async fn is_there(&self, key: AssetKey, sha256: &[u8]) -> Result<bool, AssetError> {
        let asset = self.store.get(key, self.clock.now()).await?;
        Ok(asset.is_some_and(|asset| asset.sha256 == sha256))
    }

    /// The bytes of `range`, which lies within the file.
    pub(crate) async fn read(&self, asset: &Asset, range: Range<u64>) -> Result<ByteStream, AssetError> {
        match self.blobs.open(asset.key.id, range).await? {
            Some(bytes) => Ok(bytes),
            // Deleted this moment; or lost, which somebody should know.
            None if self.store.get(asset.key, self.clock.now()).await?.is_none() => Err(AssetError::NotFound),
            None => Err(io::Error::other("the bytes of an asset are missing").into()),
        }
    }

    /// A URL at which the bytes can be had for some minutes without us, if that is set up.
    pub(crate) async fn link(&self, asset: &Asset) -> Result<Option<String>, AssetError> {
        Ok(self.blobs.link(asset.key.id, shown_type(&asset.media_type)).await?)
    }

    async fn owned(&self, key: AssetKey, user: UserId) -> Result<(), AssetError> {
        let asset = self.store.get(key, self.clock.now()).await?.ok_or(AssetError::NotFound)?;
        if asset.owner == user { Ok(()) } else { Err(AssetError::Unauthorised) }
    }

    /// Removes a file of this user.
    pub(crate) async fn delete(&self, key: AssetKey, user: UserId) -> Result<(), AssetError> {
        self.owned(key, user).await?;
        self.store.doom(key).await?;
        if let Err(error) = self.remove(key).await {
            // Nobody can read it any more; the sweep tries again.
            tracing::warn!(%error, asset.id = %key.id, "the bytes of a deleted asset cannot be removed yet");
        }
        Ok(())
    }

    /// Replaces the token: every older one stops to fit.
    pub(crate) async fn renew_token(&self, key: AssetKey, user: UserId) -> Result<String, AssetError> {
        self.owned(key, user).await?;
        let token = token::generate(&self.random);
        let replaced = self.store.set_token(key, Some(TokenHash::of(&token))).await?;
        if replaced { Ok(token) } else { Err(AssetError::NotFound) }
    }

    /// Makes the file public.
    pub(crate) async fn drop_token(&self, key: AssetKey, user: UserId) -> Result<(), AssetError> {
        self.owned(key, user).await?;
        if self.store.set_token(key, None).await? { Ok(()) } else { Err(AssetError::NotFound) }
    }

    async fn remove(&self, key: AssetKey) -> Result<(), AssetError> {
        self.blobs.delete(key.id).await?;
        Ok(self.store.forget(key).await?)
    }

    /// Removes what uploads have left that a crash ended. For the start, before there are uploads.
    pub(crate) async fn recover(&self) -> Result<(), AssetError> {
        if let Err(error) = self.blobs.sweep().await {
            tracing::warn!(%error, "what is left of broken uploads cannot be removed");
        }
        let now = self.clock.now();
        self.sweep_before(now, now.plus(Duration::from_millis(1))).await
    }

    /// Removes the bytes of files that have ended.
    pub(crate) async fn sweep(&self) -> Result<(), AssetError> {
        let now = self.clock.now();
        let lease = i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX);
        self.sweep_before(now, Timestamp::from_millis(now.millis().saturating_sub(lease))).await
    }

    async fn sweep_before(&self, now: Timestamp, stale: Timestamp) -> Result<(), AssetError> {
        loop {
            let keys = self.store.doomed(now, stale, SWEPT).await?;
            let removed = keys.len() as u64;
            for key in keys {
                self.store.doom(key).await?;
                self.remove(key).await?;
            }
            metrics::counter!("aldis_assets_swept_total").increment(removed);
            if removed < u64::from(SWEPT) {
                return Ok(());
            }
        }
    }
}

/// Writes the bytes and says their SHA-256, if they are as many as stated and fit their MD5.
async fn copy(
    writer: &mut dyn BlobWriter,
    upload: &Upload,
    bytes: impl Stream<Item = Result<Bytes, AssetError>> + Send,
) -> Result<[u8; 32], AssetError> {
    let mut bytes = pin!(bytes);
    let (mut sha256, mut md5) = (Sha256::new(), upload.md5.map(|expected| (Md5::new(), expected)));
    let mut size = 0_u64;
    while let Some(part) = bytes.next().await {
        let part = part?;
        size += part.len() as u64;
        if size > upload.size {
            return Err(AssetError::Malformed("the asset is longer than stated"));
        }
        sha256.update(&part);
        if let Some((md5, _)) = &mut md5 {
            md5.update(&part);
        }
        writer.write(part).await?;
    }
    if size < upload.size {
        return Err(AssetError::Incomplete);
    }
    let fits = md5.is_none_or(|(md5, expected)| <[u8; 16]>::from(md5.finalize()) == expected);
    if fits { Ok(sha256.finalize().into()) } else { Err(AssetError::Digest) }
}

/// The type with which bytes are given to clients: nothing that a browser would run.
pub(crate) fn shown_type(media_type: &MediaType) -> &str {
    if media_type.is_inert() { media_type.as_str() } else { "application/octet-stream" }
}

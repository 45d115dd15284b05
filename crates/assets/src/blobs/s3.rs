//! Files in an object store that speaks S3: `<prefix><uuid>`. Small ones in one request, larger ones in parts.

use std::{io, ops::Range, time::Duration};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, timeout::TimeoutConfig},
    error::{DisplayErrorContext, SdkError},
    presigning::PresigningConfig,
    primitives::ByteStream as S3Stream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use aws_smithy_http_client::{
    Builder as HttpBuilder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use uuid::Uuid;

use super::{BlobStore, BlobWriter, ByteStream};
use crate::config::S3Config;

const CONNECT: Duration = Duration::from_secs(5);
/// For one attempt of one request; of a download only until its first byte.
const ATTEMPT: Duration = Duration::from_secs(120);
/// For how long a link holds.
const LINK: Duration = Duration::from_secs(300);
/// Uploads that one sweep gives up.
const MAX_SWEPT: i32 = 1000;

/// A bucket.
#[derive(Clone)]
pub(crate) struct S3 {
    client: Client,
    bucket: String,
    prefix: String,
    part_bytes: usize,
    redirect: bool,
}

fn failed<E>(error: SdkError<E>) -> io::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    io::Error::other(DisplayErrorContext(error).to_string())
}

fn is_not_found<E>(error: &SdkError<E>) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == 404)
}

impl S3 {
    /// A client for the bucket; nothing is asked of it yet.
    pub(crate) fn new(config: &S3Config) -> io::Result<Self> {
        let mut tls = TlsContext::builder();
        if let Some(file) = &config.ca_file {
            tls = tls.with_trust_store(TrustStore::empty().with_pem_certificate(std::fs::read(file)?));
        }
        let http = HttpBuilder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.build().map_err(io::Error::other)?)
            .build_https();
        let credentials = Credentials::from_keys(&config.access_key_id, config.secret_access_key.expose(), None);
        let mut builder = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .credentials_provider(credentials)
            .force_path_style(config.path_style)
            // Newer checksums are not understood by every server.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build(),
            )
            .http_client(http);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Ok(Self {
            client: Client::from_conf(builder.build()),
            bucket: config.bucket.clone(),
            prefix: config.prefix.clone(),
            part_bytes: usize::try_from(config.part_mib << 20).unwrap_or(usize::MAX),
            redirect: config.redirect,
        })
    }

    fn key(&self, id: Uuid) -> String {
        format!("{}{id}", self.prefix)
    }

    async fn give_up(&self, key: &str, upload: &str) -> io::Result<()> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

#[async_trait]
impl BlobStore for S3 {
    async fn create(&self, id: Uuid) -> io::Result<Box<dyn BlobWriter>> {
        Ok(Box::new(Parts { s3: self.clone(), key: self.key(id), buffer: BytesMut::new(), id: None, done: Vec::new() }))
    }

    async fn open(&self, id: Uuid, range: Range<u64>) -> io::Result<Option<ByteStream>> {
        let wanted = range.end.saturating_sub(range.start);
        let last = range.end.saturating_sub(1);
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(id));
        let answer = match request.range(format!("bytes={}-{last}", range.start)).send().await {
            Ok(answer) => answer,
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let parts = stream::try_unfold((answer.body, wanted), |(mut body, left)| async move {
            match body.try_next().await.map_err(io::Error::other)? {
                Some(bytes) if bytes.len() as u64 <= left => {
                    let left = left - bytes.len() as u64;
                    Ok(Some((bytes, (body, left))))
                }
                None if left == 0 => Ok(None),
                Some(_) => Err(io::Error::other("the object store sent more than was asked for")),
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        });
        Ok(Some(parts.boxed()))
    }

    async fn delete(&self, id: Uuid) -> io::Result<()> {
        match self.client.delete_object().bucket(&self.bucket).key(self.key(id)).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn sweep(&self) -> io::Result<()> {
        let request = self.client.list_multipart_uploads().bucket(&self.bucket).max_uploads(MAX_SWEPT);
        let found = match request.prefix(&self.prefix).send().await {
            Ok(found) => found,
            // Some servers cannot list uploads; they remove old ones by rules of the bucket.
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 501) => {
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        for upload in found.uploads() {
            if let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) {
                self.give_up(key, id).await?;
            }
        }
        Ok(())
    }

    async fn link(&self, id: Uuid, media_type: &str) -> io::Result<Option<String>> {
        if !self.redirect {
            return Ok(None);
        }
        let config = PresigningConfig::expires_in(LINK).map_err(io::Error::other)?;
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(id));
        let signed = request.response_content_type(media_type).presigned(config).await.map_err(failed)?;
        Ok(Some(signed.uri().to_owned()))
    }
}

struct Parts {
    s3: S3,
    key: String,
    buffer: BytesMut,
    /// Id of the upload in parts, once there is more than one part.
    id: Option<String>,
    done: Vec<CompletedPart>,
}

impl Parts {
    async fn send_part(&mut self, bytes: Bytes) -> io::Result<()> {
        let S3 { client, bucket, .. } = &self.s3;
        let upload = match &self.id {
            Some(upload) => upload.clone(),
            None => {
                let begun = client.create_multipart_upload().bucket(bucket).key(&self.key).send().await;
                let id = begun.map_err(failed)?.upload_id.ok_or_else(|| io::Error::other("no id for an upload"))?;
                self.id.insert(id).clone()
            }
        };
        let number = i32::try_from(self.done.len() + 1).map_err(io::Error::other)?;
        let request = client.upload_part().bucket(bucket).key(&self.key).upload_id(upload).part_number(number);
        let sent = request.body(S3Stream::from(bytes)).send().await.map_err(failed)?;
        self.done.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
        Ok(())
    }
}

#[async_trait]
impl BlobWriter for Parts {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.buffer.extend_from_slice(&bytes);
        while self.buffer.len() > self.s3.part_bytes {
            let part = self.buffer.split_to(self.s3.part_bytes).freeze();
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> io::Result<()> {
        let rest = self.buffer.split().freeze();
        if self.id.is_none() {
            let request = self.s3.client.put_object().bucket(&self.s3.bucket).key(&self.key);
            return request.body(S3Stream::from(rest)).send().await.map(|_| ()).map_err(failed);
        }
        let last = self.send_part(rest).await;
        let (Ok(()), Some(upload)) = (&last, self.id.clone()) else {
            self.abort().await;
            return last;
        };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(std::mem::take(&mut self.done))).build();
        let request = self.s3.client.complete_multipart_upload().bucket(&self.s3.bucket).key(&self.key);
        let completed = request.upload_id(upload).multipart_upload(parts).send().await.map_err(failed);
        if completed.is_err() {
            self.abort().await;
        }
        completed.map(|_| ())
    }

    async fn abort(self: Box<Self>) {
        if let Some(upload) = &self.id
            && let Err(error) = self.s3.give_up(&self.key, upload).await
        {
            tracing::warn!(%error, "parts of an upload cannot be removed");
        }
    }
}

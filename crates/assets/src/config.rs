//! `[assets]`: where files are kept, and which ones are taken, given and fetched.

use std::{path::PathBuf, time::Duration};

pub use aldis_runtime::Secret;
use aldis_types::MediaType;
use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

/// Files of users, and copies of files of other backends.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where files are kept, unless `[assets.s3]` is there.
    pub folder: Option<PathBuf>,
    /// Largest file that users here may store.
    ///
    /// Allowed: 1 to 68719476736.
    pub max_bytes: u64,
    /// Media types that users here may store; empty: all. Files in conversations are encrypted and have the type
    /// `application/octet-stream` whatever is inside.
    ///
    /// Allowed: media types, as `"image/png"` or `"image/*"`.
    pub types: Vec<String>,
    /// Refuse a file at once, before its bytes are taken, if a backend of the conversation that it is for says that it
    /// does not fetch files of this size or type. Works for apps that name the conversation when they upload, and for
    /// backends with which there is a connection at that moment.
    pub refuse_early: bool,
    /// Uploads at the same time; more are answered 503.
    ///
    /// Allowed: 1 to 65536.
    pub max_uploads: usize,
    /// An upload that brings no byte for this long is given up.
    ///
    /// Allowed: 1 to 3600.
    pub upload_idle_seconds: u64,
    /// Longest time for an upload. `client.request_timeout_seconds` does not hold for uploads.
    ///
    /// Allowed: 1 to 86400.
    pub upload_timeout_seconds: u64,
    /// How often files that have expired or were deleted are removed. Nobody can read them in between.
    ///
    /// Allowed: 1 to 86400.
    pub sweep_interval_seconds: u64,
    /// `[assets.remote]`.
    pub remote: RemoteConfig,
    /// `[assets.cache]`.
    pub cache: CacheConfig,
    /// `[assets.peers]`.
    pub peers: PeersConfig,
    /// `[assets.s3]`. Absent: files are kept in `folder`.
    pub s3: Option<S3Config>,
}

/// The size that apps allow members of teams: 100 MiB and what encryption adds.
const USUAL_MAX_BYTES: u64 = 100 * 1024 * 1024 + 32;

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: None,
            max_bytes: USUAL_MAX_BYTES,
            types: Vec::new(),
            refuse_early: false,
            max_uploads: 64,
            upload_idle_seconds: 30,
            upload_timeout_seconds: 3600,
            sweep_interval_seconds: 60,
            remote: RemoteConfig::default(),
            cache: CacheConfig::default(),
            peers: PeersConfig::default(),
            s3: None,
        }
    }
}

/// What our users may fetch from other backends. Told to them, so that they can know beforehand.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteConfig {
    /// Largest file that users here may fetch from other backends; 0: none. Told to them.
    ///
    /// Allowed: 0 to 68719476736.
    pub max_bytes: u64,
    /// Media types that users here may fetch from other backends; empty: all. Told to them.
    ///
    /// Allowed: media types.
    pub types: Vec<String>,
    /// Files fetched from one other backend at the same time; more wait for their turn.
    ///
    /// Allowed: 1 to 4096.
    pub max_concurrent: usize,
    /// Another backend that sends no byte of a file for this long is given up. So is the wait for a turn.
    ///
    /// Allowed: 1 to 3600.
    pub idle_seconds: u64,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self { max_bytes: USUAL_MAX_BYTES, types: Vec::new(), max_concurrent: 8, idle_seconds: 30 }
    }
}

/// Copies of files of other backends. Whether a reader may have one is asked of the owner each time.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Keep copies of files of other backends. With `false` every access fetches anew.
    pub enabled: bool,
    /// Where copies lie, and files on their way. Nothing in it is needed after a loss.
    pub folder: Option<PathBuf>,
    /// Most MiB of all copies together; those that were not read for longest go first.
    ///
    /// Allowed: 1 to 1073741824.
    pub max_mib: u64,
    /// A copy is fetched anew after this time.
    ///
    /// Allowed: 1 to 31622400.
    pub max_age_seconds: u64,
    /// The owner of a copy that nobody has read for this time is asked whether the file is still there; if not, the copy
    /// is dropped.
    ///
    /// Allowed: 60 to 31622400.
    pub recheck_seconds: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { enabled: true, folder: None, max_mib: 1024, max_age_seconds: 7 * 24 * 3600, recheck_seconds: 6 * 3600 }
    }
}

/// How much each other backend may fetch from us.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct PeersConfig {
    /// Files that one other backend may fetch from here at the same time.
    ///
    /// Allowed: 1 to 65536.
    pub max_concurrent: usize,
    /// What one other backend may fetch from here, all its transfers together; 0: as fast as the connection is.
    ///
    /// Allowed: 0, or 65536 to 4294967295.
    pub bytes_per_second: u32,
    /// A transfer that the other side does not take further for this long is given up.
    ///
    /// Allowed: 1 to 3600.
    pub idle_seconds: u64,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { max_concurrent: 16, bytes_per_second: 0, idle_seconds: 30 }
    }
}

/// Files in an object store that speaks S3, instead of a folder. The bucket must exist. Builds without the default
/// feature `s3` refuse this section.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// The bucket, which must exist.
    pub bucket: String,
    /// What keys begin with, as `"aldis/"`. Two backends on one bucket need different ones.
    #[serde(default)]
    pub prefix: String,
    /// The region that requests are signed for.
    #[serde(default = "region")]
    pub region: String,
    /// The server.
    ///
    /// Allowed: `https://…`, `http://…`.
    pub endpoint: Option<String>,
    /// Put the bucket into the path instead of the host name, as most servers but Amazon's need it.
    #[serde(default)]
    pub path_style: bool,
    /// The authorities that the server's certificate may come from.
    ///
    /// Allowed: PEM.
    pub ca_file: Option<PathBuf>,
    /// Id of the access key.
    pub access_key_id: String,
    /// The access key; better as `ALDIS_ASSETS__S3__SECRET_ACCESS_KEY` in the environment.
    #[serde(skip_serializing)]
    pub secret_access_key: Secret,
    /// Answer downloads of users here with a redirect to a URL of the object store that holds for 5 minutes. Apps
    /// must reach the object store, and web apps need it to allow their origin.
    #[serde(default)]
    pub redirect: bool,
    /// Files larger than this are stored in parts of this size. Each upload holds one part in memory.
    ///
    /// Allowed: 5 to 1024.
    #[serde(default = "part_mib")]
    pub part_mib: u64,
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn part_mib() -> u64 {
    8
}

/// Keys of the section whose values are file names, relative to the folder of the configuration file.
pub const PATHS: &[&str] = &["folder", "cache.folder", "s3.ca_file"];

const MAX_TYPES: usize = 256;
const HOUR: u64 = 3600;
const GIB: u64 = 1 << 30;

fn within(key: &str, value: u64, allowed: std::ops::RangeInclusive<u64>) -> Result<(), String> {
    if allowed.contains(&value) {
        Ok(())
    } else {
        Err(format!("`assets.{key}` = {value}; allowed: {} to {}", allowed.start(), allowed.end()))
    }
}

fn check_types(key: &str, types: &[String]) -> Result<(), String> {
    let is_pattern = |text: &String| text == "*/*" || text.replace("/*", "/x").parse::<MediaType>().is_ok();
    if types.len() > MAX_TYPES {
        return Err(format!("`assets.{key}` has {} entries; allowed: at most {MAX_TYPES}", types.len()));
    }
    match types.iter().find(|text| !is_pattern(text)) {
        Some(text) => {
            Err(format!("`assets.{key}` has {text:?}; allowed: media types like \"image/png\" or \"image/*\""))
        }
        None => Ok(()),
    }
}

impl Config {
    /// Refuses what cannot be used; the text names key, value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        within("max_bytes", self.max_bytes, 1..=64 * GIB)?;
        within("max_uploads", self.max_uploads as u64, 1..=65_536)?;
        within("upload_idle_seconds", self.upload_idle_seconds, 1..=HOUR)?;
        within("upload_timeout_seconds", self.upload_timeout_seconds, 1..=24 * HOUR)?;
        within("sweep_interval_seconds", self.sweep_interval_seconds, 1..=24 * HOUR)?;
        check_types("types", &self.types)?;
        within("remote.max_bytes", self.remote.max_bytes, 0..=64 * GIB)?;
        within("remote.max_concurrent", self.remote.max_concurrent as u64, 1..=4096)?;
        within("remote.idle_seconds", self.remote.idle_seconds, 1..=HOUR)?;
        check_types("remote.types", &self.remote.types)?;
        within("cache.max_mib", self.cache.max_mib, 1..=1 << 30)?;
        within("cache.max_age_seconds", self.cache.max_age_seconds, 1..=366 * 24 * HOUR)?;
        within("cache.recheck_seconds", self.cache.recheck_seconds, 60..=366 * 24 * HOUR)?;
        within("peers.max_concurrent", self.peers.max_concurrent as u64, 1..=65_536)?;
        within("peers.idle_seconds", self.peers.idle_seconds, 1..=HOUR)?;
        if matches!(self.peers.bytes_per_second, 1..=65_535) {
            let value = self.peers.bytes_per_second;
            return Err(format!("`assets.peers.bytes_per_second` = {value}; allowed: 0, or 65536 and more"));
        }
        self.s3.as_ref().map_or(Ok(()), S3Config::check)
    }

    /// For how long a sweep leaves an upload alone that has not ended.
    pub(crate) fn upload_lease(&self) -> Duration {
        Duration::from_secs(self.upload_timeout_seconds.saturating_mul(2).saturating_add(60))
    }
}

impl S3Config {
    fn check(&self) -> Result<(), String> {
        if !cfg!(feature = "s3") {
            return Err("section `[assets.s3]` is there, but this build was made without the feature `s3`".to_owned());
        }
        let bucket_ok = (3..=63).contains(&self.bucket.len())
            && self.bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
        if !bucket_ok {
            return Err(format!("`assets.s3.bucket` = {:?}; allowed: the name of a bucket", self.bucket));
        }
        let prefix_ok = self.prefix.len() <= 256
            && !self.prefix.starts_with('/')
            && self.prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b));
        if !prefix_ok {
            return Err(format!(
                "`assets.s3.prefix` = {:?}; allowed: letters, digits, `/`, `-`, `_`, `.`",
                self.prefix
            ));
        }
        if let Some(endpoint) = &self.endpoint {
            let is_url = endpoint.parse::<http::Uri>().is_ok_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() && uri.query().is_none()
            });
            if !is_url {
                return Err(format!(
                    "`assets.s3.endpoint` = {endpoint:?}; allowed: a URL like \"https://s3.example.com\""
                ));
            }
        }
        within("s3.part_mib", self.part_mib, 5..=1024)
    }
}

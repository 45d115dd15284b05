//! The configuration file of a backend: the domain, what every process needs, and one section per service.

mod cluster;
pub(crate) mod command;
mod reference;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use aldis_api::serve::ClientConfig;
use aldis_runtime::{
    config::{self, ConfigError},
    telemetry::{LogConfig, TracingConfig},
};
use aldis_types::Domain;
pub(crate) use cluster::{ClusterConfig, Engine};
use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

/// Keys that belong to no table.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The backend's domain. It is part of every id that the backend gives out and can never be changed.
    ///
    /// Allowed: two or more labels of letters, digits and hyphens (or `localhost`), the last one not beginning with a
    /// digit.
    pub(crate) domain: Domain,
    /// `[store]`.
    pub(crate) store: StoreConfig,
    /// `[client]`.
    #[serde(default)]
    pub(crate) client: ClientConfig,
    /// `[operations]`.
    #[serde(default)]
    pub(crate) operations: OperationsConfig,
    /// `[log]`.
    #[serde(default)]
    pub(crate) log: LogConfig,
    /// `[tracing]`.
    #[serde(default)]
    pub(crate) tracing: TracingConfig,
    /// `[users]`.
    #[serde(default)]
    pub(crate) users: aldis_users::Config,
    /// `[conversations]`.
    #[serde(default)]
    pub(crate) conversations: aldis_conversations::Config,
    /// `[assets]`.
    #[serde(default)]
    pub(crate) assets: aldis_assets::Config,
    /// `[notifications]`.
    #[serde(default)]
    pub(crate) notifications: aldis_notifications::Config,
    /// `[web]`.
    #[serde(default)]
    pub(crate) web: aldis_web::Config,
    /// `[federation]`. Absent: this backend federates with nobody.
    #[serde(default)]
    pub(crate) federation: Option<aldis_federator::Config>,
    /// `[outbox]`.
    #[serde(default)]
    pub(crate) outbox: aldis_delivery::Config,
    /// `[services]`, needed where every service is a process of its own.
    #[serde(default)]
    pub(crate) services: ServicesConfig,
}

/// Where data is kept.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreConfig {
    /// What services keep their data in: the file, or a cluster of ScyllaDB or Cassandra (`[store.cql]`). Of this version only
    /// `aldis notifications` and `aldis assets` can use a cluster; the others say at the start what is missing.
    ///
    /// Allowed: `sqlite`, `cql`.
    #[serde(default)]
    pub(crate) engine: Engine,
    /// The file. Lock files, the write-ahead log, snapshots before migrations and `admin.sock` lie beside it:
    /// keep the folder private, and on a local disk. Read by every process, opened by those of `users`,
    /// `conversations` and `notifications`.
    ///
    /// Allowed: a file in a folder that exists.
    pub(crate) path: PathBuf,
    /// Connections for reading, each with a page cache of up to 64 MiB.
    ///
    /// Allowed: 1 to 64.
    #[serde(default = "readers")]
    pub(crate) readers: usize,
    /// Size of the file, in MiB, at which writes are refused; clients get 503 `overloaded` then. Without it: as large
    /// as the disk.
    ///
    /// Allowed: 16 or more.
    #[serde(default)]
    pub(crate) max_mib: Option<u32>,
    /// `[store.cql]`.
    #[serde(default)]
    pub(crate) cql: Option<ClusterConfig>,
}

fn readers() -> usize {
    2
}

/// Health and metrics.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OperationsConfig {
    /// Where `aldis all` serves `/healthz`, `/readyz`, `/metrics`.
    pub(crate) listen: SocketAddr,
    /// How long requests under way may take once the process is asked to stop.
    ///
    /// Allowed: 0 to 600.
    pub(crate) drain_seconds: u64,
}

impl Default for OperationsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8081)), drain_seconds: 10 }
    }
}

/// Services in processes of their own. Not needed for `aldis all`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServicesConfig {
    /// The authority of internal certificates. Without it services talk without TLS, on loopback only.
    pub(crate) ca_file: Option<PathBuf>,
    /// `[services.users]`.
    pub(crate) users: ServiceConfig,
    /// `[services.conversations]`.
    pub(crate) conversations: ServiceConfig,
    /// `[services.assets]`.
    pub(crate) assets: ServiceConfig,
    /// `[services.notifications]`.
    pub(crate) notifications: ServiceConfig,
    /// `[services.federator]`.
    pub(crate) federator: ServiceConfig,
    /// `[services.web]`.
    pub(crate) web: WebServiceConfig,
}

/// `aldis web`: the web client in a process of its own, which talks to no other. Whatever is in front of the services sends
/// `/app` there.
#[derive(Debug, Clone, Default, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebServiceConfig {
    /// Where it serves the web client.
    pub(crate) client: Option<SocketAddr>,
    /// Where it serves `/healthz`, `/readyz`, `/metrics`.
    pub(crate) operations: Option<SocketAddr>,
}

/// One service: `users`, `conversations`, `assets`, `notifications` or `federator`. An internal certificate carries the DNS
/// name `<service>.internal.<domain>` (for instance `users.internal.example.com`) and may be used for server and client.
/// Both sides of every internal connection check the other's name, with TLS 1.3; federation listeners accept the federator
/// alone. Certificate, key and authority are looked at every two seconds; new ones are in force without a restart, and
/// connections that were made with the old ones are replaced.
#[derive(Debug, Clone, Default, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServiceConfig {
    /// Where it serves clients.
    ///
    /// Services: all but `federator`.
    pub(crate) client: Option<SocketAddr>,
    /// Where it serves our other services.
    pub(crate) internal: Option<SocketAddr>,
    /// Where it serves our federator. Needed with `[federation]`; without that of `assets` other backends cannot
    /// fetch files from here.
    ///
    /// Services: `users`, `conversations`, `assets`.
    pub(crate) federation: Option<SocketAddr>,
    /// Where it serves `/healthz`, `/readyz`, `/metrics`.
    pub(crate) operations: Option<SocketAddr>,
    /// Where other services reach the internal listener, if that is not its own address. A host name stands for all replicas:
    /// calls are shared among the addresses that DNS gives for it.
    pub(crate) internal_address: Option<String>,
    /// Where the federator reaches the federation listener, if that is not its own address. A host name stands for all
    /// replicas.
    ///
    /// Services: `users`, `conversations`, `assets`.
    pub(crate) federation_address: Option<String>,
    /// Its certificate for internal connections, with `key_file` and `services.ca_file`.
    pub(crate) certificate_file: Option<PathBuf>,
    /// The private key of that certificate.
    pub(crate) key_file: Option<PathBuf>,
}

/// A service that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceName {
    Users,
    Conversations,
    Assets,
    Notifications,
    Federator,
}

impl ServiceName {
    pub(crate) const ALL: [Self; 5] =
        [Self::Users, Self::Conversations, Self::Assets, Self::Notifications, Self::Federator];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Conversations => "conversations",
            Self::Assets => "assets",
            Self::Notifications => "notifications",
            Self::Federator => "federator",
        }
    }
}

impl ServicesConfig {
    pub(crate) fn of(&self, name: ServiceName) -> &ServiceConfig {
        match name {
            ServiceName::Users => &self.users,
            ServiceName::Conversations => &self.conversations,
            ServiceName::Assets => &self.assets,
            ServiceName::Notifications => &self.notifications,
            ServiceName::Federator => &self.federator,
        }
    }
}

/// Keys whose values are file names.
fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "store.path",
        "users.mail.folder",
        "users.calls.turn_uris_file",
        "notifications.push.webhook_secret_file",
        "services.ca_file",
    ]
    .map(str::to_owned)
    .into();
    paths.extend(cluster::PATHS.iter().map(|key| format!("store.cql.{key}")));
    paths.extend(aldis_api::serve::PATHS.iter().map(|key| format!("client.{key}")));
    paths.extend(aldis_federator::PATHS.iter().map(|key| format!("federation.{key}")));
    paths.extend(aldis_assets::PATHS.iter().map(|key| format!("assets.{key}")));
    for service in ServiceName::ALL {
        let section = format!("services.{}", service.as_str());
        paths.extend([format!("{section}.certificate_file"), format!("{section}.key_file")]);
    }
    paths
}

impl Config {
    /// Reads and checks the file and the environment.
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        let config: Self = config::load(file, &paths())?;
        config.check().map_err(|text| ConfigError::invalid(format!("{}: {text}", file.display())))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.store.check()?;
        self.client.check()?;
        self.operations.check()?;
        self.log.check().map_err(|error| bare(&error))?;
        self.tracing.check().map_err(|error| bare(&error))?;
        self.users.check()?;
        self.conversations.check()?;
        self.assets.check()?;
        self.notifications.check()?;
        self.outbox.check()?;
        if let Some(federation) = &self.federation {
            federation.check()?;
        }
        self.services.check()
    }
}

/// The text of a configuration error without the words that [`ConfigError::invalid`] puts in front.
fn bare(error: &ConfigError) -> String {
    match error {
        ConfigError::Invalid(text) => text.clone(),
        ConfigError::File { .. } => error.to_string(),
    }
}

impl StoreConfig {
    fn check(&self) -> Result<(), String> {
        if self.path.file_name().is_none() {
            return Err(format!("`store.path` = \"{}\"; allowed: the name of a file", self.path.display()));
        }
        if !self.path.parent().is_some_and(Path::is_dir) {
            let path = self.path.display();
            return Err(format!("`store.path` = \"{path}\"; allowed: a file in a folder that exists"));
        }
        if !(1..=64).contains(&self.readers) {
            return Err(format!("`store.readers` = {}; allowed: 1 to 64", self.readers));
        }
        if let Some(mib) = self.max_mib.filter(|mib| *mib < 16) {
            return Err(format!("`store.max_mib` = {mib}; allowed: 16 or more"));
        }
        match (self.engine, &self.cql) {
            (Engine::Cql, None) => {
                Err("section `[store.cql]` is missing; it is needed with `store.engine` = \"cql\"".to_owned())
            }
            (_, Some(cluster)) => cluster.check(),
            (Engine::Sqlite, None) => Ok(()),
        }
    }

    /// Pages of 8 KiB.
    pub(crate) fn max_pages(&self) -> Option<u32> {
        self.max_mib.map(|mib| mib.saturating_mul(128))
    }

    /// Where other data of the backend lies, unless settings say otherwise.
    pub(crate) fn folder(&self) -> PathBuf {
        self.path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
    }

    /// The administration socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.with_file_name("admin.sock")
    }
}

impl OperationsConfig {
    fn check(&self) -> Result<(), String> {
        if self.drain_seconds <= 600 {
            Ok(())
        } else {
            Err(format!("`operations.drain_seconds` = {}; allowed: 0 to 600", self.drain_seconds))
        }
    }
}

impl ServicesConfig {
    fn check(&self) -> Result<(), String> {
        for name in ServiceName::ALL {
            let section = format!("services.{}", name.as_str());
            let service = self.of(name);
            if service.certificate_file.is_some() != service.key_file.is_some() {
                return Err(format!("`{section}.certificate_file` and `{section}.key_file` are needed together"));
            }
            if service.certificate_file.is_some() && self.ca_file.is_none() {
                return Err(format!("`services.ca_file` is missing; it is needed with `{section}.certificate_file`"));
            }
            let addresses =
                [("internal_address", &service.internal_address), ("federation_address", &service.federation_address)];
            for (key, address) in addresses {
                let valid = |text: &String| text.parse::<http::uri::Authority>().is_ok_and(|it| it.port().is_some());
                if let Some(address) = address.as_ref().filter(|address| !valid(address)) {
                    return Err(format!("`{section}.{key}` = {address:?}; allowed: host:port"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "domain = 'alpha.test'\nstore.path = 'aldis.db'\n";

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("aldis.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn domain_and_store_are_enough() {
        let config = load(LEAST).unwrap();
        assert_eq!(config.domain.as_str(), "alpha.test");
        assert!(config.federation.is_none() && config.store.path.is_absolute());
        assert_eq!(config.store.socket().file_name().unwrap(), "admin.sock");
        assert!(config.client.throttle.enabled && !config.client.allow_loopback_origins);
    }

    #[test]
    fn errors_name_the_key_the_value_and_what_is_allowed() {
        let cases = [
            ("", "`domain`"),
            ("domain = 'alpha'\nstore.path = 'aldis.db'", "`domain` = \"alpha\""),
            ("domain = 'alpha.test'\nstore.path = 'missing/aldis.db'", "`store.path` = "),
            ("client.listen = 'nowhere'", "`client.listen` = \"nowhere\""),
            ("client.port = 8080", "unknown key `client.port` = 8080; known keys here: listen, "),
            ("clients.listen = '127.0.0.1:80'", "unknown key `clients`; known keys here: domain, store, client, "),
            ("client.trusted_proxies = ['10.0.0.0/64']", "10.0.0.0/64"),
            ("store.readers = 0", "`store.readers` = 0; allowed: 1 to 64"),
            ("store.max_mib = 1", "`store.max_mib` = 1; allowed: 16 or more"),
            ("store.engine = 'cql'", "section `[store.cql]` is missing"),
            ("store.cql.addresses = []", "`store.cql.addresses` = []; allowed: host:port"),
            (
                "store.cql = { addresses = ['db:9042'], keyspace_prefix = 'Aldis' }",
                "`store.cql.keyspace_prefix` = \"Aldis\"",
            ),
            ("store.cql = { addresses = ['db:9042'], user = 'aldis' }", "`store.cql.password`"),
            ("store.cql = { addresses = ['db:9042'], request_timeout_ms = 5 }", "allowed: 100 to 60000"),
            ("operations.drain_seconds = 6000", "`operations.drain_seconds` = 6000; allowed: 0 to 600"),
            ("outbox.max_age_days = 0", "`outbox.max_age_days` = 0; allowed: 1 to 3650"),
            ("log.format = 'xml'", "`log.format` = \"xml\" is not allowed; allowed: json, human"),
            ("log.filter = '=='", "`log.filter` = \"==\""),
            ("tracing.endpoint = 'collector'", "`tracing.endpoint` = \"collector\""),
            ("users.registration = 'maybe'", "users.registration"),
            ("users.federation.strategy = 'some'", "allow_none, allow_all, allow_list"),
            ("federation.listen = '127.0.0.1:1'", "federation.certificate_file"),
            ("services.users.certificate_file = 'x'", "`services.users.key_file`"),
            (
                "services.users.internal_address = 'users'",
                "`services.users.internal_address` = \"users\"; allowed: host:port",
            ),
        ];
        for (text, expected) in cases {
            let text =
                if text.starts_with("domain") || text.is_empty() { text.to_owned() } else { format!("{LEAST}{text}") };
            let error = load(&text).unwrap_err();
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }
}

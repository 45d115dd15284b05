//! The settings of the users service: section `[users]` of the configuration file.

mod check;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub use aldis_runtime::Secret;
use aldis_types::{Domain, Strategy};
use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Accounts, login, clients, connections.
#[derive(Debug, Clone, Default, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who may create an account through the client API: nobody, everybody with an e-mail address, or addresses of
    /// these domains. Anything but `"closed"` needs mail. `aldis user create` always works.
    ///
    /// Allowed: `"closed"`, `"open"`, list of e-mail domains.
    pub registration: Registration,
    /// Lifetimes of tokens.
    pub tokens: Tokens,
    /// The cookie that holds a session.
    pub cookie: Cookie,
    /// How mail leaves.
    pub mail: Mail,
    /// What clients need for calls.
    pub calls: Calls,
    /// What `/deeplink.json` and `/config.json` answer; without it they answer 404.
    pub deeplink: Option<Deeplink>,
    /// Versions of apps that may not be used any more.
    pub blacklist: Blacklist,
    /// Cost of a password hash.
    pub passwords: Passwords,
    /// Limits per account.
    pub limits: Limits,
    /// How long records are kept.
    pub retention: Retention,
    /// Federation with other backends.
    pub federation: Federation,
}

/// Who may create an account through the client API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Registration {
    /// Nobody.
    #[default]
    Closed,
    /// Everybody with an e-mail address.
    Open,
    /// Everybody with an address of one of these e-mail domains.
    Domains(Vec<String>),
}

impl Serialize for Registration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Closed => serializer.serialize_str("closed"),
            Self::Open => serializer.serialize_str("open"),
            Self::Domains(domains) => domains.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Registration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Registration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"closed\", \"open\", or a list of e-mail domains")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Registration, E> {
                match text {
                    "closed" => Ok(Registration::Closed),
                    "open" => Ok(Registration::Open),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Registration, A::Error> {
                let mut domains = Vec::new();
                while let Some(domain) = list.next_element::<String>()? {
                    domains.push(domain.to_lowercase());
                }
                Ok(Registration::Domains(domains))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// Lifetimes of tokens and cookies.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// Lifetime of an access token, in seconds.
    ///
    /// Allowed: 10 to 86400.
    pub access_seconds: u64,
    /// Lifetime of a persistent cookie, in seconds.
    ///
    /// Allowed: 60 to 31622400.
    pub persistent_seconds: u64,
    /// Lifetime of a session cookie, in seconds.
    ///
    /// Allowed: 60 to 31622400.
    pub session_seconds: u64,
    /// A persistent cookie older than this is renewed, and the old one stays valid for as long again.
    ///
    /// Allowed: 1 to 31622400.
    pub renew_seconds: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { access_seconds: 900, persistent_seconds: 4_838_400, session_seconds: 86_400, renew_seconds: 1_209_600 }
    }
}

/// The cookie that holds a session.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Cookie {
    /// The cookie is sent over HTTPS only. `false` only where clients speak plain HTTP.
    pub secure: bool,
    /// The cookie's `Domain` attribute; without it the cookie belongs to the host that set it.
    pub domain: Option<String>,
}

impl Default for Cookie {
    fn default() -> Self {
        Self { secure: true, domain: None }
    }
}

/// How mail leaves: at most one of `folder` and `[users.mail.smtp]`.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// Each mail becomes one `.eml` file here, for trying out: it holds codes.
    pub folder: Option<PathBuf>,
    /// Send mail by SMTP.
    pub smtp: Option<Smtp>,
    /// The sender, for instance `"Aldis <aldis@example.com>"`. Without it `aldis@` and the domain.
    ///
    /// Allowed: a mailbox.
    pub from: Option<String>,
    /// A page of yours that activates accounts. Without it mails hold the code only.
    ///
    /// Allowed: holds `{key}` and `{code}`.
    pub activation_url: Option<String>,
    /// A page of yours that sets new passwords (`POST /password-reset/complete`). Without it mails hold key and code only.
    ///
    /// Allowed: holds `{key}` and `{code}`.
    pub password_reset_url: Option<String>,
    /// A page of yours that confirms the deletion of an account (`POST /delete`). Without it mails hold key and code
    /// only.
    ///
    /// Allowed: holds `{key}` and `{code}`.
    pub deletion_url: Option<String>,
    /// A mail that cannot be delivered for so long is dropped.
    ///
    /// Allowed: 60 to 31622400.
    pub expiry_seconds: u64,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            folder: None,
            smtp: None,
            from: None,
            activation_url: None,
            password_reset_url: None,
            deletion_url: None,
            expiry_seconds: 86_400,
        }
    }
}

/// Mail by SMTP.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Name of the mail server; needed in `[users.mail.smtp]`.
    pub host: String,
    /// By default 587 for `starttls`, 465 for `tls`, 25 for `none`.
    pub port: Option<u16>,
    /// How the connection is protected; `none` for a relay on the same machine or network.
    ///
    /// Allowed: `starttls`, `tls`, `none`.
    #[serde(default)]
    pub encryption: SmtpEncryption,
    /// User name, when the server wants one.
    ///
    /// Allowed: with `password`.
    pub username: Option<String>,
    /// Password of that user.
    ///
    /// Allowed: with `username`.
    #[serde(skip_serializing)]
    pub password: Option<Secret>,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpEncryption {
    /// TLS after `STARTTLS`; refused without.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// No encryption.
    None,
}

/// What `GET /calls/config/v2` answers.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Calls {
    /// TURN servers, for instance `"turn:turn.example.com:3478?transport=udp"`.
    ///
    /// Allowed: `turn:` and `turns:` URIs.
    pub turn_uris: Vec<String>,
    /// A file with further TURN servers, a URI a line; read again every `discovery_seconds`.
    pub turn_uris_file: Option<PathBuf>,
    /// A domain below which further TURN servers are found, by the SRV records `_turn._udp`, `_turn._tcp` and
    /// `_turns._tcp`.
    pub turn_discovery: Option<Domain>,
    /// The secret shared with the TURN servers; needed with any of them.
    #[serde(skip_serializing)]
    pub secret: Option<Secret>,
    /// How the TURN servers check credentials: as restund and Wire's own build of coturn do, or as every coturn does
    /// with `use-auth-secret`.
    ///
    /// Allowed: `sha512`, `rest`.
    pub turn_credentials: TurnCredentials,
    /// Lifetime of the credentials.
    ///
    /// Allowed: 60 to 31622400.
    pub credential_seconds: u64,
    /// How long clients may keep the answer.
    ///
    /// Allowed: 1 to 31622400.
    pub ttl_seconds: u64,
    /// SFT servers for conference calls, for instance `"https://sft.example.com:443"`.
    ///
    /// Allowed: `https://` URLs.
    pub sft_urls: Vec<String>,
    /// A domain below which further SFT servers are found, by the SRV record `_sft._tcp`.
    pub sft_discovery: Option<Domain>,
    /// The first label of that record.
    ///
    /// Allowed: one label with an underscore.
    pub sft_service: String,
    /// How many SFT servers a client is told to choose from, picked at random.
    ///
    /// Allowed: 1 to 100.
    pub sft_list_length: usize,
    /// Tell clients of every SFT server too. Needed for conferences with other backends.
    pub sft_list_all: bool,
    /// The secret shared with the SFT servers, when they ask for credentials.
    #[serde(skip_serializing)]
    pub sft_secret: Option<Secret>,
    /// Whether the SFT servers take part in conferences with those of other backends; must be as the servers
    /// themselves are set.
    pub sft_federating: Option<bool>,
    /// Seconds between two looks at files and DNS.
    ///
    /// Allowed: 1 to 3600.
    pub discovery_seconds: u64,
    /// The DNS server that is asked. Those of the machine when not set.
    ///
    /// Allowed: `IP:port`.
    pub dns_server: Option<SocketAddr>,
}

/// How TURN servers check credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TurnCredentials {
    /// A name of the form `d=<expiry>.v=1.k=0.t=s.r=<user>`, HMAC-SHA-512.
    #[default]
    Sha512,
    /// A name of the form `<expiry>:<user>`, HMAC-SHA-1: the "TURN REST API".
    Rest,
}

/// Whether a text is the URI of a TURN server.
pub(crate) fn is_turn_uri(uri: &str) -> bool {
    uri.starts_with("turn:") || uri.starts_with("turns:")
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            turn_uris: Vec::new(),
            turn_uris_file: None,
            turn_discovery: None,
            secret: None,
            turn_credentials: TurnCredentials::Sha512,
            credential_seconds: 21_600,
            ttl_seconds: 3600,
            sft_urls: Vec::new(),
            sft_discovery: None,
            sft_service: "_sft".to_owned(),
            sft_list_length: 5,
            sft_list_all: true,
            sft_secret: None,
            sft_federating: None,
            discovery_seconds: 10,
            dns_server: None,
        }
    }
}

/// Where apps find this backend: what `/deeplink.json` and `/config.json` answer, and what `/deeplink.html` links to.
/// Without this table they answer 404. URLs have no slash at the end.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct Deeplink {
    /// The client API, for instance `https://api.example.com`: where apps find it, not where it listens.
    ///
    /// Allowed: `https://` or `http://`, no slash at the end.
    pub backend_url: String,
    /// What apps call this backend. Without it the domain.
    pub title: Option<String>,
    /// Where sockets are opened, with scheme `https`. Without it `backend_url`.
    pub backend_ws_url: Option<String>,
    /// Where apps look for versions that are no longer allowed. Without it `backend_url` and `/clientblacklist`, which
    /// answers what `[users.blacklist]` says.
    pub black_list_url: Option<String>,
    /// Team settings. Without it `backend_url`.
    pub teams_url: Option<String>,
    /// Account pages. Without it `backend_url`.
    pub accounts_url: Option<String>,
    /// The operator's website. Without it `backend_url`.
    pub website_url: Option<String>,
}

/// Versions of apps that may not be used any more.
#[derive(Debug, Clone, Default, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Blacklist {
    /// Apps for Android.
    pub android: AppVersions,
    /// Apps for iOS.
    pub ios: AppVersions,
}

/// Versions of the apps for one system, as the apps count them (the build number).
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct AppVersions {
    /// Older ones ask to be updated.
    pub min_version: String,
    /// So do these.
    pub exclude: Vec<String>,
}

impl Default for AppVersions {
    fn default() -> Self {
        Self { min_version: "0".to_owned(), exclude: Vec::new() }
    }
}

/// Cost of a password hash (argon2id).
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Passwords {
    /// Memory per hash.
    ///
    /// Allowed: 8 to 4194304.
    pub memory_kib: u32,
    /// Passes over the memory.
    ///
    /// Allowed: 1 to 100.
    pub passes: u32,
    /// Hashes computed at once; the memory is needed for each.
    ///
    /// Allowed: 1 to 1024.
    pub concurrent: usize,
    /// Hashes that may wait; beyond them clients get 429.
    ///
    /// Allowed: 1 to 100000.
    pub waiting: usize,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, concurrent: 4, waiting: 64 }
    }
}

/// Limits per account.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Wrong passwords per account within the window, after which login is refused until the window ends.
    ///
    /// Allowed: 1 to 1000.
    pub login_failures: u32,
    /// That window.
    ///
    /// Allowed: 1 to 31622400.
    pub login_window_seconds: u64,
    /// Once an account has 32 cookies of a kind, logins whose distances in time deviate by less than this are refused
    /// as too frequent. 0 turns it off.
    ///
    /// Allowed: 0 to 86400.
    pub login_gap_seconds: u64,
    /// Wrong tries before a code from a mail is void.
    ///
    /// Allowed: 1 to 10.
    pub code_failures: u32,
    /// Lifetime of an activation code.
    ///
    /// Allowed: 60 to 604800.
    pub code_seconds: u64,
    /// Lifetime of a code that sets a new password or confirms the deletion of an account.
    ///
    /// Allowed: 60 to 604800.
    pub confirmation_seconds: u64,
    /// Mails with codes per address and hour, and to new addresses per account and hour.
    ///
    /// Allowed: 1 to 1000.
    pub code_mails_per_hour: u32,
    /// Accounts that are not activated for so long are removed.
    ///
    /// Allowed: 3600 to 31622400.
    pub unactivated_seconds: u64,
    /// Permanent clients per account.
    ///
    /// Allowed: 1 to 50.
    pub permanent_clients: u32,
    /// Connections per account, counted in the states sent and accepted.
    ///
    /// Allowed: 1 to 4000.
    pub connections: u32,
    /// Requests from other backends that an account keeps unanswered.
    ///
    /// Allowed: 1 to 100000.
    pub pending_connections: u32,
    /// Properties per account.
    ///
    /// Allowed: 1 to 1000.
    pub properties: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login_failures: 10,
            login_window_seconds: 900,
            login_gap_seconds: 3000,
            code_failures: 3,
            code_seconds: 3600,
            confirmation_seconds: 600,
            code_mails_per_hour: 10,
            unactivated_seconds: 604_800,
            permanent_clients: 7,
            connections: 1000,
            pending_connections: 1000,
            properties: 16,
        }
    }
}

/// How long records are kept.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days for which audit records are kept (`aldis audit list`).
    ///
    /// Allowed: 1 to 3650.
    pub audit_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { audit_days: 366 }
    }
}

impl Retention {
    pub(crate) fn audit(&self) -> Duration {
        Duration::from_secs(u64::from(self.audit_days) * 86_400)
    }
}

/// Whom this backend federates with. The list itself is kept in the store, with `aldis remote`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Federation {
    /// Nobody; everybody but suspended remotes; active remotes on the list. With `allow_all`, users here cannot be
    /// found from a backend that is not on the list, as its search policy is `no_search`.
    ///
    /// Allowed: `allow_none`, `allow_all`, `allow_list`.
    pub strategy: Strategy,
    /// What one other backend may ask for.
    pub quotas: Quotas,
}

/// Calls of one other backend per minute; twice as many may come at once. Counted per process; what is beyond is refused,
/// and its client gets 420.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Prekeys in all.
    pub prekeys: u32,
    /// Prekeys of one account.
    pub prekeys_per_user: u32,
    /// Searches in all.
    pub searches: u32,
    /// Searches for one text.
    pub searches_per_term: u32,
    /// Look-ups of a handle in all.
    pub handles: u32,
    /// Look-ups of one handle.
    pub handles_per_handle: u32,
    /// Connection requests in all.
    pub connections: u32,
    /// Connection requests to one account.
    pub connections_per_user: u32,
    /// Pages of connections with its users that it compares with what it holds; a page has 500.
    pub comparisons: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            prekeys: 30_000,
            prekeys_per_user: 600,
            searches: 600,
            searches_per_term: 120,
            handles: 1200,
            handles_per_handle: 120,
            connections: 1200,
            connections_per_user: 60,
            comparisons: 600,
        }
    }
}

impl Config {
    /// How long another renewal keeps the old cookie, and after which age one is renewed.
    pub(crate) fn renew_age(&self) -> Duration {
        Duration::from_secs(self.tokens.renew_seconds)
    }

    /// How long the public half of a token key is kept after the key was replaced: 56 days, and longer than any of its
    /// tokens is good.
    pub(crate) fn keys_kept(&self) -> Duration {
        const LEAST: Duration = Duration::from_secs(56 * 86_400);
        let tokens = &self.tokens;
        let longest = tokens.persistent_seconds.max(tokens.session_seconds).max(tokens.access_seconds);
        LEAST.max(Duration::from_secs(longest) + Duration::from_secs(60))
    }
}

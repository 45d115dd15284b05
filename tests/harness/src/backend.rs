//! Whole backends in this process, each as `aldis all` runs it: own domain, certificate, store and sockets, with real
//! TLS and real DNS between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    thread::JoinHandle,
    time::Duration,
};

use aldis_proto::internal::v1::{
    CreateUserRequest, RemoteState, SetRemoteRequest, SetRemoteStateRequest, remote_admin_client::RemoteAdminClient,
    user_admin_client::UserAdminClient,
};
use aldis_types::{Domain, SearchPolicy};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use toml::Table;

use crate::{
    client::{Answer, Api, MailFolder, Person, User},
    dns::{Dns, Target},
    pki::{Authority, Identity},
    rogue::{Caller, Conduct, Rogue},
    settings,
    wait::{eventually, within},
};

/// How long a start or stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const CLIENT: u16 = 8080;
const FEDERATION: u16 = 8443;
const OPERATIONS: u16 = 8081;

/// What a federation is made of.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    domains: Vec<String>,
    settings: BTreeMap<String, Vec<String>>,
    strangers: BTreeSet<(String, String)>,
    alone: BTreeSet<String>,
}

impl Setup {
    /// Backends of these domains, each of which lists all others.
    pub fn of(domains: &[&str]) -> Self {
        Self { domains: domains.iter().map(|domain| (*domain).to_owned()).collect(), ..Self::default() }
    }

    /// Adds settings (TOML) to the configuration of one backend.
    #[must_use]
    pub fn configure(mut self, domain: &str, toml: &str) -> Self {
        self.settings.entry(domain.to_owned()).or_default().push(toml.to_owned());
        self
    }

    /// Takes the section `[federation]` away from one backend. It still lists the others.
    #[must_use]
    pub fn alone(mut self, domain: &str) -> Self {
        self.alone.insert(domain.to_owned());
        self
    }

    /// Keeps `of` from listing `other`; says nothing about the other direction.
    #[must_use]
    pub fn unlisted(mut self, of: &str, other: &str) -> Self {
        self.strangers.insert((of.to_owned(), other.to_owned()));
        self
    }
}

/// Backends that federate with each other. Everything ends when it is dropped.
pub struct Federation {
    backends: BTreeMap<String, Backend>,
    dns: Dns,
    authority: Authority,
    /// Removed with everything in it when the backends are gone.
    folder: TempDir,
}

struct Backend {
    domain: Domain,
    folder: PathBuf,
    address: Ipv4Addr,
    api: Api,
    running: Option<Running>,
}

/// A backend on threads of its own, as a process would have them.
struct Running {
    /// Ends it gracefully.
    stop: CancellationToken,
    /// Ends it at once.
    abandon: Option<DropGuard>,
    ended: oneshot::Receiver<Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abandon.take();
        // At once, because nothing is finished first; the files may go only when nobody uses them.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Running {
    fn start(config: PathBuf) -> Result<Self> {
        let (stop, abandon) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, abandoned) = (stop.clone().cancelled_owned(), abandon.clone().cancelled_owned());
        let (report, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let thread = std::thread::Builder::new().name("backend".to_owned()).spawn(move || {
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = aldis::serve(&config, stopped) => outcome,
                    () = abandoned => Ok(()),
                }
            });
            runtime.shutdown_background();
            // Nobody may be interested any more.
            let _ = report.send(outcome);
        })?;
        Ok(Self { stop, abandon: Some(abandon.drop_guard()), ended, thread: Some(thread) })
    }
}

/// The host name of a backend's federator, which its certificate bears.
pub fn federator_host(domain: &str) -> String {
    format!("federator.{domain}")
}

/// An address of loopback that no other backend of any test uses, so that its ports are free whatever runs beside us.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // The process id keeps apart test programs that run at the same time; 127.0 is left to everybody else.
    let process = u8::try_from(std::process::id() % 250).unwrap_or(0) + 3;
    Ipv4Addr::new(127, process, high, low)
}

impl Federation {
    /// Starts backends of these domains that list each other with full search.
    pub async fn start(domains: &[&str]) -> Result<Self> {
        Self::with(Setup::of(domains)).await
    }

    /// Starts what the setup describes.
    pub async fn with(setup: Setup) -> Result<Self> {
        let mut federation = Self {
            backends: BTreeMap::new(),
            dns: Dns::start().await?,
            authority: Authority::new("Federation of a test")?,
            folder: TempDir::with_prefix("aldis-it-")?,
        };
        let root = federation.folder.path().to_owned();
        std::fs::write(root.join("ca.pem"), federation.authority.pem())?;
        for domain in &setup.domains {
            let backend = Backend::prepare(&root, domain, federation.dns.address(), &setup)?;
            backend.set_identity(&federation.authority.issue(&[&federator_host(domain)])?)?;
            federation.dns.set_federator(domain, &[Target::new(federator_host(domain), FEDERATION)])?;
            federation.dns.set_host(&federator_host(domain), backend.address)?;
            federation.backends.insert(domain.clone(), backend);
        }
        try_join_all(federation.backends.values_mut().map(Backend::run)).await?;
        for (name, backend) in &federation.backends {
            for other in setup.domains.iter().filter(|other| *other != name) {
                if !setup.strangers.contains(&(name.clone(), other.clone())) {
                    backend.set_remote(other, SearchPolicy::FullSearch).await?;
                }
            }
        }
        Ok(federation)
    }

    fn backend(&self, domain: &str) -> Result<&Backend> {
        self.backends.get(domain).with_context(|| format!("no backend {domain}"))
    }

    fn backend_mut(&mut self, domain: &str) -> Result<&mut Backend> {
        self.backends.get_mut(domain).with_context(|| format!("no backend {domain}"))
    }

    /// The domain of a backend.
    pub fn domain(&self, domain: &str) -> Result<Domain> {
        Ok(self.backend(domain)?.domain.clone())
    }

    /// The client API of a backend.
    pub fn api(&self, domain: &str) -> Result<&Api> {
        Ok(&self.backend(domain)?.api)
    }

    /// The mail folder of a backend.
    pub fn mail(&self, domain: &str) -> Result<MailFolder> {
        Ok(self.backend(domain)?.mail())
    }

    /// The configuration file of a backend.
    pub fn config(&self, domain: &str) -> Result<PathBuf> {
        Ok(self.backend(domain)?.folder.join("aldis.toml"))
    }

    /// The file in which a backend keeps everything.
    pub fn store(&self, domain: &str) -> Result<PathBuf> {
        Ok(self.backend(domain)?.folder.join("data/aldis.db"))
    }

    /// Registers somebody with one device.
    pub async fn user(&self, domain: &str, name: &str) -> Result<User> {
        self.account(domain, name).await?.add_device().await
    }

    /// Registers somebody without a device.
    pub async fn account(&self, domain: &str, name: &str) -> Result<User> {
        let backend = self.backend(domain)?;
        User::register(&backend.api, &backend.mail(), Person::new(name)).await
    }

    /// Creates an account as the administrator does, and logs in to it.
    pub async fn created_user(&self, domain: &str, person: &Person) -> Result<User> {
        let backend = self.backend(domain)?;
        let mut admin = UserAdminClient::new(backend.admin());
        let request = CreateUserRequest {
            email: person.email.clone(),
            password: person.password.clone(),
            name: person.name.clone(),
            handle: Some(person.handle.clone()),
        };
        admin.create_user(request).await?;
        User::login(&backend.api, person).await
    }

    /// Lists a remote with this search policy.
    pub async fn set_remote(&self, on: &str, other: &str, policy: SearchPolicy) -> Result<()> {
        self.backend(on)?.set_remote(other, policy).await
    }

    /// Suspends a remote.
    pub async fn suspend(&self, on: &str, other: &str) -> Result<()> {
        self.backend(on)?.set_remote_state(other, RemoteState::Suspended).await
    }

    /// Ends federation with a remote.
    pub async fn end(&self, on: &str, other: &str) -> Result<()> {
        self.backend(on)?.set_remote_state(other, RemoteState::Ended).await
    }

    /// Ends a suspension.
    pub async fn resume(&self, on: &str, other: &str) -> Result<()> {
        self.backend(on)?.set_remote_state(other, RemoteState::Active).await
    }

    /// The DNS server that all backends ask.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// The authority that all backends trust.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where a backend's federator listens.
    pub fn federator(&self, domain: &str) -> Result<SocketAddr> {
        Ok(SocketAddr::from((self.backend(domain)?.address, FEDERATION)))
    }

    /// Gives a backend another certificate, which it takes up by itself.
    pub fn set_identity(&self, domain: &str, identity: &Identity) -> Result<()> {
        self.backend(domain)?.set_identity(identity)
    }

    /// Calls the federator of `to` directly, with this certificate, as `origin`.
    pub async fn call(&self, to: &str, identity: Option<&Identity>, origin: Option<&str>) -> Result<Caller> {
        Caller::connect(self.federator(to)?, &federator_host(to), &self.authority, identity, origin).await
    }

    /// Puts a misbehaving backend at this domain: certificate and DNS are in order. Whoever shall talk to it has to
    /// list it.
    pub async fn rogue(&self, domain: &str, conduct: Conduct) -> Result<Rogue> {
        let identity = self.authority.issue(&[&federator_host(domain)])?;
        self.rogue_with(domain, &identity, conduct).await
    }

    /// The same with any certificate.
    pub async fn rogue_with(&self, domain: &str, identity: &Identity, conduct: Conduct) -> Result<Rogue> {
        let rogue = Rogue::start(&self.authority, identity, conduct).await?;
        self.dns.set_host(&federator_host(domain), Ipv4Addr::LOCALHOST)?;
        self.dns.set_federator(domain, &[Target::new(federator_host(domain), rogue.port())])?;
        Ok(rogue)
    }

    /// `GET` on the listener for health and metrics.
    pub async fn operations(&self, domain: &str, path: &str) -> Result<Answer> {
        self.backend(domain)?.operations()?.get(path).await
    }

    /// Stops a backend gracefully.
    pub async fn stop(&mut self, domain: &str) -> Result<()> {
        let backend = self.backend_mut(domain)?;
        let mut running = backend.running.take().with_context(|| format!("{domain} does not run"))?;
        running.stop.cancel();
        let outcome = tokio::time::timeout(PATIENCE, &mut running.ended).await.context("the end of a backend")?;
        outcome.context("the backend panicked")?
    }

    /// Starts a stopped backend again, with everything it had.
    pub async fn resume_running(&mut self, domain: &str) -> Result<()> {
        let backend = self.backend_mut(domain)?;
        ensure!(backend.running.is_none(), "{domain} runs already");
        backend.run().await
    }
}

impl Backend {
    fn prepare(root: &Path, name: &str, dns: SocketAddr, setup: &Setup) -> Result<Self> {
        let folder = root.join(name);
        for part in ["data", "mail"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        let address = own_address();
        let mut config: Table = toml::from_str(&default_settings(name, address, dns)).context("default settings")?;
        if setup.alone.contains(name) {
            config.remove("federation");
        }
        for text in setup.settings.get(name).into_iter().flatten() {
            settings::merge(&mut config, toml::from_str(text).context("settings of a test")?);
        }
        std::fs::write(folder.join("aldis.toml"), toml::to_string(&config)?)?;
        let api = Api::new(&format!("http://{address}:{CLIENT}"), &format!("ws://{address}:{CLIENT}"))?;
        Ok(Self { domain: name.parse()?, folder, address, api, running: None })
    }

    async fn run(&mut self) -> Result<()> {
        let mut running = Running::start(self.folder.join("aldis.toml"))?;
        let operations = self.operations()?;
        let ready = within(PATIENCE, "a backend that is ready", async || operations.get("/readyz").await?.expect(200));
        tokio::select! {
            ready = ready => ready.map(drop)?,
            ended = &mut running.ended => {
                ended?.with_context(|| format!("{} did not start", self.domain))?;
                anyhow::bail!("{} ended at once", self.domain);
            }
        }
        self.running = Some(running);
        Ok(())
    }

    fn operations(&self) -> Result<Api> {
        Api::other(&format!("http://{}:{OPERATIONS}", self.address))
    }

    fn mail(&self) -> MailFolder {
        MailFolder::new(self.folder.join("mail"))
    }

    fn admin(&self) -> aldis_proto::channel::Channel {
        aldis_runtime::channel::unix(&self.folder.join("data/admin.sock"))
    }

    fn set_identity(&self, identity: &Identity) -> Result<()> {
        // The key first: until the certificate follows, the pair does not fit and the old one stays in use.
        replace(&self.folder.join("federation-key.pem"), &identity.key_pem)?;
        replace(&self.folder.join("federation.pem"), &identity.certificate_pem)
    }

    async fn set_remote(&self, other: &str, policy: SearchPolicy) -> Result<()> {
        use aldis_proto::federation::v1::SearchPolicy as Wire;
        let policy = match policy {
            SearchPolicy::NoSearch => Wire::NoSearch,
            SearchPolicy::ExactHandleSearch => Wire::ExactHandleSearch,
            SearchPolicy::FullSearch => Wire::FullSearch,
        };
        let search_policy = u32::try_from(i32::from(policy))?;
        let mut admin = RemoteAdminClient::new(self.admin());
        admin
            .set_remote(SetRemoteRequest { domain: other.to_owned(), search_policy, ..SetRemoteRequest::default() })
            .await?;
        Ok(())
    }

    async fn set_remote_state(&self, other: &str, state: RemoteState) -> Result<()> {
        let mut admin = RemoteAdminClient::new(self.admin());
        admin.set_remote_state(SetRemoteStateRequest { domain: other.to_owned(), state: state.into() }).await?;
        Ok(())
    }
}

fn replace(path: &Path, content: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, content)?;
    Ok(std::fs::rename(new, path)?)
}

fn default_settings(domain: &str, address: Ipv4Addr, dns: SocketAddr) -> String {
    format!(
        r#"
domain = "{domain}"
[store]
path = "data/aldis.db"
[client]
listen = "{address}:{CLIENT}"
[client.throttle]
enabled = false
# ALDIS_LOG__FILTER in the environment shows more.
[log]
format = "human"
filter = "error"
[operations]
listen = "{address}:{OPERATIONS}"
drain_seconds = 5
[users]
registration = "open"
[users.cookie]
secure = false
[users.mail]
folder = "mail"
[users.passwords]
memory_kib = 8
passes = 1
[users.limits]
login_gap_seconds = 0
[users.federation]
strategy = "allow_list"
[users.calls]
turn_uris = ["turn:127.0.0.1:3478?transport=udp"]
secret = "shared with nobody"
[federation]
listen = "{address}:{FEDERATION}"
certificate_file = "federation.pem"
key_file = "federation-key.pem"
ca_file = "../ca.pem"
dns = "{dns}"
breaker_pause_ms = 300
# Who calls whom first is for the test to say.
health_check_seconds = 0
"#
    )
}

/// Waits until users of two backends can reach each other, for instance after a suspension or a new certificate.
pub async fn reachable(from: &User, to: &User) -> Result<()> {
    let path = format!("/users/{}/{}", to.id.domain, to.id.id);
    eventually("a peer that can be reached", async || from.get(&path).await?.expect(200)).await.map(drop)
}

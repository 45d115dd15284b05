//! The folder of a local federation: what lies where, and which ports are whose.
//!
//! ```text
//! DIR/local.toml             domains and ports, fixed once written
//! DIR/ca.pem ca-key.pem      the authority that all backends trust for federation
//! DIR/people.toml            who the first people are, with their passwords
//! DIR/<domain>/aldis.toml    the backend's configuration, the operator's to edit
//! DIR/<domain>/federation.pem federation-key.pem
//! DIR/<domain>/internal/     certificates with which the backend's own services know each other
//! DIR/<domain>/data/ mail/ *.log
//! ```

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aldis_types::Domain;
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::ports::{self, Blocks};

/// The services of a backend, as they are called in subcommands, configuration and certificates.
pub(crate) const SERVICES: [&str; 5] = ["users", "conversations", "assets", "notifications", "federator"];

/// The web client, as it is called there; it has no certificate and no store.
pub(crate) const WEB: &str = "web";

const STATE: &str = "local.toml";
const PEOPLE: &str = "people.toml";
const VERSION: u32 = 1;
/// Ports from one backend to the next.
const STRIDE: u16 = ports::BLOCK;
/// Names in DIR that no domain may have.
const RESERVED: [&str; 4] = [STATE, PEOPLE, "ca.pem", "ca-key.pem"];

/// Content of `local.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    /// Where ports begin; 0: they were picked.
    base_port: u16,
    dns_port: u16,
    #[serde(default)]
    pub(crate) backends: Vec<Backend>,
}

/// One backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    pub(crate) domain: Domain,
    /// The client API.
    pub(crate) client: u16,
    /// The federator's door to other backends.
    pub(crate) federation: u16,
    pub(crate) operations: u16,
    /// Backends that were listed as remotes in this one's store.
    #[serde(default)]
    pub(crate) listed: BTreeSet<Domain>,
    /// Listeners of the services when each runs in a process of its own, in the order of [`SERVICES`].
    pub(crate) services: Vec<ServicePorts>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServicePorts {
    pub(crate) client: u16,
    pub(crate) internal: u16,
    pub(crate) federation: u16,
    pub(crate) operations: u16,
}

/// Where the web client listens in a process of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WebPorts {
    pub(crate) client: u16,
    pub(crate) operations: u16,
}

/// A loopback address.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl State {
    fn new(base_port: u16, blocks: &mut Blocks) -> Result<Self> {
        let dns_port = if base_port == 0 {
            blocks.take()?
        } else {
            base_port.checked_add(53).context("`--base-port` is too high")?
        };
        Ok(Self { version: VERSION, base_port, dns_port, backends: Vec::new() })
    }

    /// Whether it has ports of the block that begins here.
    pub(crate) fn uses(&self, block: u16) -> bool {
        [self.dns_port].into_iter().chain(self.backends.iter().map(|it| it.client)).any(|port| port == block)
    }

    pub(crate) fn dns(&self) -> SocketAddr {
        loopback(self.dns_port)
    }

    /// Where people open the web client of a backend. Browsers keep the cookies of a host in one place whatever the port
    /// is, so that backends under one name would log each other's people out: each has a name of its own for this machine.
    pub(crate) fn app(&self, backend: &Backend) -> String {
        let place = self.backends.iter().position(|it| it.domain == backend.domain);
        let host = match place {
            Some(0) => "127.0.0.1".to_owned(),
            Some(1) => "localhost".to_owned(),
            _ => format!("{}.localhost", backend.domain),
        };
        format!("http://{host}:{}{}/", backend.client, aldis_web::PATH)
    }

    pub(crate) fn backend(&self, domain: &Domain) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.domain == *domain)
    }

    /// Gives a domain its ports. Nothing happens to one that has some.
    fn add(&mut self, domain: &Domain, blocks: &mut Blocks) -> Result<()> {
        ensure!(!RESERVED.contains(&domain.as_str()), "{domain} cannot be a domain here: a file has that name");
        if self.backend(domain).is_some() {
            return Ok(());
        }
        let first = if self.base_port == 0 {
            blocks.take()?
        } else {
            let index = u16::try_from(self.backends.len() + 1).ok();
            let first = index.and_then(|index| index.checked_mul(STRIDE)?.checked_add(self.base_port));
            let first = first.filter(|first| first.checked_add(STRIDE).is_some());
            first.with_context(|| format!("no ports left above {} for {domain}", self.base_port))?
        };
        // 0 to 2 for the backend, then ten per service.
        let services = (1..=5_u16).flat_map(|service| (0..4).map(move |offset| first + 10 * service + offset));
        let ports: Vec<_> = [first, first + 1, first + 2].into_iter().chain(services).collect();
        let backend = Backend::with(domain, &ports)?;
        self.backends.push(backend);
        Ok(())
    }
}

impl Backend {
    fn with(domain: &Domain, ports: &[u16]) -> Result<Self> {
        let &[client, federation, operations, ref services @ ..] = ports else { bail!("too few ports") };
        let services = services.chunks_exact(4).map(|ports| ServicePorts {
            client: ports[0],
            internal: ports[1],
            federation: ports[2],
            operations: ports[3],
        });
        let (domain, listed) = (domain.clone(), BTreeSet::new());
        Ok(Self { domain, client, federation, operations, listed, services: services.collect() })
    }

    /// The block of ports that a backend has begins with its client port; services have those up to 60.
    pub(crate) fn web(&self) -> WebPorts {
        WebPorts { client: self.client.saturating_add(60), operations: self.client.saturating_add(63) }
    }

    /// Services with their listeners.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&'static str, ServicePorts)> {
        SERVICES.into_iter().zip(self.services.iter().copied())
    }
}

/// A folder of a local federation.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, which need not exist yet.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).with_context(|| format!("folder {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    pub(crate) fn ca_key(&self) -> PathBuf {
        self.file("ca-key.pem")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.file(STATE)
    }

    pub(crate) fn people(&self) -> PathBuf {
        self.file(PEOPLE)
    }

    pub(crate) fn dns_lock(&self) -> PathBuf {
        self.file(".dns.lock")
    }

    pub(crate) fn init_lock(&self) -> PathBuf {
        self.file(".init.lock")
    }

    pub(crate) fn dns_log(&self) -> PathBuf {
        self.file("dns.log")
    }

    pub(crate) fn of(&self, domain: &Domain) -> DomainFolder {
        DomainFolder(self.0.join(domain.as_str()))
    }

    /// What `init` wrote down; an error that says so when it never ran.
    pub(crate) fn state(&self) -> Result<State> {
        let file = self.state_file();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{} is not a local federation: `aldis local init` makes one", self.0.display())
            }
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let state: State = toml::from_str(&text).with_context(|| file.display().to_string())?;
        ensure!(state.version == VERSION, "{} was written by another version of Aldis", file.display());
        ensure!(state.backends.iter().all(|it| it.services.len() == SERVICES.len()), "{} is damaged", file.display());
        Ok(state)
    }

    /// Gives ports to the domains that have none and writes it down.
    pub(crate) fn assign(&self, domains: &[Domain], base_port: u16) -> Result<State> {
        let exists = self.state_file().exists();
        // Held until the ports are written down, by which others see that they are taken.
        let mut blocks = Blocks::of(self)?;
        let mut state = if exists { self.state()? } else { State::new(base_port, &mut blocks)? };
        let known = state.backends.len();
        for domain in domains {
            state.add(domain, &mut blocks)?;
        }
        if !exists || state.backends.len() > known {
            self.save(&state)?;
        }
        Ok(state)
    }

    /// Writes the state down.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let text = format!(
            "# Domains and ports of a local federation, written by `aldis local init`. Fixed: don't edit.\n{}",
            toml::to_string(state)?
        );
        write(&self.state_file(), text.as_bytes(), Access::All)
    }
}

/// The folder of one backend.
#[derive(Debug, Clone)]
pub(crate) struct DomainFolder(pub(crate) PathBuf);

impl DomainFolder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("aldis.toml")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("data/aldis.db")
    }

    pub(crate) fn mail(&self) -> PathBuf {
        self.0.join("mail")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.0.join("federation.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.0.join("federation-key.pem")
    }

    pub(crate) fn internal(&self) -> PathBuf {
        self.0.join("internal")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    All,
    Owner,
}

/// Makes a folder that only this user can enter, and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making the folder {}", path.display()))
}

/// Writes a file that is complete as soon as it is there.
pub(crate) fn write(path: &Path, content: &[u8], access: Access) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let mode = if access == Access::Owner { 0o600 } else { 0o644 };
    let written = || -> std::io::Result<()> {
        let mut file = File::options().create(true).truncate(true).write(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().with_context(|| format!("writing {}", path.display()))
}

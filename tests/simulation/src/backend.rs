//! A backend: its store, and the processes that run it one after another.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use aldis_delivery::{
    Config as Bounds, Outbox, Receiving, Relays, conversations_outbox, conversations_server, users_outbox, users_server,
};
use aldis_federator::{Capabilities, Components, Config, Dependencies};
use aldis_peers::{Peers, Policy};
use aldis_proto::{
    channel::{Channel, InProcess, boxed},
    internal::v1::push_server,
};
use aldis_runtime::{Clock, SharedClock};
use aldis_storage::{Db, DbOptions, copy, restore};
use aldis_types::{Domain, PolicySnapshot, RemotePolicy, RemoteState, SearchPolicy, Strategy, Timestamp};
use anyhow::{Context as _, Result};
use http::Request;
use tokio::{task::JoinSet, time::Instant};
use tonic::{Status, body::Body, service::Routes};
use tower::{ServiceExt as _, service_fn};

use crate::{
    chance::Chance,
    network::{Leaving, Network},
    pace::Steps,
    service::{Broken, Mood, Pushes, Service},
    tables,
    trace::{Life, Trace},
};

/// The largest body that another backend takes.
pub(crate) const TAKES: u64 = 8 * 1024;

/// Simulated time of day.
struct Days(Instant);

impl Clock for Days {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_770_000_000_000).plus(self.0.elapsed())
    }
}

/// What all backends share.
pub(crate) struct World {
    pub(crate) domains: Arc<Vec<Domain>>,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) clock: SharedClock,
    pub(crate) folder: PathBuf,
    pub(crate) ca_file: PathBuf,
    pub(crate) broken: Option<Broken>,
    pub(crate) next_change: AtomicU64,
    /// Stores of processes that ended: their files stay open, as nobody closes them in an orderly way.
    graveyard: Mutex<Vec<Db>>,
}

impl World {
    pub(crate) fn new(
        domains: Vec<Domain>,
        chance: &Chance,
        trace: Trace,
        folder: PathBuf,
        ca_file: PathBuf,
        broken: Option<Broken>,
    ) -> Self {
        let domains = Arc::new(domains);
        Self {
            network: Network::new(domains.clone(), chance.fork(), trace.clone()),
            domains,
            trace,
            clock: Arc::new(Days(Instant::now())),
            folder,
            ca_file,
            broken,
            next_change: AtomicU64::new(1),
            graveyard: Mutex::default(),
        }
    }
}

/// A backend of the simulation.
pub(crate) struct Backend {
    pub(crate) number: usize,
    pub(crate) domain: Domain,
    pub(crate) world: Arc<World>,
    pub(crate) mood: Arc<Mood>,
    pub(crate) chance: Chance,
    pub(crate) present: Mutex<Option<Arc<Process>>>,
    /// How often it was restored from a backup.
    pub(crate) restores: AtomicU32,
    /// Whether what waits was dropped for good, in lanes that begin anew.
    pub(crate) has_ended: AtomicBool,
    /// Whether an administrator dropped what waits.
    pub(crate) has_dropped: AtomicBool,
    store: Mutex<PathBuf>,
    backup: Mutex<Option<PathBuf>>,
    /// With the next start.
    to_restore: AtomicBool,
    files: AtomicU32,
    suspended: Mutex<Vec<Domain>>,
    certificate: (PathBuf, PathBuf),
    in_one_job: bool,
}

/// A running process.
pub(crate) struct Process {
    pub(crate) life: Life,
    pub(crate) steps: Arc<Steps>,
    pub(crate) db: Db,
    pub(crate) outboxes: [Outbox; 2],
    /// Administration of each.
    pub(crate) administration: [Channel; 2],
    policy: Policy,
    tasks: Mutex<JoinSet<()>>,
    federator: Mutex<Option<aldis_federator::Service>>,
}

impl Backend {
    pub(crate) fn new(world: Arc<World>, number: usize, chance: Chance, certificate: (PathBuf, PathBuf)) -> Self {
        let domain = world.domains[number].clone();
        Self {
            number,
            store: Mutex::new(world.folder.join(format!("{number}-0.db"))),
            domain,
            world,
            mood: Arc::default(),
            present: Mutex::default(),
            restores: AtomicU32::new(0),
            has_ended: AtomicBool::new(false),
            has_dropped: AtomicBool::new(false),
            backup: Mutex::default(),
            to_restore: AtomicBool::new(false),
            files: AtomicU32::new(1),
            suspended: Mutex::default(),
            certificate,
            in_one_job: chance.percent(50),
            chance,
        }
    }

    pub(crate) fn process(&self) -> Option<Arc<Process>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|process| !process.life.is_over())
    }

    fn file(&self, what: &str) -> PathBuf {
        let file = self.files.fetch_add(1, Ordering::SeqCst);
        self.world.folder.join(format!("{}-{file}.{what}", self.number))
    }

    /// Copies the store.
    pub(crate) fn back_up(&self) -> Result<()> {
        let (store, to) = (self.store.lock().unwrap_or_else(PoisonError::into_inner).clone(), self.file("backup"));
        copy(&store, &to)?;
        *self.backup.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
        Ok(())
    }

    /// Ends the process, and starts the next one from the backup, if there is one.
    pub(crate) fn restore_next(&self) -> bool {
        let is_there = self.backup.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.to_restore.store(is_there, Ordering::SeqCst);
        is_there
    }

    /// Allows all others but these.
    pub(crate) fn suspend(&self, domains: Vec<Domain>) {
        *self.suspended.lock().unwrap_or_else(PoisonError::into_inner) = domains;
        if let Some(process) = self.process() {
            process.policy.update(self.snapshot());
        }
    }

    fn snapshot(&self) -> PolicySnapshot {
        let suspended = self.suspended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let remotes = self.world.domains.iter().filter(|domain| **domain != self.domain).map(|domain| {
            let state = if suspended.contains(domain) { RemoteState::Suspended } else { RemoteState::Active };
            (domain.clone(), RemotePolicy::new(state, SearchPolicy::NoSearch))
        });
        let version = self.world.trace.now() + 1;
        PolicySnapshot { version, strategy: Strategy::AllowList, remotes: remotes.collect() }
    }

    /// Runs the backend: a process, and after its end the next one.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let life = Life::new();
            let started = tokio::select! {
                biased;
                () = life.over() => None,
                started = self.start(&life) => Some(started),
            };
            match started {
                Some(Ok(process)) => {
                    self.world.trace.note(format_args!("{} runs", self.domain));
                    *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
                    life.over().await;
                }
                Some(Err(error)) => {
                    // The store may be full, say.
                    self.world.trace.note(format_args!("{} cannot start: {error:#}", self.domain));
                    life.end();
                }
                None => {}
            }
            self.bury().await;
        }
    }

    /// What is left to do after the end of a process.
    async fn bury(&self) {
        let leaving = [Leaving::Closed, Leaving::Closed, Leaving::Late, Leaving::Silent][self.chance.index(4)];
        self.world.trace.count("kills");
        self.world.trace.note(format_args!("{} has ended: {leaving:?}", self.domain));
        self.world.network.left(self.number, leaving);
        let process = self.present.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = process {
            process.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
            drop(process.federator.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        let pause =
            if self.chance.percent(20) { self.chance.millis(1_000, 20_000) } else { self.chance.millis(0, 800) };
        tokio::time::sleep(pause).await;
        if self.to_restore.swap(false, Ordering::SeqCst)
            && let Err(error) = self.restore()
        {
            self.world.trace.wrong(format!("a restore failed: {error:#}"));
        }
    }

    fn restore(&self) -> Result<()> {
        let backup = self.backup.lock().unwrap_or_else(PoisonError::into_inner).clone().context("no backup")?;
        let store = self.file("db");
        let mut id = [0; 16];
        aldis_runtime::Random::fill(&self.chance, &mut id);
        restore(&backup, &store, &self.domain, id, self.world.clock.now())?;
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = store;
        self.restores.fetch_add(1, Ordering::SeqCst);
        self.world.trace.count("restores");
        self.world.trace.note(format_args!("{} is restored", self.domain));
        Ok(())
    }

    async fn start(&self, life: &Life) -> Result<Arc<Process>> {
        let world = &self.world;
        let steps = Arc::new(Steps {
            life: life.clone(),
            chance: self.chance.fork(),
            trace: world.trace.clone(),
            is_slow: AtomicBool::new(false),
            left: Mutex::new(self.chance.percent(5).then(|| 1 + self.chance.number(40))),
        });
        let path = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let db = Db::open_inline(&path, &DbOptions::default(), steps.clone())?;
        world.graveyard.lock().unwrap_or_else(PoisonError::into_inner).push(db.clone());
        tables::prepare(&db, &self.domain).await?;
        let mut outboxes = Vec::new();
        for component in tables::COMPONENTS {
            outboxes.push(Outbox::open(component, self.domain.clone(), db.clone(), world.clock.clone()).await?);
        }
        let outboxes: [Outbox; 2] = outboxes.try_into().ok().context("two components")?;
        let policy = Policy::new(Duration::from_secs(86_400));
        policy.update(self.snapshot());
        let components = self.components(&db, &policy);
        let capabilities = Capabilities::of_this_build(vec![10, 11], vec![10, 30], TAKES);
        let dependencies = Dependencies {
            domain: self.domain.clone(),
            clock: world.clock.clone(),
            random: Arc::new(self.chance.fork()),
            policy: policy.clone(),
            capabilities,
            components,
            stated_origin: false,
        };
        let config = Config {
            certificate_file: self.certificate.0.clone(),
            key_file: self.certificate.1.clone(),
            ca_file: Some(world.ca_file.clone()),
            health_check_seconds: 30,
            ..Config::default()
        };
        life.go_on().await;
        let listener = world.network.listen(self.number, life);
        let federator =
            aldis_federator::start_on(config, dependencies, listener, world.network.end_of(self.number, life))?;
        let mut tasks = JoinSet::new();
        let internal = InProcess::new();
        internal.serve(federator.internal.clone());
        let notifications = self.notifications(&db);
        let administration =
            [Routes::new(users_outbox(outboxes[0].clone())), Routes::new(conversations_outbox(outboxes[1].clone()))];
        let administration = administration.map(|routes| {
            let place = InProcess::new();
            place.serve(routes);
            place.channel()
        });
        for outbox in &outboxes {
            let relays = Relays {
                peers: Peers::new(internal.channel()),
                policy: policy.clone(),
                notifications: Some(notifications.clone()),
                conversations: None,
                bounds: Bounds::default(),
            };
            tasks.spawn(outbox.clone().run(relays));
        }
        Ok(Arc::new(Process {
            life: life.clone(),
            steps,
            db,
            outboxes,
            administration,
            policy,
            tasks: Mutex::new(tasks),
            federator: Mutex::new(Some(federator)),
        }))
    }

    /// What other backends reach here.
    fn components(&self, db: &Db, policy: &Policy) -> Components {
        let [users, conversations] = tables::COMPONENTS.map(|component| {
            Arc::new(Service {
                domain: self.domain.clone(),
                component,
                db: db.clone(),
                mood: self.mood.clone(),
                chance: self.chance.fork(),
                trace: self.world.trace.clone(),
                broken: self.world.broken,
                in_one_job: self.in_one_job,
            })
        });
        let shared = || (self.domain.clone(), db.clone(), self.world.clock.clone(), policy.clone());
        let (domain, own, clock, allowed) = shared();
        let users = Routes::new(users_server(domain, own, clock, allowed, Receiving::default(), users));
        let (domain, own, clock, allowed) = shared();
        let conversations = conversations_server(domain, own, clock, allowed, Receiving::default(), conversations);
        let conversations = Routes::new(conversations);
        Components { users: self.component(users), conversations: self.component(conversations), assets: None }
    }

    /// Our own notifications service.
    fn notifications(&self, db: &Db) -> Channel {
        let place = InProcess::new();
        place.serve(Routes::new(push_server::PushServer::new(Pushes {
            db: db.clone(),
            mood: self.mood.clone(),
            chance: self.chance.fork(),
            trace: self.world.trace.clone(),
        })));
        place.channel()
    }

    /// A component as the federator reaches it.
    fn component(&self, routes: Routes) -> Channel {
        let (mood, trace, chance) = (self.mood.clone(), self.world.trace.clone(), self.chance.fork());
        boxed(service_fn(move |request: Request<Body>| {
            let (routes, mood, trace, chance) = (routes.clone(), mood.clone(), trace.clone(), chance.clone());
            async move {
                trace.attempt("open");
                trace.count("opens");
                if mood.is_overloaded.load(Ordering::SeqCst) && chance.percent(50) {
                    return Ok::<_, std::io::Error>(Status::resource_exhausted("too much to do").into_http());
                }
                routes.oneshot(request).await.map_err(std::io::Error::other)
            }
        }))
    }
}

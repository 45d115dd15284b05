//! `aldis remote`.

use std::{collections::BTreeMap, time::Duration};

use aldis_proto::{
    convert,
    federation::v1::SearchPolicy as WireSearch,
    internal::v1::{
        ListBacklogRequest, ListPeersRequest, ListRemotesRequest, PeerBacklog, PeerState, ReconcileRequest,
        ReconcileResponse, RemoteState as WireState, SetRemoteRequest, SetRemoteStateRequest,
        conversations_outbox_client::ConversationsOutboxClient,
        conversations_reconciliation_client::ConversationsReconciliationClient,
        peer_states_client::PeerStatesClient,
        remote_admin_client::RemoteAdminClient,
        set_remote_request::{KeyPins, TeamRestriction},
        users_outbox_client::UsersOutboxClient,
        users_reconciliation_client::UsersReconciliationClient,
    },
};
use aldis_types::{Domain, KeyPin, PolicySnapshot, RemotePolicy, RemoteState, SearchPolicy, TeamId};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Administration, ConfigFile, ask, failure, print_json, print_lines, time, time_or_dash};
use crate::config::Config;

/// How long a comparison may take; longer than the backend gives it.
const ROUND: Duration = Duration::from_secs(610);

/// Commands of `aldis remote`.
#[derive(Debug, Subcommand)]
pub(crate) enum Remote {
    /// Show the other backends that are listed here, whether they can be reached, and what waits for them.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// List another backend, or change what is agreed with it. Revives one that was ended.
    Set(SetRemote),
    /// Stop talking to another backend, in both directions. What waits for it waits on.
    Suspend {
        /// The other backend.
        domain: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Talk to a suspended backend again, and deliver what waited.
    Resume {
        /// The other backend.
        domain: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Compare now which users here are in which conversations of another backend, and who is connected with whom there, and
    /// repair what differs. That happens by itself too: after something was lost, and every few hours. The other backend is
    /// asked to compare connections as well; what it holds of this one's conversations is for its administrator to compare.
    Reconcile {
        /// The other backend.
        domain: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// End federation with another backend: its users leave conversations here, ours leave its own, connections with its
    /// users are cancelled, and what waits for it is dropped. Goes on in the background, also after a restart.
    End {
        /// The other backend.
        domain: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// What is not given stays as it is.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct SetRemote {
    /// The other backend.
    domain: String,
    /// What users there may find here: `no_search`, `exact_handle_search` (whoever has that handle), or
    /// `full_search` (as users here do). Needed for a backend that is not listed yet.
    #[arg(long, value_name = "POLICY", group = "change")]
    search_policy: Option<SearchPolicy>,
    /// Only users of this team there may find users here and connect with them. May be given several times.
    #[arg(long, value_name = "ID", group = "change", conflicts_with = "any_team")]
    team: Vec<TeamId>,
    /// Users of any team there, or of none, may find users here and connect with them.
    #[arg(long, group = "change")]
    any_team: bool,
    /// Its federation certificate must have this public key: the SHA-256 of its `SubjectPublicKeyInfo`, 64 hexadecimal
    /// digits. May be given several times, for instance for the key that comes next. Holds beside everything else that is
    /// asked of the certificate.
    #[arg(long, value_name = "SHA256", group = "change", conflicts_with = "no_pin")]
    pin: Vec<KeyPin>,
    /// Any public key will do.
    #[arg(long, group = "change")]
    no_pin: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl SetRemote {
    fn request(&self, domain: &Domain) -> SetRemoteRequest {
        let teams = (self.any_team || !self.team.is_empty())
            .then(|| TeamRestriction { any: self.any_team, teams: self.team.iter().map(convert::bytes_of).collect() });
        let pins = (self.no_pin || !self.pin.is_empty())
            .then(|| KeyPins { pins: self.pin.iter().map(|pin| Bytes::copy_from_slice(&pin.0)).collect() });
        SetRemoteRequest { domain: domain.to_string(), search_policy: self.search_policy.map_or(0, wire), teams, pins }
    }
}

impl Administration {
    /// The other backends that are listed.
    pub(crate) async fn remotes(&self) -> Result<BTreeMap<Domain, RemotePolicy>> {
        Ok(self.policy().await?.remotes)
    }

    /// The policy in force.
    pub(crate) async fn policy(&self) -> Result<PolicySnapshot> {
        let call = async { RemoteAdminClient::new(self.channel.clone()).list_remotes(ListRemotesRequest {}).await };
        let policy = ask(call).await?.policy.context("the backend answered without a policy")?;
        Ok(convert::from_policy(&policy)?)
    }

    /// Lists a backend or changes what its users may find.
    pub(crate) async fn set_remote(&self, domain: &Domain, search: SearchPolicy) -> Result<()> {
        let search_policy = wire(search);
        self.change_remote(SetRemoteRequest {
            domain: domain.to_string(),
            search_policy,
            ..SetRemoteRequest::default()
        })
        .await
    }

    async fn change_remote(&self, request: SetRemoteRequest) -> Result<()> {
        let call = async { RemoteAdminClient::new(self.channel.clone()).set_remote(request).await };
        ask(call).await.map(drop)
    }

    async fn set_state(&self, domain: &Domain, state: WireState) -> Result<()> {
        let request = SetRemoteStateRequest { domain: domain.to_string(), state: state.into() };
        let call = async { RemoteAdminClient::new(self.channel.clone()).set_remote_state(request).await };
        ask(call).await.map(drop)
    }

    /// Has places in conversations, and connections, compared with a backend now.
    async fn reconcile(&self, domain: &Domain) -> Result<[ReconcileResponse; 2]> {
        let request = ReconcileRequest { domain: domain.to_string() };
        let mut conversations = ConversationsReconciliationClient::new(self.channel.clone());
        let mut users = UsersReconciliationClient::new(self.channel.clone());
        let calls = async { tokio::join!(conversations.reconcile(request.clone()), users.reconcile(request.clone())) };
        let (places, connections) =
            tokio::time::timeout(ROUND, calls).await.context("the comparison takes too long")?;
        let places = places.map_err(|status| failure(&status).context("comparing places in conversations"))?;
        let connections = connections.map_err(|status| failure(&status).context("comparing connections"))?;
        Ok([places.into_inner(), connections.into_inner()])
    }

    /// What the federator knows of its peers; nothing when it does not run.
    async fn peers(&self) -> Vec<PeerState> {
        let call = async { PeerStatesClient::new(self.channel.clone()).list_peers(ListPeersRequest::default()).await };
        ask(call).await.map(|answer| answer.peers).unwrap_or_default()
    }

    /// What waits for other backends; `None` when a service that knows does not answer.
    async fn backlogs(&self) -> Option<BTreeMap<String, Backlog>> {
        let (mut users, mut conversations) =
            (UsersOutboxClient::new(self.channel.clone()), ConversationsOutboxClient::new(self.channel.clone()));
        let (users, conversations) = tokio::join!(
            ask(async { users.list_backlog(ListBacklogRequest {}).await }),
            ask(async { conversations.list_backlog(ListBacklogRequest {}).await }),
        );
        let mut backlogs: BTreeMap<String, Backlog> = BTreeMap::new();
        for peer in users.ok()?.peers.into_iter().chain(conversations.ok()?.peers) {
            backlogs.entry(peer.peer.clone()).or_default().add(&peer);
        }
        Some(backlogs)
    }
}

/// What waits for one backend.
#[derive(Debug, Clone, Copy, Default)]
struct Backlog {
    rows: u64,
    /// Milliseconds since 1970; 0 without any.
    oldest: i64,
    dead: u64,
    dropped: u64,
    /// Milliseconds since 1970; 0 when its relay is not held.
    paused: i64,
}

impl Backlog {
    fn add(&mut self, more: &PeerBacklog) {
        self.rows += more.rows;
        self.dead += more.dead;
        self.dropped += more.dropped;
        self.paused = self.paused.max(more.paused);
        if more.oldest > 0 && (self.oldest == 0 || more.oldest < self.oldest) {
            self.oldest = more.oldest;
        }
    }

    fn json(self) -> Value {
        json!({ "rows": self.rows, "oldest": time(self.oldest), "dead_letters": self.dead,
            "dropped": self.dropped, "paused": time(self.paused) })
    }

    fn text(self) -> String {
        let waiting = match self.rows {
            0 => "nothing waits".to_owned(),
            rows => format!("{rows} waiting since {}", time_or_dash(self.oldest)),
        };
        let dead = if self.dead == 0 { String::new() } else { format!(", {} dead letters", self.dead) };
        let dropped = if self.dropped == 0 { String::new() } else { format!(", {} dropped", self.dropped) };
        let paused =
            if self.paused == 0 { String::new() } else { format!(", held since {}", time_or_dash(self.paused)) };
        format!("{waiting}{dead}{dropped}{paused}")
    }
}

fn wire(search: SearchPolicy) -> u32 {
    i32::from(WireSearch::from(search)).cast_unsigned()
}

/// Runs a command of `aldis remote`.
pub(crate) async fn run(command: Remote) -> Result<()> {
    match command {
        Remote::List { json, config } => {
            let config = Config::load(&config.config)?;
            let administration = Administration::of(&config).await?;
            let remotes = administration.remotes().await?;
            let (peers, backlogs) = tokio::join!(administration.peers(), administration.backlogs());
            let live = Live { peers, backlogs };
            if json {
                return print_json(&remotes.iter().map(|(domain, remote)| live.row(domain, remote)).collect());
            }
            if remotes.is_empty() {
                return print_lines(["no other backends are listed".to_owned()]);
            }
            print_lines(remotes.iter().map(|(domain, remote)| live.line(domain, remote)))
        }
        Remote::Set(arguments) => {
            let (administration, domain) = about(&arguments.domain, &arguments.config).await?;
            administration.change_remote(arguments.request(&domain)).await
        }
        Remote::Suspend { domain, config } => {
            let (administration, domain) = about(&domain, &config).await?;
            administration.set_state(&domain, WireState::Suspended).await
        }
        Remote::Resume { domain, config } => {
            let (administration, domain) = about(&domain, &config).await?;
            administration.set_state(&domain, WireState::Active).await
        }
        Remote::Reconcile { domain, json, config } => {
            let (administration, domain) = about(&domain, &config).await?;
            let [places, connections] = administration.reconcile(&domain).await?;
            if json {
                return print_json(&json!({ "conversations": found(&places), "connections": found(&connections) }));
            }
            let said = |answer: &ReconcileResponse, what: &str, each: &str| {
                let ReconcileResponse { compared, differing, repaired, waiting } = answer;
                format!(
                    "{compared} {what} compared, {differing} {each} differed, {repaired} repaired, {waiting} waiting"
                )
            };
            print_lines([
                said(&places, "places in conversations", "conversations"),
                said(&connections, "connections", "of them"),
            ])
        }
        Remote::End { domain, config } => {
            let (administration, domain) = about(&domain, &config).await?;
            administration.set_state(&domain, WireState::Ended).await
        }
    }
}

fn found(answer: &ReconcileResponse) -> serde_json::Value {
    let ReconcileResponse { compared, differing, repaired, waiting } = answer;
    json!({ "compared": compared, "differing": differing, "repaired": repaired, "waiting": waiting })
}

/// A domain other than our own.
fn other(text: &str, config: &Config) -> Result<Domain> {
    let domain: Domain = text.parse().map_err(|error| anyhow::anyhow!("{text:?}: {error}"))?;
    if domain == config.domain {
        bail!("{domain} is this backend's own domain");
    }
    Ok(domain)
}

async fn about(domain: &str, config: &ConfigFile) -> Result<(Administration, Domain)> {
    let config = Config::load(&config.config)?;
    let domain = other(domain, &config)?;
    Ok((Administration::of(&config).await?, domain))
}

fn state_name(state: RemoteState) -> &'static str {
    match state {
        RemoteState::Active => "active",
        RemoteState::Suspended => "suspended",
        RemoteState::Ended => "ended",
    }
}

/// What the running backend knows beside its list.
struct Live {
    peers: Vec<PeerState>,
    backlogs: Option<BTreeMap<String, Backlog>>,
}

impl Live {
    fn peer(&self, domain: &Domain) -> Option<&PeerState> {
        self.peers.iter().find(|peer| peer.domain == domain.as_str())
    }

    fn backlog(&self, domain: &Domain) -> Option<Backlog> {
        let backlogs = self.backlogs.as_ref()?;
        Some(backlogs.get(domain.as_str()).copied().unwrap_or_default())
    }

    fn line(&self, domain: &Domain, remote: &RemotePolicy) -> String {
        let link = match self.peer(domain) {
            None => "no contact since the start".to_owned(),
            Some(peer) => {
                let (reachable, since) = reach(peer);
                let since = time_or_dash(since);
                match reachable {
                    Some(true) => format!("reachable since {since}"),
                    Some(false) => format!("unreachable since {since}: {}, breaker {}", peer.last_error, peer.breaker),
                    None => "not connected".to_owned(),
                }
            }
        };
        let teams = remote.teams.as_ref().map(|teams| format!("  {} teams", teams.len())).unwrap_or_default();
        let pins = if remote.pins.is_empty() { String::new() } else { format!("  {} pins", remote.pins.len()) };
        let (domain_text, state, search) = (domain.as_str(), state_name(remote.state), remote.search_policy.as_str());
        let waiting = self.backlog(domain).map_or_else(|| "backlog unknown".to_owned(), Backlog::text);
        format!("{domain_text:30}  {state:9}  {search:19}  {link}  {waiting}{teams}{pins}")
    }

    fn row(&self, domain: &Domain, remote: &RemotePolicy) -> Value {
        let mut row = json!({
            "domain": domain,
            "state": state_name(remote.state),
            "search_policy": remote.search_policy,
            "teams": remote.teams,
            "pins": remote.pins,
            "backlog": self.backlog(domain).map(Backlog::json),
        });
        if let Some(peer) = self.peer(domain) {
            let (reachable, since) = reach(peer);
            row["reachable"] = reachable.into();
            row["since"] = json!(time(since));
            row["last_error"] = json!((!peer.last_error.is_empty()).then_some(&peer.last_error));
            row["last_error_time"] = json!(time(peer.last_error_time));
            row["breaker"] = json!(peer.breaker);
            row["latency_micros"] = json!(peer.latency_micros);
            row["certificate_expiry"] = json!(time(peer.certificate_expiry));
            row["fetches_assets"] = json!(peer.capabilities.as_ref().map(|capabilities| {
                json!({ "max_bytes": capabilities.max_asset_bytes, "types": capabilities.asset_types })
            }));
            row["build"] = json!((!peer.build.is_empty()).then_some(&peer.build));
        }
        row
    }
}

/// Whether a backend can be reached, and since when that is so; `None` when nobody has tried.
fn reach(peer: &PeerState) -> (Option<bool>, i64) {
    (peer.reachable, peer.reachable_since)
}

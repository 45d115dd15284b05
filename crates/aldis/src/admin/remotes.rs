//! `aldis remote`.

use std::collections::BTreeMap;

use aldis_proto::{
    convert,
    federation::v1::SearchPolicy as WireSearch,
    internal::v1::{
        ListPeersRequest, ListRemotesRequest, PeerState, RemoteState as WireState, SetRemoteRequest,
        SetRemoteStateRequest, peer_states_client::PeerStatesClient, remote_admin_client::RemoteAdminClient,
    },
};
use aldis_types::{Domain, PolicySnapshot, RemotePolicy, RemoteState, SearchPolicy};
use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::{Administration, ConfigFile, ask, print_json, print_lines};
use crate::config::Config;

/// Commands of `aldis remote`.
#[derive(Debug, Subcommand)]
pub(crate) enum Remote {
    /// Show the other backends that are listed here.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// List another backend, or change what its users may find here. Revives one that was ended.
    Set {
        /// The other backend.
        domain: String,
        /// What users there may find here: `no_search`, `exact_handle_search` (whoever has that handle), or
        /// `full_search` (as users here do).
        #[arg(long, value_name = "POLICY")]
        search_policy: SearchPolicy,
        #[command(flatten)]
        config: ConfigFile,
    },
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
    /// End federation with another backend: its users leave conversations here, ours leave its own, connections with its
    /// users are cancelled, and what waits for it is dropped. Goes on in the background, also after a restart.
    End {
        /// The other backend.
        domain: String,
        #[command(flatten)]
        config: ConfigFile,
    },
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
        let request = SetRemoteRequest { domain: domain.to_string(), search_policy: wire(search) };
        let call = async { RemoteAdminClient::new(self.channel.clone()).set_remote(request).await };
        ask(call).await.map(drop)
    }

    async fn set_state(&self, domain: &Domain, state: WireState) -> Result<()> {
        let request = SetRemoteStateRequest { domain: domain.to_string(), state: state.into() };
        let call = async { RemoteAdminClient::new(self.channel.clone()).set_remote_state(request).await };
        ask(call).await.map(drop)
    }

    /// What the federator knows of its peers; nothing when it does not run.
    async fn peers(&self) -> Vec<PeerState> {
        let call = async { PeerStatesClient::new(self.channel.clone()).list_peers(ListPeersRequest::default()).await };
        ask(call).await.map(|answer| answer.peers).unwrap_or_default()
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
            print_remotes(&remotes, &administration.peers().await, json)
        }
        Remote::Set { domain, search_policy, config } => {
            let (administration, domain) = about(&domain, &config).await?;
            administration.set_remote(&domain, search_policy).await
        }
        Remote::Suspend { domain, config } => {
            let (administration, domain) = about(&domain, &config).await?;
            administration.set_state(&domain, WireState::Suspended).await
        }
        Remote::Resume { domain, config } => {
            let (administration, domain) = about(&domain, &config).await?;
            administration.set_state(&domain, WireState::Active).await
        }
        Remote::End { domain, config } => {
            let (administration, domain) = about(&domain, &config).await?;
            administration.set_state(&domain, WireState::Ended).await
        }
    }
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

fn print_remotes(remotes: &BTreeMap<Domain, RemotePolicy>, peers: &[PeerState], json: bool) -> Result<()> {
    let peer = |domain: &Domain| peers.iter().find(|peer| peer.domain == domain.as_str());
    if json {
        let rows: Vec<_> = remotes.iter().map(|(domain, remote)| json_row(domain, remote, peer(domain))).collect();
        return print_json(&rows.into());
    }
    if remotes.is_empty() {
        return print_lines(["no other backends are listed".to_owned()]);
    }
    print_lines(remotes.iter().map(|(domain, remote)| {
        let link = match peer(domain) {
            None => "no contact since the start".to_owned(),
            Some(peer) if peer.connected => "connected".to_owned(),
            Some(peer) if !peer.last_error.is_empty() => format!("not connected: {}", peer.last_error),
            Some(_) => "not connected".to_owned(),
        };
        let (domain, state, search) = (domain.as_str(), state_name(remote.state), remote.search_policy.as_str());
        format!("{domain:30}  {state:9}  {search:19}  {link}")
    }))
}

fn json_row(domain: &Domain, remote: &RemotePolicy, peer: Option<&PeerState>) -> serde_json::Value {
    let mut row = serde_json::json!({
        "domain": domain,
        "state": state_name(remote.state),
        "search_policy": remote.search_policy,
    });
    if let Some(peer) = peer {
        row["peer"] = serde_json::json!({
            "connected": peer.connected,
            "connected_since": peer.connected_since,
            "last_error": peer.last_error,
            "last_error_time": peer.last_error_time,
            "breaker": peer.breaker,
            "build": peer.build,
        });
    }
    row
}

//! `aldis outbox`.

use std::collections::BTreeMap;

use aldis_proto::internal::v1::{
    ChangeOutboxRequest, LaneBacklog, ListBacklogRequest, ListLanesRequest, ListRowsRequest, OutboxRow, PeerBacklog,
    change_outbox_request::{Change, Drop, Pause, Replay, Resume},
    conversations_outbox_client::ConversationsOutboxClient,
    outbox_admin_client::OutboxAdminClient,
    users_outbox_client::UsersOutboxClient,
};
use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Administration, ConfigFile, ask, print_json, print_lines, time, time_or_dash};
use crate::config::Config;

/// Lanes that are asked for at once.
const LANES: u32 = 1000;
/// The services that have outboxes.
const USERS: &str = "users";
const CONVERSATIONS: &str = "conversations";

/// Commands of `aldis outbox`.
#[derive(Debug, Subcommand)]
pub(crate) enum Outbox {
    /// Show for whom events wait: how many, since when, what the relay does, the last error, dead letters, and what was
    /// dropped. With a backend: the same for each conversation or user that the events are about.
    List {
        /// The other backend, or `service:` and the name of a service of this one.
        peer: Option<String>,
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Show single events: kind, place, age and size, never what they say. With `--dead`, those that were refused for good,
    /// and why.
    Inspect {
        #[command(flatten)]
        which: Which,
        /// Those that were refused for good.
        #[arg(long)]
        dead: bool,
        /// At most so many of each service.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Send messages that were refused for good once more, after everything that waits. Changes of conversations and
    /// accounts are not sent again, because later ones are in force already: they are marked to be compared with the other
    /// backend.
    Replay {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Drop what waits for a backend. The backend is told, and tells the apps of the users concerned that they missed
    /// something. With `--dead`, forget what was refused for good.
    Drop {
        #[command(flatten)]
        which: Which,
        /// What was refused for good.
        #[arg(long)]
        dead: bool,
        /// Needed: what is dropped is gone.
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Send nothing more to a backend until `resume`, over restarts too. What it asks and is asked goes on.
    Pause {
        /// The other backend.
        peer: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Send to a backend again.
    Resume {
        /// The other backend.
        peer: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// Whose events.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The other backend.
    peer: String,
    /// Only of this conversation or user.
    #[arg(long, value_name = "ID")]
    lane: Option<Uuid>,
}

impl Which {
    fn lane(&self) -> Option<Bytes> {
        self.lane.map(|lane| Bytes::copy_from_slice(lane.as_bytes()))
    }
}

impl Administration {
    /// Asks the outboxes of users and conversations; each with the name of its service.
    async fn backlog_of_each(&self) -> Result<[(&'static str, Vec<PeerBacklog>); 2]> {
        let (mut users, mut conversations) = self.outboxes();
        let (users, conversations) = tokio::join!(
            ask(async { users.list_backlog(ListBacklogRequest {}).await }),
            ask(async { conversations.list_backlog(ListBacklogRequest {}).await }),
        );
        Ok([(USERS, users?.peers), (CONVERSATIONS, conversations?.peers)])
    }

    async fn lanes_of_each(&self, peer: &str) -> Result<[(&'static str, Vec<LaneBacklog>); 2]> {
        let (mut users, mut conversations) = self.outboxes();
        let request = ListLanesRequest { peer: peer.to_owned(), limit: LANES };
        let (users, conversations) = tokio::join!(
            ask(async { users.list_lanes(request.clone()).await }),
            ask(async { conversations.list_lanes(request.clone()).await }),
        );
        Ok([(USERS, users?.lanes), (CONVERSATIONS, conversations?.lanes)])
    }

    async fn rows_of_each(&self, request: ListRowsRequest) -> Result<[(&'static str, Vec<OutboxRow>); 2]> {
        let (mut users, mut conversations) = self.outboxes();
        let (users, conversations) = tokio::join!(
            ask(async { users.list_rows(request.clone()).await }),
            ask(async { conversations.list_rows(request.clone()).await }),
        );
        Ok([(USERS, users?.rows), (CONVERSATIONS, conversations?.rows)])
    }

    fn outboxes(
        &self,
    ) -> (UsersOutboxClient<aldis_proto::channel::Channel>, ConversationsOutboxClient<aldis_proto::channel::Channel>)
    {
        (UsersOutboxClient::new(self.channel.clone()), ConversationsOutboxClient::new(self.channel.clone()))
    }

    async fn change_outboxes(&self, peer: String, change: Change) -> Result<(u64, u64)> {
        let request = ChangeOutboxRequest { peer, change: Some(change) };
        let mut client = OutboxAdminClient::new(self.channel.clone());
        let answer = ask(async { client.change_outboxes(request).await }).await?;
        Ok((answer.rows, answer.skipped))
    }
}

/// Runs a command of `aldis outbox`.
pub(crate) async fn run(command: Outbox) -> Result<()> {
    match command {
        Outbox::List { peer: None, json, config } => {
            let each = Administration::of(&Config::load(&config.config)?).await?.backlog_of_each().await?;
            let mut found: BTreeMap<(String, &str), PeerBacklog> = BTreeMap::new();
            for (service, peers) in each {
                found.extend(peers.into_iter().map(|peer| ((peer.peer.clone(), service), peer)));
            }
            let found = found.into_iter().map(|((_, service), peer)| (service, peer));
            shown(json, found.collect(), peer_row, peer_line, "nothing waits")
        }
        Outbox::List { peer: Some(peer), json, config } => {
            let each = Administration::of(&Config::load(&config.config)?).await?.lanes_of_each(&peer).await?;
            shown(json, flat(each), lane_row, lane_line, "nothing waits")
        }
        Outbox::Inspect { which, dead, limit, json, config } => {
            let administration = Administration::of(&Config::load(&config.config)?).await?;
            let request = ListRowsRequest { lane: which.lane(), peer: which.peer, dead, after: 0, limit };
            let each = administration.rows_of_each(request).await?;
            let nothing = if dead { "no dead letters" } else { "nothing waits" };
            shown(json, flat(each), event_row, event_line, nothing)
        }
        Outbox::Replay { which, config } => {
            let change = Change::Replay(Replay { lane: which.lane() });
            let (rows, skipped) = changed(which.peer, change, &config).await?;
            let left = match skipped {
                0 => String::new(),
                left => format!("; {left} changes are left, because later ones are in force"),
            };
            print_lines([format!("{rows} messages are sent again{left}")])
        }
        Outbox::Drop { which, dead, yes, config } => {
            ensure!(yes, "--yes is needed: what is dropped is gone");
            let change = Change::Drop(Drop { lane: which.lane(), dead });
            let (rows, _) = changed(which.peer, change, &config).await?;
            print_lines([format!("{rows} events were dropped")])
        }
        Outbox::Pause { peer, config } => changed(peer, Change::Pause(Pause {}), &config).await.map(drop),
        Outbox::Resume { peer, config } => changed(peer, Change::Resume(Resume {}), &config).await.map(drop),
    }
}

async fn changed(peer: String, change: Change, config: &ConfigFile) -> Result<(u64, u64)> {
    let config = Config::load(&config.config)?;
    if peer == config.domain.as_str() {
        bail!("{peer} is this backend's own domain");
    }
    Administration::of(&config).await?.change_outboxes(peer, change).await
}

fn flat<T>(each: [(&'static str, Vec<T>); 2]) -> Vec<(&'static str, T)> {
    each.into_iter().flat_map(|(service, all)| all.into_iter().map(move |one| (service, one))).collect()
}

fn shown<T>(
    json: bool,
    found: Vec<(&'static str, T)>,
    row: fn(&str, &T) -> Value,
    line: fn(&str, &T) -> String,
    nothing: &str,
) -> Result<()> {
    if json {
        return print_json(&found.iter().map(|(service, one)| row(service, one)).collect());
    }
    if found.is_empty() {
        return print_lines([nothing.to_owned()]);
    }
    print_lines(found.iter().map(|(service, one)| line(service, one)))
}

fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn peer_row(service: &str, peer: &PeerBacklog) -> Value {
    json!({
        "peer": peer.peer,
        "service": service,
        "rows": peer.rows,
        "bytes": peer.bytes,
        "oldest": time(peer.oldest),
        "activity": text(&peer.activity),
        "paused": time(peer.paused),
        "last_error": text(&peer.last_error),
        "last_error_time": time(peer.last_error_time),
        "dead_letters": peer.dead,
        "dropped": peer.dropped,
        "last_dropped": time(peer.last_dropped),
        "marked_lanes": peer.marked,
    })
}

fn peer_line(service: &str, peer: &PeerBacklog) -> String {
    let mut parts = vec![format!("{:30}  {service:13}  {:12}", peer.peer, text(&peer.activity).unwrap_or("-"))];
    parts.push(match peer.rows {
        0 => "nothing waits".to_owned(),
        rows => format!("{rows} waiting ({} bytes) since {}", peer.bytes, time_or_dash(peer.oldest)),
    });
    if peer.paused > 0 {
        parts.push(format!("paused since {}", time_or_dash(peer.paused)));
    }
    if peer.dead > 0 {
        parts.push(format!("{} dead letters", peer.dead));
    }
    if peer.dropped > 0 {
        parts.push(format!("{} dropped, last at {}", peer.dropped, time_or_dash(peer.last_dropped)));
    }
    if peer.marked > 0 {
        parts.push(format!("{} lanes to be compared", peer.marked));
    }
    if !peer.last_error.is_empty() {
        parts.push(format!("{}: {}", time_or_dash(peer.last_error_time), peer.last_error));
    }
    parts.join("  ")
}

fn lane_text(lane: &[u8]) -> String {
    Uuid::from_slice(lane).map_or_else(|_| "all".to_owned(), |lane| lane.to_string())
}

fn lane_row(service: &str, lane: &LaneBacklog) -> Value {
    json!({
        "lane": lane_text(&lane.lane),
        "service": service,
        "rows": lane.rows,
        "bytes": lane.bytes,
        "oldest": time(lane.oldest),
        "dead_letters": lane.dead,
        "held": text(&lane.held),
        "marked": lane.marked,
    })
}

fn lane_line(service: &str, lane: &LaneBacklog) -> String {
    let (id, since) = (lane_text(&lane.lane), time_or_dash(lane.oldest));
    let mut parts = vec![format!("{id:36}  {service:13}  {:6} waiting since {since}", lane.rows)];
    if lane.dead > 0 {
        parts.push(format!("{} dead letters", lane.dead));
    }
    if !lane.held.is_empty() {
        parts.push(format!("held: {}", lane.held));
    }
    if lane.marked {
        parts.push("to be compared".to_owned());
    }
    parts.join("  ")
}

fn kind_text(service: &str, kind: u32) -> String {
    let name = match (service, kind) {
        (_, 1) => "taken-back",
        (_, 2) => "dropped",
        (USERS, 10) => "connection-rescinded",
        (USERS, 11) => "user-deleted",
        (USERS, 12) => "profile-changed",
        (CONVERSATIONS, 10) => "created",
        (CONVERSATIONS, 11) => "members-added",
        (CONVERSATIONS, 12) => "members-removed",
        (CONVERSATIONS, 13) => "renamed",
        (CONVERSATIONS, 14) => "member-role-changed",
        (CONVERSATIONS, 15) => "message-timer-changed",
        (CONVERSATIONS, 16) => "receipt-mode-changed",
        (CONVERSATIONS, 17) => "access-changed",
        (CONVERSATIONS, 18) => "deleted",
        (CONVERSATIONS, 19) => "members-departed",
        (CONVERSATIONS, 30) => "message-sent",
        _ => return kind.to_string(),
    };
    name.to_owned()
}

fn event_row(service: &str, row: &OutboxRow) -> Value {
    json!({
        "id": row.id,
        "service": service,
        "lane": lane_text(&row.lane),
        "sequence": row.sequence,
        "kind": kind_text(service, row.kind),
        "bytes": row.bytes,
        "created": time(row.created),
        "reason": text(&row.reason),
        "died": time(row.died),
    })
}

fn event_line(service: &str, row: &OutboxRow) -> String {
    let (id, lane, kind, created) =
        (row.id, lane_text(&row.lane), kind_text(service, row.kind), time_or_dash(row.created));
    let (sequence, bytes) = (row.sequence, row.bytes);
    let died = match row.died {
        0 => String::new(),
        died => format!("  {} at {}", row.reason, time_or_dash(died)),
    };
    format!("{id:8}  {service:13}  {lane}  {sequence:6}  {kind:20}  {bytes:8} bytes  {created}{died}")
}

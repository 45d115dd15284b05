//! `aldis audit`.

use aldis_proto::internal::v1::{AuditRecord, ListRecordsRequest, audit_log_client::AuditLogClient};
use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Administration, ConfigFile, ask, print_json, print_lines, time, time_or_dash};
use crate::config::Config;

/// Records that are asked for at once.
const PAGE: u32 = 500;

/// Commands of `aldis audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show what was done to accounts, keys and other backends, newest first.
    List {
        /// At most so many records.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
        /// Only records that are older than the one with this number.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
        before: Option<i64>,
        /// Only records about this account (its id) or backend (its domain).
        #[arg(long)]
        subject: Option<String>,
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// Runs a command of `aldis audit`.
pub(crate) async fn run(command: Audit) -> Result<()> {
    let Audit::List { limit, before, subject, json, config } = command;
    let administration = Administration::of(&Config::load(&config.config)?).await?;
    let subject = subject.unwrap_or_default();
    let (mut left, mut before) = (limit, before.unwrap_or(0));
    let mut rows = Vec::new();
    while left > 0 {
        let request = ListRecordsRequest { before, limit: left.min(PAGE), subject: subject.clone() };
        let mut client = AuditLogClient::new(administration.channel.clone());
        let records = ask(async { client.list_records(request).await }).await?.records;
        let Some(last) = records.last() else { break };
        before = last.number;
        left = left.saturating_sub(u32::try_from(records.len()).unwrap_or(u32::MAX));
        if json {
            rows.extend(records.iter().map(row));
        } else {
            print_lines(records.iter().map(line))?;
        }
    }
    if json { print_json(&rows.into()) } else { Ok(()) }
}

fn line(record: &AuditRecord) -> String {
    let actor = match record.who.as_str() {
        "" => record.actor.clone(),
        who => format!("{} ({who})", record.actor),
    };
    let (number, time, outcome) = (record.number, time_or_dash(record.time), &record.outcome);
    format!("{number:6}  {time}  {actor:28}  {:20}  {outcome:10}  {}  {}", record.action, record.subject, record.detail)
}

fn row(record: &AuditRecord) -> Value {
    json!({
        "number": record.number,
        "time": time(record.time),
        "actor": record.actor,
        "who": record.who,
        "action": record.action,
        "subject": record.subject,
        "detail": record.detail,
        "outcome": record.outcome,
    })
}

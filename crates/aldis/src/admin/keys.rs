//! `aldis keys`.

use aldis_proto::internal::v1::{ListKeysRequest, RotateKeyRequest, TokenKeyRecord, key_admin_client::KeyAdminClient};
use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Administration, ConfigFile, ask, print_json, print_lines, time, time_or_dash};
use crate::config::Config;

/// Commands of `aldis keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Show the keys that sign access tokens and cookies.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Sign with a new key from now on. What older keys have signed stays good until it expires; nobody is logged out.
    Rotate {
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// Runs a command of `aldis keys`.
pub(crate) async fn run(command: Keys) -> Result<()> {
    match command {
        Keys::List { json, config } => {
            let administration = Administration::of(&Config::load(&config.config)?).await?;
            let mut client = KeyAdminClient::new(administration.channel.clone());
            let keys = ask(async { client.list_keys(ListKeysRequest {}).await }).await?.keys;
            if json {
                return print_json(&keys.iter().map(row).collect());
            }
            print_lines(keys.iter().map(|key| {
                let (created, kept) = (time_or_dash(key.created), time_or_dash(key.kept_until));
                format!("{:3}  {:8}  created {created}  accepted until {kept}", key.position, state(key))
            }))
        }
        Keys::Rotate { config } => {
            let administration = Administration::of(&Config::load(&config.config)?).await?;
            let mut client = KeyAdminClient::new(administration.channel.clone());
            let rotated = ask(async { client.rotate_key(RotateKeyRequest {}).await }).await?;
            print_json(&row(&rotated.key.context("the backend answered without a key")?))
        }
    }
}

fn state(key: &TokenKeyRecord) -> &'static str {
    match (key.signing, key.retired) {
        (true, _) => "signing",
        (false, 0) => "next",
        (false, _) => "retired",
    }
}

fn row(key: &TokenKeyRecord) -> Value {
    json!({
        "position": key.position,
        "state": state(key),
        "created": time(key.created),
        "retired": time(key.retired),
        "accepted_until": time(key.kept_until),
        "public_key": hex::encode(&key.public_key),
    })
}

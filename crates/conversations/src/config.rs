//! Settings of this service.

use serde::Deserialize;

use crate::groups::model::MAX_MEMBERS;

/// Section `conversations` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most members of a conversation, 2 to 500.
    pub max_members: usize,
    /// Largest Proteus message that a client may post, in bytes: 65,536 to 41,943,040 (40 MiB). Other backends must
    /// take messages of this size too, or their users do not get them.
    pub max_message_bytes: usize,
    /// How long the answer to a request is kept for its retry, in hours: 1 to 168.
    pub answer_retention_hours: u32,
    /// Tell apps that conference calls are offered; needs SFT servers (`users.calls`). Default false.
    pub conference_calling: bool,
    /// What one other backend may ask for.
    pub quotas: Quotas,
}

/// Section `conversations.quotas`: what one other backend may ask for per minute; twice as much may come at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Users of ours about whom it asks whether it may add them to a conversation, all together: 250 to 100,000,000.
    pub invites: u32,
    /// The same about one user of ours: 1 to 100,000,000.
    pub invites_per_user: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { invites: 12_000, invites_per_user: 120 }
    }
}

const MAX_QUOTA: usize = 100_000_000;

/// As the client API has it.
const MAX_MESSAGE_BYTES: usize = 40 * 1024 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            max_members: MAX_MEMBERS,
            max_message_bytes: MAX_MESSAGE_BYTES,
            answer_retention_hours: 24,
            conference_calling: false,
            quotas: Quotas::default(),
        }
    }
}

impl Config {
    /// Says which key has which value that is not allowed.
    pub fn check(&self) -> Result<(), String> {
        let in_range = |key: &str, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(format!("conversations.{key} is {value}; allowed: {min} to {max}"))
            }
        };
        in_range("max_members", self.max_members, 2, MAX_MEMBERS)?;
        in_range("max_message_bytes", self.max_message_bytes, 65_536, MAX_MESSAGE_BYTES)?;
        let hours = usize::try_from(self.answer_retention_hours).unwrap_or(usize::MAX);
        in_range("answer_retention_hours", hours, 1, 168)?;
        let quota = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        // Less would never let a conversation of the largest size pass.
        in_range("quotas.invites", quota(self.quotas.invites), MAX_MEMBERS / 2, MAX_QUOTA)?;
        in_range("quotas.invites_per_user", quota(self.quotas.invites_per_user), 1, MAX_QUOTA)
    }
}

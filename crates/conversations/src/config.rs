//! Settings of this service.

use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

use crate::groups::model::MAX_MEMBERS;

/// Conversations and messages.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most members of a conversation.
    ///
    /// Allowed: 2 to 500.
    pub max_members: usize,
    /// Largest message that a client may post. Other backends must take messages of this size too, or their users do
    /// not get them.
    ///
    /// Allowed: 65536 to 41943040.
    pub max_message_bytes: usize,
    /// How long the answer to a request is kept for its retry.
    ///
    /// Allowed: 1 to 168.
    pub answer_retention_hours: u32,
    /// Tell apps that conference calls are offered; needs SFT servers (`users.calls`).
    pub conference_calling: bool,
    /// What one other backend may ask for.
    pub quotas: Quotas,
}

/// What one other backend may ask for per minute; twice as much may come at once. Counted per process; what is beyond is
/// refused, and its client gets 420.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// Users here about whom it asks whether it may add them to a conversation, all together.
    ///
    /// Allowed: 250 to 100000000.
    pub invites: u32,
    /// The same about one user.
    ///
    /// Allowed: 1 to 100000000.
    pub invites_per_user: u32,
    /// Pages of conversations with its users that it compares with what it holds; a comparison begins with one that counts
    /// as 20.
    ///
    /// Allowed: 100 to 100000000.
    pub comparisons: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { invites: 12_000, invites_per_user: 120, comparisons: 1200 }
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
        in_range("quotas.invites_per_user", quota(self.quotas.invites_per_user), 1, MAX_QUOTA)?;
        in_range("quotas.comparisons", quota(self.quotas.comparisons), 100, MAX_QUOTA)
    }
}

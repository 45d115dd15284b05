//! Which backends we federate with.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Domain, TeamId, Timestamp};

/// The text is none of the allowed values; says which are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: {0}")]
pub struct InvalidPolicyValue(pub &'static str);

/// What a remote's users may find here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchPolicy {
    /// Nothing.
    #[default]
    NoSearch,
    /// A user whose handle is given exactly.
    ExactHandleSearch,
    /// Also by prefix of name and handle.
    FullSearch,
}

impl SearchPolicy {
    /// The policy as text, as in the client API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSearch => "no_search",
            Self::ExactHandleSearch => "exact_handle_search",
            Self::FullSearch => "full_search",
        }
    }
}

impl fmt::Display for SearchPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SearchPolicy {
    type Err = InvalidPolicyValue;

    fn from_str(text: &str) -> Result<Self, InvalidPolicyValue> {
        match text {
            "no_search" => Ok(Self::NoSearch),
            "exact_handle_search" => Ok(Self::ExactHandleSearch),
            "full_search" => Ok(Self::FullSearch),
            _ => Err(InvalidPolicyValue("no_search, exact_handle_search, full_search")),
        }
    }
}

/// Whom this backend federates with at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody.
    #[default]
    AllowNone,
    /// Everybody but suspended and ended remotes.
    AllowAll,
    /// Active remotes on the list.
    AllowList,
}

/// SHA-256 of the public key of a certificate (`SubjectPublicKeyInfo`, DER); as text 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPin(pub [u8; 32]);

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for KeyPin {
    type Err = InvalidPolicyValue;

    fn from_str(text: &str) -> Result<Self, InvalidPolicyValue> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| InvalidPolicyValue("64 hexadecimal digits"))?;
        Ok(Self(hash))
    }
}

impl Serialize for KeyPin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyPin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a remote is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteState {
    /// Calls go both ways.
    Active,
    /// Calls are denied both ways; queued events wait.
    Suspended,
    /// Federation has ended.
    Ended,
}

/// What is agreed with one remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePolicy {
    /// Where it is in its life.
    pub state: RemoteState,
    /// What its users may find here.
    pub search_policy: SearchPolicy,
    /// Only users of these teams may find and connect; `None`: no restriction.
    pub teams: Option<Vec<TeamId>>,
    /// When federation ended; only of an ended remote.
    pub ended: Option<Timestamp>,
    /// Public keys of which the remote's certificate must have one, beside everything else; empty: any.
    pub pins: Vec<KeyPin>,
}

impl RemotePolicy {
    /// A remote without restrictions.
    pub const fn new(state: RemoteState, search_policy: SearchPolicy) -> Self {
        Self { state, search_policy, teams: None, ended: None, pins: Vec::new() }
    }
}

/// The whole policy at one version. Pure: every question is answered from what is here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySnapshot {
    /// Rises with every change.
    pub version: u64,
    /// Whom we federate with at all.
    pub strategy: Strategy,
    /// Every known remote.
    pub remotes: BTreeMap<Domain, RemotePolicy>,
}

impl PolicySnapshot {
    /// Whether calls to and from `domain` are allowed.
    pub fn allows(&self, domain: &Domain) -> bool {
        let state = self.remotes.get(domain).map(|remote| remote.state);
        match self.strategy {
            Strategy::AllowNone => false,
            Strategy::AllowAll => matches!(state, None | Some(RemoteState::Active)),
            Strategy::AllowList => state == Some(RemoteState::Active),
        }
    }

    /// What users of `domain` may find here; nothing without an entry of its own.
    pub fn search_policy(&self, domain: &Domain) -> SearchPolicy {
        self.remotes
            .get(domain)
            .filter(|_| self.allows(domain))
            .map_or(SearchPolicy::NoSearch, |remote| remote.search_policy)
    }

    /// Whether a certificate with this public key may be the one of `domain`, as far as pins say.
    pub fn allows_key(&self, domain: &Domain, key: KeyPin) -> bool {
        self.remotes.get(domain).is_none_or(|remote| remote.pins.is_empty() || remote.pins.contains(&key))
    }

    /// Whether a user of `team` of `domain` may find and connect with our users.
    pub fn allows_team(&self, domain: &Domain, team: Option<TeamId>) -> bool {
        match self.remotes.get(domain).and_then(|remote| remote.teams.as_ref()) {
            None => true,
            Some(teams) => team.is_some_and(|team| teams.contains(&team)),
        }
    }
}

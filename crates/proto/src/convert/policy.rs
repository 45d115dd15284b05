//! The federation policy, as the users service streams it.

use aldis_types::{KeyPin, PolicySnapshot, RemotePolicy, RemoteState, SearchPolicy, Strategy, Timestamp};
use bytes::Bytes;

use super::{InvalidWire, bytes_of, domain, team_id};
use crate::{federation::v1 as pb, internal::v1 as internal};

impl From<SearchPolicy> for pb::SearchPolicy {
    fn from(policy: SearchPolicy) -> Self {
        match policy {
            SearchPolicy::NoSearch => Self::NoSearch,
            SearchPolicy::ExactHandleSearch => Self::ExactHandleSearch,
            SearchPolicy::FullSearch => Self::FullSearch,
        }
    }
}

impl TryFrom<pb::SearchPolicy> for SearchPolicy {
    type Error = InvalidWire;

    fn try_from(policy: pb::SearchPolicy) -> Result<Self, InvalidWire> {
        match policy {
            pb::SearchPolicy::Unspecified => Err(InvalidWire("search_policy")),
            pb::SearchPolicy::NoSearch => Ok(Self::NoSearch),
            pb::SearchPolicy::ExactHandleSearch => Ok(Self::ExactHandleSearch),
            pb::SearchPolicy::FullSearch => Ok(Self::FullSearch),
        }
    }
}

impl From<RemoteState> for internal::RemoteState {
    fn from(state: RemoteState) -> Self {
        match state {
            RemoteState::Active => Self::Active,
            RemoteState::Suspended => Self::Suspended,
            RemoteState::Ended => Self::Ended,
        }
    }
}

impl TryFrom<internal::RemoteState> for RemoteState {
    type Error = InvalidWire;

    fn try_from(state: internal::RemoteState) -> Result<Self, InvalidWire> {
        match state {
            internal::RemoteState::Unspecified => Err(InvalidWire("state")),
            internal::RemoteState::Active => Ok(Self::Active),
            internal::RemoteState::Suspended => Ok(Self::Suspended),
            internal::RemoteState::Ended => Ok(Self::Ended),
        }
    }
}

/// A pinned key: exactly 32 bytes.
pub fn key_pin(bytes: &[u8]) -> Result<KeyPin, InvalidWire> {
    bytes.try_into().map(KeyPin).map_err(|_| InvalidWire("pins"))
}

/// A policy snapshot as it goes between our services.
pub fn to_policy(policy: &PolicySnapshot) -> internal::PolicySnapshot {
    internal::PolicySnapshot {
        version: policy.version,
        strategy: match policy.strategy {
            Strategy::AllowNone => internal::Strategy::AllowNone,
            Strategy::AllowAll => internal::Strategy::AllowAll,
            Strategy::AllowList => internal::Strategy::AllowList,
        }
        .into(),
        remotes: policy
            .remotes
            .iter()
            .map(|(domain, remote)| internal::Remote {
                domain: domain.as_str().to_owned(),
                state: internal::RemoteState::from(remote.state).into(),
                search_policy: i32::from(pb::SearchPolicy::from(remote.search_policy)).cast_unsigned(),
                teams: remote
                    .teams
                    .as_ref()
                    .map(|teams| internal::remote::Teams { teams: teams.iter().map(bytes_of).collect() }),
                ended: remote.ended.map_or(0, Timestamp::millis),
                pins: remote.pins.iter().map(|pin| Bytes::copy_from_slice(&pin.0)).collect(),
            })
            .collect(),
    }
}

/// A policy snapshot.
pub fn from_policy(policy: &internal::PolicySnapshot) -> Result<PolicySnapshot, InvalidWire> {
    Ok(PolicySnapshot {
        version: policy.version,
        strategy: match policy.strategy() {
            internal::Strategy::Unspecified => return Err(InvalidWire("strategy")),
            internal::Strategy::AllowNone => Strategy::AllowNone,
            internal::Strategy::AllowAll => Strategy::AllowAll,
            internal::Strategy::AllowList => Strategy::AllowList,
        },
        remotes: policy
            .remotes
            .iter()
            .map(|remote| {
                let search_policy = pb::SearchPolicy::try_from(remote.search_policy.cast_signed())
                    .map_err(|_| InvalidWire("search_policy"))?;
                let teams = remote.teams.as_ref().map(|teams| teams.teams.iter().map(|team| team_id(team)).collect());
                let policy = RemotePolicy {
                    state: remote.state().try_into()?,
                    search_policy: search_policy.try_into()?,
                    teams: teams.transpose()?,
                    ended: (remote.ended > 0).then(|| Timestamp::from_millis(remote.ended)),
                    pins: remote.pins.iter().map(|pin| key_pin(pin)).collect::<Result<_, _>>()?,
                };
                Ok((domain(&remote.domain)?, policy))
            })
            .collect::<Result<_, InvalidWire>>()?,
    })
}

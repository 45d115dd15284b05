//! The rules of connections, as tables. Nothing here knows how a connection is stored or told of.
//!
//! A missing row means the same as `Cancelled`.

use aldis_types::Relation;
use aldis_types::Relation::{Accepted, Blocked, Cancelled, Ignored, Pending, Sent};

/// What a user does to a connection with a user of another backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Connect,
    Block,
    Ignore,
    Rescind,
}

impl Action {
    /// The action that brings a connection to the wanted status; `None` when no action does.
    pub(crate) const fn towards(status: Relation) -> Option<Self> {
        match status {
            Accepted | Sent => Some(Self::Connect),
            Blocked => Some(Self::Block),
            Ignored => Some(Self::Ignore),
            Cancelled => Some(Self::Rescind),
            Pending => None,
        }
    }
}

/// What the other user did, at another backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemoteAction {
    Connect,
    Rescind,
}

/// The status after an action of our user on a connection with another backend's; `None`: the action does nothing.
pub(crate) const fn after(status: Option<Relation>, action: Action) -> Option<Relation> {
    match (status, action) {
        (Some(Pending | Accepted), Action::Connect) => Some(Accepted),
        (None | Some(Sent | Ignored | Blocked | Cancelled), Action::Connect) => Some(Sent),
        (Some(Blocked), Action::Block) => None,
        (_, Action::Block) => Some(Blocked),
        (Some(Pending), Action::Ignore) => Some(Ignored),
        (Some(Sent), Action::Rescind) => Some(Cancelled),
        (Some(Accepted), Action::Rescind) => Some(Pending),
        (_, Action::Ignore | Action::Rescind) => None,
    }
}

/// The status after an action of the other backend's user; `None`: the action does nothing.
pub(crate) const fn after_remote(status: Option<Relation>, action: RemoteAction) -> Option<Relation> {
    match (status, action) {
        (Some(Sent | Accepted), RemoteAction::Connect) => Some(Accepted),
        (None | Some(Pending | Ignored | Cancelled), RemoteAction::Connect) => Some(Pending),
        (Some(Pending), RemoteAction::Rescind) => Some(Cancelled),
        (Some(Accepted), RemoteAction::Rescind) => Some(Sent),
        (Some(Blocked), RemoteAction::Connect) | (_, RemoteAction::Rescind) => None,
    }
}

/// Whether the answer to a remote connect tells the other backend to connect too.
pub(crate) const fn reacts(status: Option<Relation>) -> bool {
    matches!(status, Some(Accepted | Sent))
}

/// What becomes of the two sides of a connection between users of ours; `None` stays untouched, and a status that is
/// as before is announced again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) mine: Option<Relation>,
    pub(crate) theirs: Option<Relation>,
}

const fn mine(status: Relation) -> Outcome {
    Outcome::Change(Pair { mine: Some(status), theirs: None })
}

const fn both(mine: Relation, theirs: Relation) -> Outcome {
    Outcome::Change(Pair { mine: Some(mine), theirs: Some(theirs) })
}

/// What an action on a connection between users of ours comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unchanged,
    Change(Pair),
    /// Not possible from here.
    Refused,
}

/// `POST`: my side asks the other one.
pub(crate) const fn connect(my: Option<Relation>, their: Option<Relation>) -> Outcome {
    match (my, their) {
        (Some(Blocked), _) => Outcome::Refused,
        (Some(Accepted), Some(Accepted | Blocked)) | (Some(Sent), Some(Blocked)) => Outcome::Unchanged,
        (_, Some(Sent | Accepted)) => both(Accepted, Accepted),
        (_, Some(Blocked)) => mine(Sent),
        (_, None | Some(Ignored | Pending | Cancelled)) => both(Sent, Pending),
    }
}

/// `PUT`: my side wants this status. `my` is the status that the row has.
pub(crate) fn change(my: Relation, their: Option<Relation>, wanted: Relation) -> Outcome {
    if my == wanted {
        return Outcome::Unchanged;
    }
    match (my, wanted) {
        (Pending | Ignored, Accepted) => match their {
            Some(Sent | Pending) => both(Accepted, Accepted),
            _ => mine(Accepted),
        },
        (Pending, Ignored) => mine(Ignored),
        (Blocked, Accepted | Sent) => match their {
            Some(Sent) => both(Accepted, Accepted),
            Some(Accepted | Blocked) => mine(Accepted),
            _ => mine(Sent),
        },
        (Sent, Cancelled) => match their {
            Some(Pending | Ignored) => both(Cancelled, Cancelled),
            _ => mine(Cancelled),
        },
        (Sent, Accepted) => match their {
            Some(Sent | Accepted) => both(Accepted, Accepted),
            _ => Outcome::Refused,
        },
        (Pending | Ignored | Accepted | Sent | Cancelled, Blocked) => mine(Blocked),
        _ => Outcome::Refused,
    }
}

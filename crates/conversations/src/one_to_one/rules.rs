//! Who is in the conversation of two users, by the relation of ours.

use aldis_types::Relation;

/// Who should be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Our user, whose relation it is; `None`: as he is.
    pub user: Option<bool>,
    /// The other one; `None`: as he is.
    pub other: Option<bool>,
}

/// A user is in for as long as he asks or has accepted; when there is no relation any more, because the other one's
/// account is gone, he keeps what they wrote. The other one, when he is another backend's, is in for as long
/// as he asks or both have accepted; when he is ours too, his own relation decides.
pub(crate) fn membership(relation: Option<Relation>, other_is_ours: bool) -> Membership {
    let user = relation.map(|relation| matches!(relation, Relation::Sent | Relation::Accepted));
    let other = match relation {
        _ if other_is_ours => None,
        Some(Relation::Accepted | Relation::Pending | Relation::Ignored) => Some(true),
        // He does not learn that he is blocked.
        Some(Relation::Blocked) => None,
        Some(Relation::Sent | Relation::Cancelled) | None => Some(false),
    };
    Membership { user, other }
}

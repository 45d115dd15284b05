//! Consent between two users.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One side of the connection between two users. A missing row means the same as `Cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// This user asked, the other has not answered.
    Sent,
    /// The other asked, this user has not answered.
    Pending,
    /// Both agreed.
    Accepted,
    /// The other asked, this user looked away.
    Ignored,
    /// This user wants nothing from the other.
    Blocked,
    /// The request was taken back.
    Cancelled,
}

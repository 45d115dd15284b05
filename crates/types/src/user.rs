//! What others see of a user.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AccentId, Handle, Name, Protocol, Qualified, TeamId, UserId};

/// Which rendering of a profile picture an asset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AssetSize {
    /// Small.
    Preview,
    /// Full size.
    Complete,
}

/// A profile picture; JSON `{"key": …, "size": …, "type": "image"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename = "image")]
pub struct ProfileAsset {
    /// Asset key on the user's backend.
    pub key: String,
    /// Which rendering; older clients leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<AssetSize>,
}

/// A user as any other user may see it. The client API's JSON is rendered where it is served; see `users`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Who it is.
    pub id: Qualified<UserId>,
    /// Display name.
    pub name: Name,
    /// Colour.
    pub accent_id: AccentId,
    /// Handle, once chosen.
    pub handle: Option<Handle>,
    /// Pictures.
    pub assets: Vec<ProfileAsset>,
    /// Status line.
    pub text_status: Option<String>,
    /// The account is gone; what remains is a tombstone.
    pub deleted: bool,
    /// How the user can be written to.
    pub supported_protocols: Vec<Protocol>,
    /// Team on the user's backend.
    pub team: Option<TeamId>,
    /// Rises with every change.
    pub version: u64,
}

//! Accounts and profiles as clients see them, in answers and in events.

use aldis_types::{AccentId, Domain, Email, Handle, Name, Profile, ProfileAsset, Protocol, Qualified, TeamId, UserId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Account, Locale, store::ProfileChange};

/// A profile as the client API shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Profile")]
pub(crate) struct ProfileJson<'a> {
    qualified_id: &'a Qualified<UserId>,
    id: UserId,
    name: &'a str,
    accent_id: AccentId,
    /// Obsolete, always empty.
    picture: [String; 0],
    assets: &'a [ProfileAsset],
    legalhold_status: &'static str,
    supported_protocols: &'a [Protocol],
    #[serde(rename = "type")]
    kind: &'static str,
    searchable: bool,
    /// What remains of an account that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<&'a Handle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<TeamId>,
}

/// A profile as the client API shows it.
pub(crate) fn profile_json(profile: &Profile) -> ProfileJson<'_> {
    let deleted = profile.deleted;
    ProfileJson {
        qualified_id: &profile.id,
        id: profile.id.id,
        name: if deleted { "default" } else { profile.name.as_str() },
        accent_id: profile.accent_id,
        picture: [],
        assets: if deleted { &[] } else { &profile.assets },
        legalhold_status: "no_consent",
        supported_protocols: &profile.supported_protocols,
        kind: "regular",
        searchable: true,
        deleted: deleted.then_some(true),
        handle: profile.handle.as_ref().filter(|_| !deleted),
        text_status: profile.text_status.as_deref().filter(|_| !deleted),
        team: profile.team.filter(|_| !deleted),
    }
}

/// Profiles, and who could not be asked about.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Profiles")]
pub(crate) struct ProfilesJson<'a> {
    pub(crate) found: Vec<ProfileJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<&'a [Qualified<UserId>]>,
}

/// The own profile.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SelfProfile")]
pub(crate) struct SelfJson<'a> {
    qualified_id: Qualified<UserId>,
    id: UserId,
    name: &'a Name,
    accent_id: AccentId,
    /// Obsolete, always empty.
    picture: [String; 0],
    assets: &'a [ProfileAsset],
    status: &'static str,
    locale: &'a Locale,
    managed_by: &'static str,
    supported_protocols: &'a [Protocol],
    #[serde(rename = "type")]
    kind: &'static str,
    searchable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a Email>,
    /// The address that waits for its code.
    #[serde(skip_serializing_if = "Option::is_none")]
    email_unvalidated: Option<&'a Email>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<&'a Handle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_status: Option<&'a str>,
}

/// The own profile.
pub(crate) fn self_json(account: &Account, domain: &Domain) -> Value {
    let status = if account.deleted {
        "deleted"
    } else if account.suspended {
        "suspended"
    } else {
        "active"
    };
    json!(SelfJson {
        qualified_id: Qualified::new(account.id, domain.clone()),
        id: account.id,
        name: &account.name,
        accent_id: account.accent_id,
        picture: [],
        assets: &account.assets,
        status,
        locale: &account.locale,
        managed_by: "wire",
        supported_protocols: &account.protocols,
        kind: "regular",
        searchable: true,
        email: account.email.as_ref(),
        email_unvalidated: account.unverified_email.as_ref(),
        handle: account.handle.as_ref(),
        text_status: account.text_status.as_deref(),
    })
}

/// `user.activate`.
pub(crate) fn activate_event(account: &Account, domain: &Domain) -> Value {
    json!({ "type": "user.activate", "user": self_json(account, domain) })
}

/// `user.update` with the keys that changed.
pub(crate) fn update_event(user: UserId, change: &ProfileChange) -> Value {
    #[derive(Serialize)]
    struct Changed<'a> {
        id: UserId,
        sso_id_deleted: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a Name>,
        #[serde(skip_serializing_if = "Option::is_none")]
        accent_id: Option<AccentId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        assets: Option<&'a [ProfileAsset]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        text_status: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        locale: Option<&'a Locale>,
        #[serde(skip_serializing_if = "Option::is_none")]
        supported_protocols: Option<&'a [Protocol]>,
    }

    let changed = Changed {
        id: user,
        sso_id_deleted: false,
        name: change.name.as_ref(),
        accent_id: change.accent_id,
        assets: change.assets.as_deref(),
        text_status: change.text_status.as_deref(),
        locale: change.locale.as_ref(),
        supported_protocols: change.protocols.as_deref(),
    };
    json!({ "type": "user.update", "user": changed })
}

/// `user.update` for the own clients: another e-mail address.
pub(crate) fn email_event(user: UserId, email: &Email) -> Value {
    json!({ "type": "user.update", "user": { "id": user, "email": email.as_str() } })
}

/// `user.update` with everything that contacts see of a user of another backend.
pub(crate) fn profile_event(profile: &Profile) -> Value {
    let mut user = json!({
        "id": profile.id.id,
        "qualified_id": profile.id,
        "name": profile.name,
        "accent_id": profile.accent_id,
        "assets": profile.assets,
        "text_status": profile.text_status.as_deref().unwrap_or_default(),
        "supported_protocols": profile.supported_protocols,
        "sso_id_deleted": false,
    });
    if let Some(handle) = &profile.handle {
        user["handle"] = json!(handle);
    }
    json!({ "type": "user.update", "user": user })
}

/// `user.delete`.
pub(crate) fn delete_event(gone: &Qualified<UserId>) -> Value {
    json!({ "type": "user.delete", "id": gone.id, "qualified_id": gone })
}

/// `user.update` with a new handle.
pub(crate) fn handle_event(user: UserId, handle: &Handle) -> Value {
    json!({ "type": "user.update", "user": { "id": user, "handle": handle, "sso_id_deleted": false } })
}

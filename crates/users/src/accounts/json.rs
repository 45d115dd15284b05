//! Accounts and profiles as clients see them, in answers and in events.

use aldis_types::{AccentId, Domain, Email, Handle, Name, Profile, ProfileAsset, Protocol, Qualified, UserId};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Account, Locale, store::ProfileChange};

/// A profile as the client API shows it.
pub(crate) fn profile_json(profile: &Profile) -> Value {
    let mut json = json!({
        "qualified_id": profile.id,
        "id": profile.id.id,
        "name": if profile.deleted { "default" } else { profile.name.as_str() },
        "accent_id": profile.accent_id,
        "picture": [],
        "assets": if profile.deleted { &[] } else { profile.assets.as_slice() },
        "legalhold_status": "no_consent",
        "supported_protocols": profile.supported_protocols,
        "type": "regular",
        "searchable": true,
    });
    if profile.deleted {
        json["deleted"] = true.into();
        return json;
    }
    if let Some(handle) = &profile.handle {
        json["handle"] = json!(handle);
    }
    if let Some(text) = &profile.text_status {
        json["text_status"] = json!(text);
    }
    if let Some(team) = &profile.team {
        json["team"] = json!(team);
    }
    json
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
    let mut json = json!({
        "qualified_id": Qualified::new(account.id, domain.clone()),
        "id": account.id,
        "name": account.name,
        "accent_id": account.accent_id,
        "picture": [],
        "assets": account.assets,
        "status": status,
        "locale": account.locale,
        "managed_by": "wire",
        "supported_protocols": account.protocols,
        "type": "regular",
        "searchable": true,
    });
    let optional = [
        ("email", account.email.as_ref().map(Email::as_str)),
        ("email_unvalidated", account.unverified_email.as_ref().map(Email::as_str)),
        ("handle", account.handle.as_ref().map(Handle::as_str)),
        ("text_status", account.text_status.as_deref()),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            json[key] = value.into();
        }
    }
    json
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

/// `user.update` with a new handle.
pub(crate) fn handle_event(user: UserId, handle: &Handle) -> Value {
    json!({ "type": "user.update", "user": { "id": user, "handle": handle, "sso_id_deleted": false } })
}

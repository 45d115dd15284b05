//! The values of `aldis-types`.

use std::collections::BTreeSet;

use aldis_types::{
    AccentId, Access, AccessRole, Action, AssetKey, AssetSize, Capability, ClientClass, ClientId, ClientType,
    ConversationType, Domain, Email, Handle, LegacyAccessRole, Name, Prekey, PrekeyId, ProfileAsset, Qualified,
    Relation, Retention, RoleName, SearchPolicy, TeamId, Timestamp, UserId,
};
use serde_json::Value;

use crate::{Golden, Part, Verdict, read, same};

#[test]
fn golden_values_are_read_and_written() {
    let mut golden = Golden::of(Part::Types);
    golden.round_trips::<LegacyAccessRole>("AccessRoleLegacy_user");
    golden.round_trips::<Access>("Access_user");
    golden.round_trips::<Action>("Action_user");
    golden.round_trips::<AssetKey>("AssetKey_user");
    golden.round_trips::<Retention>("AssetRetention_user");
    golden.round_trips::<AssetSize>("AssetSize_user");
    golden.round_trips::<Capability>("ClientCapability");
    golden.check("ClientCapabilityList", |sample| {
        let list = sample.get("capabilities").unwrap_or(sample);
        same(read::<Vec<Capability>>(list), list);
    });
    golden.round_trips::<Vec<Capability>>("ClientCapabilityList_3_V");
    golden.round_trips::<ClientClass>("ClientClass_user");
    golden.round_trips::<ClientType>("ClientType_user");
    golden.round_trips::<AccentId>("ColourId_user");
    golden.round_trips::<ConversationType>("ConvType_user");
    golden.check("ConversationAccessData_user", |sample| {
        same(read::<Vec<Access>>(&sample["access"]), &sample["access"]);
        same(read::<Vec<AccessRole>>(&sample["access_role"]), &sample["access_role"]);
    });
    golden.check("ConversationAccessData_v2_user", |sample| {
        let roles: Vec<AccessRole> = read(&sample["access_role_v2"]);
        same(LegacyAccessRole::containing(&roles), &sample["access_role"]);
    });
    golden.round_trips::<Email>("Email_user");
    golden.check("FederationDomainConfig", |sample| {
        same(read::<Domain>(&sample["domain"]), &sample["domain"]);
        same(read::<SearchPolicy>(&sample["search_policy"]), &sample["search_policy"]);
        let teams = &sample["restriction"]["value"];
        same(read::<Option<Vec<TeamId>>>(teams), teams);
    });
    golden.check("LastPrekey_user", |sample| {
        let prekey: Prekey = read(sample);
        assert_eq!(prekey.id, PrekeyId::LAST_RESORT);
        same(prekey, sample);
    });
    golden.round_trips::<Name>("Name_user");
    golden.round_trips::<PrekeyId>("PrekeyId_user");
    golden.round_trips::<Prekey>("Prekey_user");
    golden.check("Relation_user", |sample| {
        if sample == "missing-legalhold-consent" {
            return Verdict::LeftOut("legal hold is not offered");
        }
        same(read::<Relation>(sample), sample);
        Verdict::Alike
    });
    golden.check("RemoteDomains", |sample| same(read::<Vec<Domain>>(&sample["domains"]), &sample["domains"]));
    golden.round_trips::<RoleName>("RoleName_user");
    golden.round_trips::<ProfileAsset>("User_2eProfile_2eAsset_user");
    golden.finish();
}

/// Calls `visit` with every member of every object, its key first.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                visit(key, value);
                walk(value, visit);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
        _ => {}
    }
}

#[test]
fn golden_values_inside_of_others_are_read_and_written() {
    let samples = crate::samples();
    let mut seen = BTreeSet::new();
    for sample in samples.values().flat_map(|samples| samples.values()) {
        walk(sample, &mut |key, value| {
            seen.insert(match key {
                "domain" => {
                    same(read::<Domain>(value), value);
                    "domain"
                }
                "conversation_role" => {
                    same(read::<RoleName>(value), value);
                    "role"
                }
                "user" if value.is_string() => {
                    same(read::<UserId>(value), value);
                    "user"
                }
                "client" if value.is_string() => {
                    same(read::<ClientId>(value), value);
                    "client"
                }
                "last_event_time" | "status_time" => {
                    same(read::<Timestamp>(value), value);
                    "time"
                }
                key if key.starts_with("qualified_") && value.is_object() && value.get("domain").is_some() => {
                    same(read::<Qualified<UserId>>(value), value);
                    "qualified"
                }
                _ => return,
            });
        });
    }
    // Handles stand in samples of what the older backend takes for a handle, which are not all valid.
    for profile in samples["SelfProfile_user"].values().chain(samples["UserProfile_user"].values()) {
        if let Some(handle) = profile.get("handle") {
            same(read::<Handle>(handle), handle);
            seen.insert("handle");
        }
    }
    assert_eq!(seen, ["client", "domain", "handle", "qualified", "role", "time", "user"].into());
}

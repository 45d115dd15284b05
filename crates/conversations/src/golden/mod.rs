//! Our JSON against samples of the client API's types; see `aldis-golden`.

mod answers;
mod events;
mod requests;

use aldis_golden::{Golden, Part, read};
use aldis_types::{Access, AccessRole, ConversationId, Member, Protocol, Qualified, UserId};
use serde_json::Value;

use crate::{
    groups::{
        json::View,
        model::{Metadata, Settings},
    },
    variations::Scene,
};

#[tokio::test]
async fn golden_types_are_read_and_written() {
    let mut golden = Golden::of(Part::Conversations);
    answers::check(&mut golden).await;
    events::check(&mut golden);
    requests::check(&mut golden).await;
    golden.finish();
}

#[tokio::test]
async fn golden_samples_that_are_spoilt_break_nothing() {
    let golden = Golden::of(Part::Conversations);
    let scene = Scene::new().await;
    for request in scene.requests() {
        for kind in request.golden {
            for sample in golden.some(kind, 2) {
                scene.vary(&request, &sample, 10).await;
            }
        }
    }
}

const MLS: &str = "MLS is not offered yet";

/// A member in a sample.
fn member(sample: &Value) -> Member {
    Member { user: read(&sample["qualified_id"]), role: read(&sample["conversation_role"]) }
}

/// A member's own settings in a sample.
fn settings(sample: &Value) -> Settings {
    Settings {
        muted_status: read(&sample["otr_muted_status"]),
        muted_ref: read(&sample["otr_muted_ref"]),
        archived: read(&sample["otr_archived"]),
        archived_ref: read(&sample["otr_archived_ref"]),
        hidden: read(&sample["hidden"]),
        hidden_ref: read(&sample["hidden_ref"]),
    }
}

/// A member of a sample without what we do not offer: bots.
fn without_service(mut sample: Value) -> Value {
    if let Some(service) = sample.get_mut("service") {
        // The caller has it in any case, others only when they are bots.
        *service = Value::Null;
        if sample.get("hidden").is_none() {
            sample.as_object_mut().unwrap().remove("service");
        }
    }
    sample
}

/// A conversation as a sample shows it to a member.
struct Shown {
    id: Qualified<ConversationId>,
    metadata: Metadata,
    me: Member,
    settings: Settings,
    others: Vec<Member>,
    /// The sample without what we do not offer: teams, bots, file storage, and a key of later versions.
    sample: Value,
}

impl Shown {
    /// `None` when it is encrypted with MLS.
    fn of(sample: &Value) -> Option<Self> {
        if read::<Protocol>(&sample["protocol"]) != Protocol::Proteus {
            return None;
        }
        let roles = sample.get("access_role_v2").unwrap_or(&sample["access_role"]);
        let metadata = Metadata {
            kind: read(&sample["type"]),
            creator: read::<Option<UserId>>(&sample["creator"]),
            name: read(&sample["name"]),
            access: read::<Vec<Access>>(&sample["access"]),
            access_roles: read::<Vec<AccessRole>>(roles),
            message_timer: read(&sample["message_timer"]),
            receipt_mode: read(&sample["receipt_mode"]),
            protocol: Protocol::Proteus,
        };
        let (me, others) = (&sample["members"]["self"], sample["members"]["others"].as_array().unwrap());
        let mut offered = sample.clone();
        assert_eq!(offered.as_object_mut().unwrap().remove("history"), Some(Value::Null));
        offered["team"] = Value::Null;
        offered["cells_state"] = "disabled".into();
        offered["members"] = without_services(&sample["members"]);
        Some(Self {
            id: read(&sample["qualified_id"]),
            metadata,
            me: member(me),
            settings: settings(me),
            others: others.iter().map(member).collect(),
            sample: offered,
        })
    }

    fn view(&self) -> View<'_> {
        View {
            id: self.id.clone(),
            metadata: &self.metadata,
            me: &self.me,
            settings: &self.settings,
            others: self.others.iter().collect(),
        }
    }
}

fn without_services(members: &Value) -> Value {
    let others: Vec<_> = members["others"].as_array().unwrap().iter().cloned().map(without_service).collect();
    let mut members = members.clone();
    members["self"] = without_service(members["self"].clone());
    members["others"] = others.into();
    members
}

//! JSON with a mistake in it is refused: 400, and nothing else, for every route that reads JSON.
//!
//! For each route there is a good request of ours, and from it come all that differ in one place: a field left out, a value
//! of another kind, a number out of range, a text that is too long. Whether such a request is wrong is decided by the
//! description of the API; what the description does not tell may be refused or accepted, but never fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use aldis_api::ApiVersion;
use aldis_harness::{
    backend::Federation,
    client::{Body, User, conforming},
};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::support::ALPHA;

/// What stands for ids in samples.
struct World {
    ann: User,
    names: BTreeMap<&'static str, String>,
}

impl World {
    async fn new(federation: &Federation) -> Result<Self> {
        let ann = federation.user(ALPHA, "Ann").await?;
        let bob = federation.user(ALPHA, "Bob").await?;
        let group = ann.group("Team lunch", &[]).await?;
        let names = BTreeMap::from([
            ("{d}", ALPHA.to_owned()),
            ("{me}", ann.id.id.to_string()),
            ("{bob}", bob.id.id.to_string()),
            ("{bobs}", bob.client()?.to_string()),
            ("{mine}", ann.client()?.to_string()),
            ("{group}", group.id.to_string()),
        ]);
        Ok(Self { ann, names })
    }

    fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

const PREKEY: &str = r#"{"id":1,"key":"pQABAQECoQBYIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA6EAoQBYIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABPY="}"#;

/// A good request of each route: method, template, path, body. `PREKEY` stands for a prekey.
const SAMPLES: &[(&str, &str, &str, &str)] = &[
    ("POST", "/login", "/login", r#"{"email":"a@mail.test","password":"secret phrase","label":"x"}"#),
    ("POST", "/cookies/remove", "/cookies/remove", r#"{"password":"secret phrase","labels":["a"],"ids":[1]}"#),
    ("POST", "/verification-code/send", "/verification-code/send", r#"{"email":"a@mail.test","action":"login"}"#),
    (
        "POST",
        "/register",
        "/register",
        r#"{"name":"Ann","email":"a@mail.test","email_code":"123456","password":"secret phrase","locale":"en","accent_id":1,"assets":[{"key":"3-1-x","size":"preview","type":"image"}],"supported_protocols":["proteus"]}"#,
    ),
    ("POST", "/activate", "/activate", r#"{"email":"a@mail.test","code":"123456","dryrun":true}"#),
    ("POST", "/activate/send", "/activate/send", r#"{"email":"a@mail.test","locale":"en"}"#),
    ("POST", "/password-reset", "/password-reset", r#"{"email":"a@mail.test"}"#),
    (
        "POST",
        "/password-reset/complete",
        "/password-reset/complete",
        r#"{"email":"a@mail.test","code":"123456","password":"secret phrase"}"#,
    ),
    ("PUT", "/access/self/email", "/access/self/email", r#"{"email":"a@mail.test"}"#),
    ("POST", "/delete", "/delete", r#"{"key":"{me}","code":"123456"}"#),
    ("DELETE", "/self", "/self", r#"{"password":"not the password"}"#),
    (
        "PUT",
        "/self",
        "/self",
        r#"{"name":"Ann","accent_id":1,"assets":[{"key":"3-1-x","size":"complete","type":"image"}],"text_status":"away"}"#,
    ),
    ("PUT", "/self/handle", "/self/handle", r#"{"handle":"ann_of_alpha"}"#),
    ("PUT", "/self/locale", "/self/locale", r#"{"locale":"de"}"#),
    ("PUT", "/self/password", "/self/password", r#"{"old_password":"not this one","new_password":"secret phrase"}"#),
    ("PUT", "/self/supported-protocols", "/self/supported-protocols", r#"{"supported_protocols":["proteus"]}"#),
    ("POST", "/list-users", "/list-users", r#"{"qualified_ids":[{"domain":"{d}","id":"{bob}"}]}"#),
    ("POST", "/handles", "/handles", r#"{"handles":["one_handle"],"return":1}"#),
    ("PUT", "/properties/{key}", "/properties/webapp", r#"{"theme":"dark"}"#),
    (
        "POST",
        "/clients",
        "/clients",
        r#"{"type":"permanent","prekeys":[PREKEY],"lastkey":PREKEY,"password":"not this one","label":"x","model":"y","class":"desktop","cookie":"z","capabilities":["legalhold-implicit-consent"],"mls_public_keys":{}}"#,
    ),
    (
        "PUT",
        "/clients/{client}",
        "/clients/{mine}",
        r#"{"label":"x","prekeys":[],"capabilities":[],"mls_public_keys":{}}"#,
    ),
    ("DELETE", "/clients/{client}", "/clients/{mine}", r#"{"password":"not this one"}"#),
    ("POST", "/users/list-clients", "/users/list-clients", r#"{"qualified_users":[{"domain":"{d}","id":"{bob}"}]}"#),
    ("POST", "/users/list-prekeys", "/users/list-prekeys", r#"{"{d}":{"{bob}":["{bobs}"]}}"#),
    ("PUT", "/connections/{domain}/{id}", "/connections/{d}/{bob}", r#"{"status":"blocked"}"#),
    ("POST", "/list-connections", "/list-connections", r#"{"size":10,"paging_state":""}"#),
    ("POST", "/get-domain-registration", "/get-domain-registration", r#"{"email":"a@mail.test"}"#),
    ("POST", "/push/tokens", "/push/tokens", r#"{"transport":"GCM","app":"app","token":"token","client":"{mine}"}"#),
    (
        "POST",
        "/conversations",
        "/conversations",
        r#"{"name":"Team","qualified_users":[],"users":[],"conversation_role":"wire_member","access":["invite"],"access_role":["team_member"],"receipt_mode":1,"message_timer":1000,"protocol":"proteus","skip_creator":false,"group_conv_type":"group_conversation","cells":false}"#,
    ),
    ("POST", "/conversations/list", "/conversations/list", r#"{"qualified_ids":[{"domain":"{d}","id":"{group}"}]}"#),
    ("POST", "/conversations/list-ids", "/conversations/list-ids", r#"{"size":10}"#),
    ("PUT", "/conversations/{domain}/{id}/name", "/conversations/{d}/{group}/name", r#"{"name":"Lunch"}"#),
    (
        "POST",
        "/conversations/{domain}/{id}/members",
        "/conversations/{d}/{group}/members",
        r#"{"qualified_users":[{"domain":"{d}","id":"{bob}"}],"conversation_role":"wire_member"}"#,
    ),
    (
        "PUT",
        "/conversations/{domain}/{id}/members",
        "/conversations/{d}/{group}/members",
        r#"{"qualified_users":[{"domain":"{d}","id":"{bob}"}],"conversation_role":"wire_member"}"#,
    ),
    (
        "PUT",
        "/conversations/{domain}/{id}/members/{user_domain}/{user}",
        "/conversations/{d}/{group}/members/{d}/{bob}",
        r#"{"conversation_role":"wire_member"}"#,
    ),
    (
        "PUT",
        "/conversations/{domain}/{id}/access",
        "/conversations/{d}/{group}/access",
        r#"{"access":["invite"],"access_role":["team_member","non_team_member"]}"#,
    ),
    (
        "PUT",
        "/conversations/{domain}/{id}/add-permission",
        "/conversations/{d}/{group}/add-permission",
        r#"{"add_permission":"admins"}"#,
    ),
    (
        "PUT",
        "/conversations/{domain}/{id}/message-timer",
        "/conversations/{d}/{group}/message-timer",
        r#"{"message_timer":1000}"#,
    ),
    (
        "PUT",
        "/conversations/{domain}/{id}/receipt-mode",
        "/conversations/{d}/{group}/receipt-mode",
        r#"{"receipt_mode":1}"#,
    ),
    (
        "PUT",
        "/conversations/{domain}/{id}/self",
        "/conversations/{d}/{group}/self",
        r#"{"otr_muted_status":1,"otr_muted_ref":"x","otr_archived":false,"otr_archived_ref":"y","hidden":false,"hidden_ref":"z"}"#,
    ),
    ("POST", "/conversations/{domain}/{id}/typing", "/conversations/{d}/{group}/typing", r#"{"status":"started"}"#),
    (
        "POST",
        "/conversations/{id}/otr/messages",
        "/conversations/{group}/otr/messages",
        r#"{"sender":"{mine}","recipients":{"{bob}":{"{bobs}":"AAAA"}},"native_push":true,"transient":false,"data":"AAAA","report_missing":[]}"#,
    ),
    (
        "POST",
        "/one2one-conversations",
        "/one2one-conversations",
        r#"{"qualified_users":[{"domain":"{d}","id":"{bob}"}]}"#,
    ),
    (
        "POST",
        "/conversations/code-check",
        "/conversations/code-check",
        r#"{"key":"abcdefghijklmnopqrst","code":"123456"}"#,
    ),
    ("POST", "/conversations/join", "/conversations/join", r#"{"key":"abcdefghijklmnopqrst","code":"123456"}"#),
];

/// Where golden samples of requests belong: type, method, template.
const GOLDEN: &[(&str, &str, &str)] = &[
    ("Activate_user", "POST", "/activate"),
    ("CheckHandles_user", "POST", "/handles"),
    ("ConnectionUpdate_user", "PUT", "/connections/{domain}/{id}"),
    ("ConversationMessageTimerUpdate_user", "PUT", "/conversations/{domain}/{id}/message-timer"),
    ("ConversationReceiptModeUpdate_user", "PUT", "/conversations/{domain}/{id}/receipt-mode"),
    ("ConversationRename_user", "PUT", "/conversations/{domain}/{id}/name"),
    ("CreateGroupConversation", "POST", "/conversations"),
    ("GetPaginatedConversationIds", "POST", "/conversations/list-ids"),
    ("HandleUpdate_user", "PUT", "/self/handle"),
    ("ListConversations", "POST", "/conversations/list"),
    ("ListUsersById_user", "POST", "/list-users"),
    ("LocaleUpdate_user", "PUT", "/self/locale"),
    ("Login_user", "POST", "/login"),
    ("MemberUpdate_user", "PUT", "/conversations/{domain}/{id}/self"),
    ("NewClient_user", "POST", "/clients"),
    ("NewConv_user", "POST", "/conversations"),
    ("NewOtrMessage_user", "POST", "/conversations/{id}/otr/messages"),
    ("NewUser_user", "POST", "/register"),
    ("NewUserPublic_user", "POST", "/register"),
    ("OtherMemberUpdate_user", "PUT", "/conversations/{domain}/{id}/members/{user_domain}/{user}"),
    ("PushToken_user", "POST", "/push/tokens"),
    ("RmClient_user", "DELETE", "/clients/{client}"),
    ("SendActivationCode", "POST", "/activate/send"),
    ("TypingStatus_user", "POST", "/conversations/{domain}/{id}/typing"),
    ("UpdateClient_user", "PUT", "/clients/{client}"),
    ("UserUpdate_user", "PUT", "/self"),
];

/// Values to put in the place of others.
fn others() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1.5),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}\u{fffd}\u{202e}"),
        json!("x".repeat(70_000)),
        json!([]),
        json!([null]),
        json!({}),
        json!({ "": [] }),
    ]
}

/// Places in a document, deepest last.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                places(field, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate().take(2) {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// A document that differs in one place.
struct Variation {
    body: Value,
    /// A list stands for an object: such a list may be read field by field.
    read_in_order: bool,
}

/// All documents that differ in one place.
fn variations(sample: &Value) -> Vec<Variation> {
    let mut found = Vec::new();
    places(sample, "", &mut found);
    let mut variations = Vec::new();
    for place in found {
        for other in others() {
            let mut changed = sample.clone();
            if let Some(value) = changed.pointer_mut(&place) {
                let read_in_order = value.is_object() && other.is_array();
                *value = other;
                variations.push(Variation { body: changed, read_in_order });
            }
        }
        let Some((parent, name)) = place.rsplit_once('/') else { continue };
        let mut changed = sample.clone();
        if let Some(Value::Object(fields)) = changed.pointer_mut(parent) {
            fields.remove(&name.replace("~1", "/").replace("~0", "~"));
            variations.push(Variation { body: changed, read_in_order: false });
        }
    }
    variations
}

/// What came of the requests of one route.
#[derive(Default)]
struct Tally {
    refused: usize,
    asked: usize,
    faults: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.asked += other.asked;
        self.faults.extend(other.faults);
    }
}

async fn try_all(world: &World, method: &str, template: &str, path: &str, sample: &Value) -> Result<Tally> {
    let wanted: Method = method.parse()?;
    let is_right =
        conforming(ApiVersion::MAX, &wanted, template).with_context(|| format!("{method} {template} reads no JSON"))?;
    let mut tally = Tally::default();
    for Variation { body, read_in_order } in variations(sample) {
        let answer = world.ann.request(wanted.clone(), path, Body::Json(&body)).await;
        let is_wrong = !read_in_order && !is_right(&body);
        let fault = match answer {
            Ok(answer) if answer.status >= 500 || (is_wrong && answer.status != 400) => {
                Some(format!("{} {}", answer.status, answer.label()))
            }
            Ok(_) => None,
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(fault) = fault {
            let text: String = body.to_string().chars().take(400).collect();
            tally.faults.push(format!("{method} {template} with {text}: {fault}"));
        }
        tally.refused += usize::from(is_wrong);
        tally.asked += 1;
    }
    Ok(tally)
}

#[tokio::test]
async fn json_with_a_mistake_is_refused_by_every_route() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let world = World::new(&federation).await?;
    let mut tried = BTreeSet::new();
    let mut total = Tally::default();
    for (method, template, path, sample) in SAMPLES {
        let sample: Value = serde_json::from_str(&world.fill(&sample.replace("PREKEY", PREKEY)))?;
        total.add(try_all(&world, method, template, &world.fill(path), &sample).await?);
        tried.insert(format!("{method} {template}"));
    }
    println!(
        "{} requests with a mistake refused, {} other changed ones answered",
        total.refused,
        total.asked - total.refused
    );
    ensure!(total.faults.is_empty(), "{}", total.faults.join("\n"));
    ensure!(total.refused > 1000, "only {} were wrong", total.refused);
    let description = aldis::description();
    let reading = description.table().rows().iter().filter(|route| route.reads_json());
    let untried: Vec<_> = reading.map(|route| format!("{} {}", route.method, route.path)).collect();
    let untried: Vec<_> = untried.into_iter().filter(|route| !tried.contains(route)).collect();
    ensure!(untried.is_empty(), "no sample for {untried:?}");
    Ok(())
}

#[tokio::test]
async fn golden_requests_with_a_mistake_are_refused() -> Result<()> {
    let folder = std::env::var_os("ALDIS_GOLDEN").map(PathBuf::from).context("ALDIS_GOLDEN names the folder")?;
    let federation = Federation::start(&[ALPHA]).await?;
    let world = World::new(&federation).await?;
    let mut total = Tally::default();
    for (kind, method, template) in GOLDEN {
        let sample = SAMPLES.iter().find(|(known, at, ..)| known == method && at == template);
        let (_, _, path, _) = sample.with_context(|| format!("no sample of {method} {template}"))?;
        let names = std::fs::read_dir(folder.join("golden"))?;
        let prefix = format!("testObject_{kind}_");
        let mut files: Vec<PathBuf> = names.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)));
        files.sort();
        ensure!(!files.is_empty(), "no sample of {kind}");
        // A few of a kind: they differ in texts more than in shape.
        for file in files.iter().take(3) {
            let sample: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
            total.add(try_all(&world, method, template, &world.fill(path), &sample).await?);
        }
    }
    println!("{} kinds, {} requests with a mistake refused", GOLDEN.len(), total.refused);
    ensure!(total.faults.is_empty(), "{}", total.faults.join("\n"));
    ensure!(total.refused > 500, "only {} were wrong", total.refused);
    Ok(())
}

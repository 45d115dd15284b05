//! Groups over several backends: who is in them, who may change them, and what happens when one backend is down.

use std::collections::BTreeSet;

use aldis_harness::{
    backend::{Federation, Setup, reachable},
    client::{Socket, User, connect, members_of, path_of},
    wait::eventually,
};
use aldis_types::{ConversationId, Qualified, UserId};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA, GAMMA, Pair, Three};

/// Waits until a user sees exactly these members.
async fn sees(user: &User, conversation: &Qualified<ConversationId>, members: &[&User]) -> Result<()> {
    let mut expected: Vec<_> = members.iter().map(|member| member.id.clone()).collect();
    expected.sort();
    eventually("the members of a conversation", async || {
        let seen = user.members(conversation).await?;
        ensure!(seen == expected, "{} sees {seen:?}", user.person.name);
        Ok(())
    })
    .await
}

/// Waits until the members see each other: another backend hears of a group a little later than its owner answers, and
/// knows nothing of it until then.
async fn everybody_sees(conversation: &Qualified<ConversationId>, members: &[&User]) -> Result<()> {
    for member in members {
        sees(member, conversation, members).await?;
    }
    Ok(())
}

fn ids(value: &Value) -> Result<BTreeSet<Qualified<UserId>>> {
    let list = value.as_array().with_context(|| format!("not a list: {value}"))?;
    let ids = list.iter().map(|one| {
        let id = if one.get("qualified_id").is_some() { &one["qualified_id"] } else { one };
        serde_json::from_value(id.clone())
    });
    Ok(ids.collect::<Result<_, _>>()?)
}

fn set(users: &[&User]) -> BTreeSet<Qualified<UserId>> {
    users.iter().map(|user| user.id.clone()).collect()
}

#[tokio::test]
async fn a_group_over_three_backends_is_the_same_everywhere() -> Result<()> {
    let Three { federation: _federation, ann, bob, cleo } = Three::connected().await?;
    let phone = ann.on_another_device().await?;
    let mut sockets = [phone.open_socket().await?, bob.open_socket().await?, cleo.open_socket().await?];
    let group = ann.group("Lunch", &[&bob.id, &cleo.id]).await?;
    ensure!(group.domain == ann.id.domain, "the creator's backend owns it");
    for (socket, reader) in sockets.iter_mut().zip([&phone, &bob, &cleo]) {
        let event = socket.event("conversation.create").await?;
        let data = &event["data"];
        ensure!(event["qualified_conversation"] == json!(group) && event["qualified_from"] == json!(ann.id), "{event}");
        ensure!(data["name"] == "Lunch" && data["type"] == 0 && data["id"] == json!(group.id), "{event}");
        ensure!(data["access_role_v2"].is_array() && data["access_role"].is_string(), "the old shape: {event}");
        ensure!(data["members"]["self"]["qualified_id"] == json!(reader.id), "{event}");
        ensure!(members_of(data)? == set(&[&ann, &bob, &cleo]).into_iter().collect::<Vec<_>>(), "{event}");
    }
    for user in [&ann, &bob, &cleo] {
        sees(user, &group, &[&ann, &bob, &cleo]).await?;
        ensure!(user.conversation_ids().await?.contains(&group), "{} does not list it", user.person.name);
        let listed =
            user.post("/conversations/list", &json!({ "qualified_ids": [group] })).await?.expect(200)?.value()?;
        ensure!(listed["found"][0]["qualified_id"] == json!(group), "{listed}");
        ensure!(listed["found"][0]["members"]["self"]["qualified_id"] == json!(user.id), "{listed}");
        ensure!(listed["failed"] == json!([]) && listed["not_found"] == json!([]), "{listed}");
    }
    let roles = ann.conversation(&group).await?.expect(200)?.value()?;
    ensure!(roles["members"]["self"]["conversation_role"] == "wire_admin", "{roles}");
    let others = roles["members"]["others"].as_array().context("others")?;
    ensure!(others.iter().all(|other| other["conversation_role"] == "wire_member"), "{roles}");

    // From version 10 on there is no bare id; before, there is.
    let at = async |version: u32| -> Result<Value> {
        let old = ann.api.with_version(Some(version));
        let call = old.call(http::Method::GET, path_of(&group, "")).token(&ann.session().token)?;
        call.send().await?.expect(200)?.value()
    };
    ensure!(at(9).await?["id"] == json!(group.id));
    ensure!(at(10).await?["qualified_id"] == json!(group));
    Ok(())
}

/// The next event of this kind at every socket.
async fn everywhere(sockets: &mut [Socket], kind: &str, check: impl Fn(&Value) -> bool) -> Result<()> {
    for socket in sockets {
        let event = socket.event(kind).await?;
        ensure!(check(&event), "{event}");
    }
    Ok(())
}

#[tokio::test]
async fn changes_reach_every_backend_in_order() -> Result<()> {
    let Three { federation, ann, bob, cleo } = Three::connected().await?;
    let dora = federation.user(BETA, "Dora").await?;
    connect(&ann, &dora).await?;
    let group = ann.group("First", &[&bob.id, &cleo.id]).await?;
    everybody_sees(&group, &[&ann, &bob, &cleo]).await?;
    let mut sockets = [bob.open_socket().await?, cleo.open_socket().await?];
    let phone = ann.on_another_device().await?;
    let mut own = phone.open_socket().await?;

    ann.rename(&group, "Second").await?.expect(200)?;
    let added = ann.add_members(&group, &[&dora.id]).await?.expect(200)?.value()?;
    ensure!(added["type"] == "conversation.member-join" && ids(&added["data"]["users"])? == set(&[&dora]), "{added}");
    ann.rename(&group, "Third").await?.expect(200)?;
    let removed = ann.remove_member(&group, &dora.id).await?.expect(200)?.value()?;
    ensure!(removed["data"]["reason"] == "removed", "{removed}");
    ann.remove_member(&group, &dora.id).await?.expect(204)?;
    // A member of another backend leaves.
    let left = cleo.remove_member(&group, &cleo.id).await?.expect(200)?.value()?;
    ensure!(left["data"]["reason"] == "left" && left["qualified_from"] == json!(cleo.id), "{left}");

    let from_ann = |event: &Value| event["qualified_from"] == json!(ann.id);
    everywhere(&mut sockets, "conversation.rename", |event| from_ann(event) && event["data"]["name"] == "Second")
        .await?;
    let joins = |event: &Value| ids(&event["data"]["users"]).is_ok_and(|users| users == set(&[&dora]));
    everywhere(&mut sockets, "conversation.member-join", joins).await?;
    everywhere(&mut sockets, "conversation.rename", |event| event["data"]["name"] == "Third").await?;
    let is_out =
        |event: &Value, who: &User| ids(&event["data"]["qualified_user_ids"]).is_ok_and(|users| users == set(&[who]));
    everywhere(&mut sockets, "conversation.member-leave", |event| is_out(event, &dora)).await?;
    everywhere(&mut sockets[..1], "conversation.member-leave", |event| is_out(event, &cleo)).await?;
    for name in ["Second", "Third"] {
        let event = own.event("conversation.rename").await?;
        ensure!(event["data"]["name"] == name, "{event}");
    }
    for user in [&ann, &bob] {
        sees(user, &group, &[&ann, &bob]).await?;
        let seen = user.conversation(&group).await?.value()?;
        ensure!(seen["name"] == "Third", "{seen}");
    }
    for gone in [&cleo, &dora] {
        eventually("the end of a membership", async || {
            gone.conversation(&group).await?.expect_one_of(&[403, 404])?;
            ensure!(!gone.conversation_ids().await?.contains(&group), "still listed");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_admin_of_another_backend_may_change_a_group() -> Result<()> {
    let Three { federation, ann, bob, cleo } = Three::connected().await?;
    let group = ann.group("Admins", &[&bob.id, &cleo.id]).await?;
    everybody_sees(&group, &[&ann, &bob, &cleo]).await?;
    let eve = federation.user(BETA, "Eve").await?;
    connect(&bob, &eve).await?;
    for (actor, action) in [(&bob, "modify_conversation_name"), (&cleo, "modify_conversation_name")] {
        let refused = actor.rename(&group, "Mine").await?.expect_error(403, "action-denied")?;
        ensure!(refused["message"].as_str().is_some_and(|text| text.contains(action)), "{refused}");
    }
    bob.add_members(&group, &[&eve.id]).await?.expect_error(403, "action-denied")?;
    bob.remove_member(&group, &cleo.id).await?.expect_error(403, "action-denied")?;

    let path = path_of(&group, &format!("/members/{}/{}", bob.id.domain, bob.id.id));
    ann.put(&path, &json!({ "conversation_role": "wire_admin" })).await?.expect(200)?;
    let mut socket = cleo.open_socket().await?;
    let renamed = bob.rename(&group, "Ours").await?.expect(200)?.value()?;
    ensure!(renamed["data"]["name"] == "Ours" && renamed["qualified_from"] == json!(bob.id), "{renamed}");
    bob.add_members(&group, &[&eve.id]).await?.expect(200)?;
    bob.remove_member(&group, &cleo.id).await?.expect(200)?;
    for kind in ["conversation.rename", "conversation.member-join", "conversation.member-leave"] {
        let event = socket.event(kind).await?;
        ensure!(event["qualified_from"] == json!(bob.id), "{event}");
    }
    for user in [&ann, &bob, &eve] {
        sees(user, &group, &[&ann, &bob, &eve]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_types_is_seen_everywhere_and_nowhere_kept() -> Result<()> {
    let Three { federation: _federation, ann, bob, cleo } = Three::connected().await?;
    let group = ann.group("Typing", &[&bob.id, &cleo.id]).await?;
    everybody_sees(&group, &[&ann, &bob, &cleo]).await?;
    let mut sockets = [ann.open_socket().await?, bob.open_socket().await?, cleo.open_socket().await?];
    for (who, writer) in [&ann, &bob, &cleo].into_iter().enumerate() {
        for status in ["started", "stopped"] {
            let path = path_of(&group, "/typing");
            writer.post(&path, &json!({ "status": status })).await?.expect(200)?;
            for (reader, socket) in sockets.iter_mut().enumerate() {
                if reader != who {
                    let event = socket.event("conversation.typing").await?;
                    ensure!(
                        event["qualified_from"] == json!(writer.id) && event["data"]["status"] == status,
                        "{event}"
                    );
                    ensure!(event["qualified_conversation"] == json!(group), "{event}");
                }
            }
        }
    }
    for user in [&ann, &bob, &cleo] {
        let queue = user.queue(None).await?;
        ensure!(queue.iter().all(|event| event.kind() != "conversation.typing"), "it was kept");
    }
    Ok(())
}

#[tokio::test]
async fn an_admin_elsewhere_sets_access_and_the_whole_list() -> Result<()> {
    let Three { federation, ann, bob, cleo } = Three::connected().await?;
    let eve = federation.user(BETA, "Eve").await?;
    let fred = federation.user(GAMMA, "Fred").await?;
    for other in [&eve, &fred] {
        connect(&bob, other).await?;
    }
    let group = ann.group("Whose", &[&bob.id, &cleo.id]).await?;
    everybody_sees(&group, &[&ann, &bob, &cleo]).await?;
    let role = path_of(&group, &format!("/members/{}/{}", bob.id.domain, bob.id.id));
    ann.put(&role, &json!({ "conversation_role": "wire_admin" })).await?.expect(200)?;

    let body = json!({ "qualified_users": [ann.id, eve.id, fred.id], "conversation_role": "wire_member" });
    let mut socket = cleo.open_socket().await?;
    bob.put(&path_of(&group, "/members"), &body).await?.expect(200)?;
    let left = socket.event("conversation.member-leave").await?;
    ensure!(ids(&left["data"]["qualified_user_ids"])? == set(&[&cleo]), "{left}");
    everybody_sees(&group, &[&ann, &bob, &eve, &fred]).await?;
    let access = json!({ "access": [], "access_role": ["non_team_member"] });
    let event = bob.put(&path_of(&group, "/access"), &access).await?.expect(200)?.value()?;
    let data = json!({ "access": [], "access_role": "activated", "access_role_v2": ["non_team_member"] });
    ensure!(event["type"] == "conversation.access-update" && event["data"] == data, "{event}");
    ann.add_members(&group, &[&cleo.id]).await?.expect_error(403, "access-denied")?;
    Ok(())
}

#[tokio::test]
async fn a_deleted_account_leaves_groups_wherever_they_are() -> Result<()> {
    let Three { mut federation, ann, bob, cleo } = Three::connected().await?;
    let dora = federation.user(ALPHA, "Dora").await?;
    for other in [&dora, &cleo] {
        connect(&bob, other).await?;
    }
    let theirs = bob.group("Of another backend", &[&ann.id, &dora.id, &cleo.id]).await?;
    let ours = dora.group("Of our own", &[&bob.id]).await?;
    everybody_sees(&theirs, &[&ann, &bob, &dora, &cleo]).await?;
    // The owner hears of it when it is there again, and tells everybody.
    federation.stop(BETA).await?;
    ann.delete_with("/self", &json!({ "password": ann.person.password })).await?.expect(200)?;
    federation.resume_running(BETA).await?;
    everybody_sees(&theirs, &[&bob, &dora, &cleo]).await?;
    for user in [&bob, &dora, &cleo] {
        eventually("the word of it", async || {
            let queue = user.queue(None).await?;
            let left = queue.iter().find(|event| event.kind() == "conversation.member-leave").context("nothing yet")?;
            ensure!(left.value["qualified_conversation"] == json!(theirs), "{left:?}");
            ensure!(left.value["data"]["reason"] == "user-deleted", "{left:?}");
            ensure!(ids(&left.value["data"]["qualified_user_ids"])? == set(&[&ann]), "{left:?}");
            Ok(())
        })
        .await?;
    }
    // What they wrote to each other stays with those who are left.
    for user in [&bob, &cleo] {
        eventually("the end of the connection", async || {
            ensure!(user.relation(&ann.id).await? == "none");
            Ok(())
        })
        .await?;
        ensure!(user.conversation_ids().await?.contains(&user.one_to_one(&ann.id)), "no longer listed");
    }
    ensure!(bob.conversation_ids().await?.contains(&ours));
    Ok(())
}

#[tokio::test]
async fn only_connected_people_come_into_a_group() -> Result<()> {
    let Three { federation, ann, bob, cleo } = Three::connected().await?;
    let stranger = federation.user(BETA, "Stranger").await?;
    let local = federation.user(ALPHA, "Local").await?;
    for other in [&stranger, &local] {
        ann.create_group("No", &[&bob.id, &other.id]).await?.expect_error(403, "not-connected")?;
    }
    let group = ann.group("Yes", &[&bob.id, &cleo.id]).await?;
    for other in [&stranger, &local] {
        ann.add_members(&group, &[&other.id]).await?.expect_error(403, "not-connected")?;
    }
    ann.add_members(&group, &[&bob.id]).await?.expect(204)?;
    stranger.conversation(&group).await?.expect_one_of(&[403, 404])?;
    local.conversation(&group).await?.expect_error(403, "access-denied")?;
    local.rename(&group, "x").await?.expect_error(404, "no-conversation")?;
    stranger.rename(&group, "x").await?.expect_error(404, "no-conversation")?;
    Ok(())
}

#[tokio::test]
async fn a_group_with_a_backend_that_is_down_is_not_created() -> Result<()> {
    let Three { mut federation, ann, bob, cleo } = Three::connected().await?;
    let before = ann.conversation_ids().await?.len();
    federation.stop(GAMMA).await?;
    let refused = ann.create_group("No", &[&bob.id, &cleo.id]).await?.expect(533)?.value()?;
    ensure!(refused == json!({ "unreachable_backends": [GAMMA] }), "{refused}");
    ensure!(ann.conversation_ids().await?.len() == before, "something was left");
    // The app asks again without them.
    let group = ann.group("Yes", &[&bob.id]).await?;
    let refused = ann.add_members(&group, &[&cleo.id]).await?.expect(533)?.value()?;
    ensure!(refused == json!({ "unreachable_backends": [GAMMA] }), "{refused}");

    federation.resume_running(GAMMA).await?;
    reachable(&ann, &cleo).await?;
    ann.add_members(&group, &[&cleo.id]).await?.expect(200)?;
    sees(&cleo, &group, &[&ann, &bob, &cleo]).await
}

#[tokio::test]
async fn backends_that_do_not_federate_are_not_brought_together() -> Result<()> {
    let setup = Setup::of(&[ALPHA, BETA, GAMMA]).unlisted(BETA, GAMMA).unlisted(GAMMA, BETA);
    let federation = Federation::with(setup).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let cleo = federation.user(GAMMA, "Cleo").await?;
    for other in [&bob, &cleo] {
        connect(&ann, other).await?;
    }
    let check = |refused: &Value| {
        let mut pair: Vec<_> = refused["non_federating_backends"].as_array().cloned().unwrap_or_default();
        pair.sort_by_key(ToString::to_string);
        pair == [json!(BETA), json!(GAMMA)]
    };
    let refused = ann.create_group("No", &[&bob.id, &cleo.id]).await?.expect(409)?.value()?;
    ensure!(check(&refused), "{refused}");
    let group = ann.group("Two", &[&bob.id]).await?;
    let refused = ann.add_members(&group, &[&cleo.id]).await?.expect(409)?.value()?;
    ensure!(check(&refused), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_backend_that_is_down_keeps_nobody_from_changing_the_rest() -> Result<()> {
    let Three { mut federation, ann, bob, cleo } = Three::connected().await?;
    let dora = federation.user(BETA, "Dora").await?;
    let local = federation.user(ALPHA, "Local").await?;
    for other in [&dora, &local] {
        connect(&ann, other).await?;
    }
    let group = ann.group("First", &[&bob.id, &cleo.id]).await?;
    federation.stop(GAMMA).await?;
    // From a backend that takes part already, from our own; a new name; and the one who is away is removed.
    ann.add_members(&group, &[&dora.id]).await?.expect(200)?;
    ann.add_members(&group, &[&local.id]).await?.expect(200)?;
    ann.rename(&group, "While you were out").await?.expect(200)?;
    ann.remove_member(&group, &cleo.id).await?.expect(200)?;
    sees(&bob, &group, &[&ann, &bob, &dora, &local]).await?;

    federation.resume_running(GAMMA).await?;
    eventually("the news of four changes", async || {
        let queue = cleo.queue(None).await?;
        let kinds: Vec<_> = queue.iter().map(aldis_harness::client::Event::kind).collect();
        let changes: Vec<_> = kinds.iter().filter(|kind| kind.starts_with("conversation.")).copied().collect();
        let tail = [
            "conversation.member-join",
            "conversation.member-join",
            "conversation.rename",
            "conversation.member-leave",
        ];
        ensure!(changes.ends_with(&tail), "{changes:?}");
        ensure!(!cleo.conversation_ids().await?.contains(&group), "still listed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_conversation_whose_owner_is_down_is_listed_as_failed() -> Result<()> {
    let Pair { mut federation, ann, bob, .. } = Pair::connected().await?;
    let group = ann.group("Away", &[&bob.id]).await?;
    sees(&bob, &group, &[&ann, &bob]).await?;
    federation.stop(ALPHA).await?;
    let unknown = json!({ "domain": BETA, "id": group.id });
    let body = json!({ "qualified_ids": [group, unknown] });
    let listed = bob.post("/conversations/list", &body).await?.expect(200)?.value()?;
    ensure!(listed["failed"] == json!([group]) && listed["not_found"] == json!([unknown]), "{listed}");
    ensure!(bob.conversation_ids().await?.contains(&group));
    bob.conversation(&group).await?.expect_error(521, "federation-connection-refused")?;
    for answer in [bob.rename(&group, "x").await?, bob.remove_member(&group, &bob.id).await?] {
        answer.expect_error(521, "federation-connection-refused")?;
    }
    Ok(())
}

#[tokio::test]
async fn own_settings_stay_at_the_own_backend() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    let group = ann.group("Quiet", &[&bob.id]).await?;
    sees(&bob, &group, &[&ann, &bob]).await?;
    let phone = bob.on_another_device().await?;
    let mut socket = phone.open_socket().await?;
    let body = json!({ "otr_muted_status": 3, "otr_muted_ref": "2025-01-01T00:00:00.000Z" });
    bob.put(&path_of(&group, "/self"), &body).await?.expect(200)?;
    let event = socket.event("conversation.member-update").await?;
    ensure!(event["data"]["otr_muted_status"] == 3, "{event}");
    let seen = bob.conversation(&group).await?.expect(200)?.value()?;
    ensure!(seen["members"]["self"]["otr_muted_status"] == 3, "{seen}");
    let seen = ann.conversation(&group).await?.expect(200)?.value()?;
    ensure!(seen["members"]["self"]["otr_muted_status"].is_null(), "{seen}");
    Ok(())
}

#[tokio::test]
async fn everybody_has_a_conversation_with_himself() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let phone = ann.on_another_device().await?;
    let created = ann.post("/conversations/self", &json!({})).await?.expect_one_of(&[200, 201])?.value()?;
    ensure!(created["type"] == 1 && created["id"] == json!(ann.id.id), "{created}");
    let conversation = serde_json::from_value(created["qualified_id"].clone())?;
    ann.post("/conversations/self", &json!({})).await?.expect(200)?;
    let mut socket = phone.open_socket().await?;
    ann.send(&conversation, "note to myself").await?;
    ensure!(socket.message(&phone).await?.text == "note to myself");
    ann.rename(&conversation, "x").await?.expect_error(403, "invalid-op")?;
    Ok(())
}

#[tokio::test]
async fn pages_of_ids_cover_own_and_others_conversations() -> Result<()> {
    let Pair { federation: _federation, ann, bob, conversation } = Pair::connected().await?;
    // The conversation with oneself has the user's id.
    let own = Qualified::new(ConversationId::new(ann.id.id.uuid()), ann.id.domain.clone());
    let mut expected = BTreeSet::from([conversation, own]);
    for number in 0..3 {
        expected.insert(ann.group(&format!("of Ann {number}"), &[&bob.id]).await?);
        expected.insert(bob.group(&format!("of Bob {number}"), &[&ann.id]).await?);
    }
    eventually("all conversations", async || {
        let mut seen = Vec::new();
        let mut body = json!({ "size": 2 });
        loop {
            let page = ann.post("/conversations/list-ids", &body).await?.expect(200)?.value()?;
            let ids: Vec<Qualified<ConversationId>> = serde_json::from_value(page["qualified_conversations"].clone())?;
            ensure!(ids.len() <= 2, "{page}");
            seen.extend(ids);
            if page["has_more"] != true {
                break;
            }
            body = json!({ "size": 2, "paging_state": page["paging_state"] });
        }
        let all: BTreeSet<_> = seen.iter().cloned().collect();
        ensure!(seen.len() == all.len() && all == expected, "{seen:?} instead of {expected:?}");
        Ok(())
    })
    .await?;
    ann.post("/conversations/list-ids", &json!({ "paging_state": "????" })).await?.expect(400)?;
    Ok(())
}

//! Finding people, connecting with them, and conversations with them.

use aldis_types::{ConversationId, Domain, OneToOneProtocol, Qualified, UserId, one_to_one};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    account::User,
    http::{Answer, encode},
    message::path_of,
};
use crate::wait::eventually;

impl User {
    /// What `GET /search/contacts` answers.
    pub async fn search(&self, text: &str, domain: &Domain) -> Result<Answer> {
        self.get(&format!("/search/contacts?q={}&domain={domain}&size=15", encode(text))).await
    }

    /// The users that a search finds, in the order of the answer.
    pub async fn find(&self, text: &str, domain: &Domain) -> Result<Vec<Qualified<UserId>>> {
        let found = self.search(text, domain).await?.expect(200)?.value()?;
        let documents = found["documents"].as_array().context("documents of the search")?;
        let ids = documents.iter().map(|document| serde_json::from_value(document["qualified_id"].clone()));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Asks another user to connect.
    pub async fn request_connection(&self, other: &Qualified<UserId>) -> Result<Answer> {
        self.post(&format!("/connections/{}/{}", other.domain, other.id), &json!({})).await
    }

    /// Changes this side of a connection.
    pub async fn set_connection(&self, other: &Qualified<UserId>, status: &str) -> Result<Answer> {
        self.put(&format!("/connections/{}/{}", other.domain, other.id), &json!({ "status": status })).await
    }

    /// This side of a connection; `None` when there is none.
    pub async fn connection(&self, other: &Qualified<UserId>) -> Result<Option<Value>> {
        let answer = self.get(&format!("/connections/{}/{}", other.domain, other.id)).await?;
        let answer = answer.expect_one_of(&[200, 404])?;
        if answer.status == 404 { Ok(None) } else { answer.value().map(Some) }
    }

    /// The status of this side of a connection; `none` when there is none.
    pub async fn relation(&self, other: &Qualified<UserId>) -> Result<String> {
        let connection = self.connection(other).await?;
        let status = connection.map(|connection| connection["status"].as_str().unwrap_or_default().to_owned());
        Ok(status.unwrap_or_else(|| "none".to_owned()))
    }

    /// The one-to-one conversation with a user, by the rule that both backends follow.
    pub fn one_to_one(&self, other: &Qualified<UserId>) -> Qualified<ConversationId> {
        one_to_one(&self.id, other, OneToOneProtocol::Proteus)
    }

    /// A conversation as this user sees it; the answer whatever it is.
    pub async fn conversation(&self, conversation: &Qualified<ConversationId>) -> Result<Answer> {
        self.get(&path_of(conversation, "")).await
    }

    /// All members of a conversation as this user sees it, himself included, in order.
    pub async fn members(&self, conversation: &Qualified<ConversationId>) -> Result<Vec<Qualified<UserId>>> {
        let seen = self.conversation(conversation).await?.expect(200)?.value()?;
        members_of(&seen)
    }

    /// Creates a group with these users; the answer whatever it is.
    pub async fn create_group(&self, name: &str, with: &[&Qualified<UserId>]) -> Result<Answer> {
        let body = json!({
            "name": name,
            "qualified_users": with,
            "conversation_role": "wire_member",
            "access": ["invite", "code"],
            "access_role": ["team_member", "non_team_member", "guest", "service"],
            "receipt_mode": 1,
            "protocol": "proteus",
        });
        self.post("/conversations", &body).await
    }

    /// Creates a group with these users.
    pub async fn group(&self, name: &str, with: &[&Qualified<UserId>]) -> Result<Qualified<ConversationId>> {
        let created = self.create_group(name, with).await?.expect(201)?.value()?;
        let failed = created["failed_to_add"].as_array().context("failed_to_add")?;
        ensure!(failed.is_empty(), "not everybody was added: {created}");
        serde_json::from_value(created["qualified_id"].clone()).context("qualified_id of the new conversation")
    }

    /// Adds users to a conversation; the answer whatever it is.
    pub async fn add_members(
        &self,
        conversation: &Qualified<ConversationId>,
        users: &[&Qualified<UserId>],
    ) -> Result<Answer> {
        let body = json!({ "qualified_users": users, "conversation_role": "wire_member" });
        self.post(&path_of(conversation, "/members"), &body).await
    }

    /// Removes a user from a conversation, or leaves it; the answer whatever it is.
    pub async fn remove_member(
        &self,
        conversation: &Qualified<ConversationId>,
        user: &Qualified<UserId>,
    ) -> Result<Answer> {
        self.delete(&path_of(conversation, &format!("/members/{}/{}", user.domain, user.id))).await
    }

    /// Renames a conversation; the answer whatever it is.
    pub async fn rename(&self, conversation: &Qualified<ConversationId>, name: &str) -> Result<Answer> {
        self.put(&path_of(conversation, "/name"), &json!({ "name": name })).await
    }

    /// The ids of all conversations of this user.
    pub async fn conversation_ids(&self) -> Result<Vec<Qualified<ConversationId>>> {
        let mut ids = Vec::new();
        let mut body = json!({});
        loop {
            let page = self.post("/conversations/list-ids", &body).await?.expect(200)?.value()?;
            let found: Vec<_> = serde_json::from_value(page["qualified_conversations"].clone())?;
            ids.extend(found);
            if page["has_more"] != true {
                return Ok(ids);
            }
            body = json!({ "paging_state": page["paging_state"] });
        }
    }
}

/// All members in the JSON of a conversation, in order.
pub fn members_of(conversation: &Value) -> Result<Vec<Qualified<UserId>>> {
    let members = &conversation["members"];
    let others = members["others"].as_array().context("members.others")?;
    let all = std::iter::once(&members["self"]).chain(others);
    let ids = all.map(|member| serde_json::from_value(member["qualified_id"].clone()));
    let mut ids: Vec<_> = ids.collect::<Result<_, _>>().context("qualified_id of a member")?;
    ids.sort();
    Ok(ids)
}

/// Connects two users and waits until both can use their conversation.
pub async fn connect(from: &User, to: &User) -> Result<Qualified<ConversationId>> {
    from.request_connection(&to.id).await?.expect_one_of(&[200, 201])?;
    to.set_connection(&from.id, "accepted").await?.expect(200)?;
    let conversation = from.one_to_one(&to.id);
    let mut both = vec![from.id.clone(), to.id.clone()];
    both.sort();
    for user in [from, to] {
        eventually("the conversation of two connected users", async || {
            let members = user.members(&conversation).await?;
            ensure!(members == both, "{} sees the members {members:?}", user.person.name);
            Ok(())
        })
        .await?;
    }
    Ok(conversation)
}

//! What each side says in the end, read through its client API.

use aldis_harness::client::{User, members_of, path_of};
use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    history::View,
    world::{Conversation, World},
};

/// Members, names, roles and connections, as everybody sees them.
pub(crate) async fn views(world: &World) -> Result<Vec<View>> {
    let mut views = Vec::new();
    for conversation in &world.conversations {
        look_at(world, conversation, &mut views).await?;
    }
    for (one, other) in &world.couples {
        let (one, other) = (world.user(*one)?, world.user(*other)?);
        let subject = format!("connection of {} and {}", one.id, other.id);
        for (me, them) in [(one, other), (other, one)] {
            let value = relation(&me.relation(&them.id).await?, &me.id.to_string(), &them.id.to_string());
            views.push(View { subject: subject.clone(), by: me.person.name.clone(), value });
        }
    }
    Ok(views)
}

/// A connection in words that are the same from both sides.
fn relation(mine: &str, me: &str, them: &str) -> String {
    match mine {
        "sent" => format!("{me} has asked"),
        "pending" => format!("{them} has asked"),
        "none" | "cancelled" => "none".to_owned(),
        other => other.to_owned(),
    }
}

async fn look_at(world: &World, conversation: &Conversation, views: &mut Vec<View>) -> Result<()> {
    let subject = format!("conversation {}", conversation.id);
    let mut members = Vec::new();
    for sender in &conversation.senders {
        let user = world.user(*sender)?;
        let seen = user.conversation(&conversation.id).await?.expect(200)?.value()?;
        members = members_of(&seen)?;
        views.push(View { subject: subject.clone(), by: user.person.name.clone(), value: in_words(&seen)? });
        views.push(listed(user, conversation).await?);
        views.push(expected(user, conversation, true));
    }
    for guest in &conversation.guests {
        let user = world.user(*guest)?;
        let is_member = members.contains(&user.id);
        let seen = user.get(&path_of(&conversation.id, "")).await?.expect_one_of(&[200, 403, 404])?;
        let value = if seen.status == 200 { in_words(&seen.value()?)? } else { "not a member".to_owned() };
        if is_member {
            views.push(View { subject: subject.clone(), by: user.person.name.clone(), value });
        } else {
            let subject = format!("{subject} for {}", user.id);
            let view = |by: &str, value| View { subject: subject.clone(), by: by.to_owned(), value };
            views.extend([view("its members", "not a member".to_owned()), view(&user.person.name, value)]);
        }
        views.push(listed(user, conversation).await?);
        views.push(expected(user, conversation, is_member));
    }
    Ok(())
}

fn subject(user: &User, conversation: &Conversation) -> String {
    format!("conversation {} in the list of {}", conversation.id, user.id)
}

fn expected(user: &User, conversation: &Conversation, is_member: bool) -> View {
    View { subject: subject(user, conversation), by: "its members".to_owned(), value: is_member.to_string() }
}

/// Whether the user's own backend lists the conversation.
async fn listed(user: &User, conversation: &Conversation) -> Result<View> {
    let is_listed = user.conversation_ids().await?.contains(&conversation.id);
    Ok(View { subject: subject(user, conversation), by: user.person.name.clone(), value: is_listed.to_string() })
}

/// Name, and members with their roles.
fn in_words(seen: &Value) -> Result<String> {
    let members = &seen["members"];
    let others = members["others"].as_array().context("members.others")?;
    let mut all: Vec<String> = std::iter::once(&members["self"])
        .chain(others)
        .map(|member| {
            let id = &member["qualified_id"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{}@{} {}", text(&id["id"]), text(&id["domain"]), text(&member["conversation_role"]))
        })
        .collect();
    all.sort();
    Ok(format!("{} with {}", seen["name"], all.join(", ")))
}

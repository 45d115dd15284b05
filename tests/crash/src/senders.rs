//! Those who write, and those who change groups and connections.

use std::{sync::Arc, time::Duration};

use aldis_harness::client::{Answer, Draft, Status, User};
use anyhow::Result;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    history::{Key, Recorder},
    world::{Conversation, World},
};

/// How long a sender goes on trying to have its last message confirmed.
const LAST: Duration = Duration::from_secs(90);

/// Refusals that pass by themselves: a backend whose certificate is bad is denied, and without DNS none is found.
const PASSING: [&str; 2] = ["federation-denied", "discovery-failure"];

/// What every task of a campaign shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) world: Arc<World>,
    pub(crate) recorder: Arc<Recorder>,
    /// True as soon as nothing new is begun.
    pub(crate) over: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Sleeps, unless it is over.
    pub(crate) async fn rest(&mut self, time: Duration) {
        let _ = timeout(time, self.over.wait_for(|over| *over)).await;
    }

    /// Waits a while for an answer, as an impatient app does; the request is dropped when it takes longer.
    async fn ask(&self, what: &str, patience: Duration, asked: impl Future<Output = Result<Answer>>) -> Option<Answer> {
        let answer = timeout(patience, asked).await;
        let how = match &answer {
            Ok(Ok(answer)) => match answer.label() {
                label if label.is_empty() => answer.status.to_string(),
                label => format!("{} {label}", answer.status),
            },
            Ok(Err(error)) => {
                let text = format!("{error:#}");
                if text.contains("otherwise than described") {
                    self.recorder.odd(text);
                }
                "no answer".to_owned()
            }
            Err(_) => "no answer in time".to_owned(),
        };
        self.recorder.answered(what, &how);
        answer.ok()?.ok()
    }
}

fn patience(dice: &mut StdRng) -> Duration {
    Duration::from_millis(dice.random_range(700..9_000))
}

/// One device writing in one conversation.
pub(crate) struct Flow {
    pub(crate) shared: Shared,
    pub(crate) stream: u32,
    pub(crate) conversation: usize,
    pub(crate) sender: usize,
    /// Mean pause between two messages.
    pub(crate) pace: Duration,
    pub(crate) dice: StdRng,
}

impl Flow {
    /// Writes numbered messages, the next when the last one was confirmed.
    pub(crate) async fn run(mut self) -> Result<()> {
        let world = self.shared.world.clone();
        let (user, conversation) = (world.user(self.sender)?.clone(), &world.conversations[self.conversation]);
        let longest = u64::try_from(self.pace.as_millis())? * 2;
        for number in 0.. {
            let pause = Duration::from_millis(self.dice.random_range(0..=longest));
            self.shared.rest(pause).await;
            if self.shared.is_over() {
                break;
            }
            self.send(&user, conversation, number).await?;
        }
        Ok(())
    }

    /// Posts the same body until it is confirmed; another one only when the backend says that devices are missing.
    async fn send(&mut self, user: &User, conversation: &Conversation, number: u32) -> Result<()> {
        let begun = Instant::now();
        let mut key = Key { stream: self.stream, number, variant: 0 };
        let mut recipients = user.recipients(&conversation.id);
        let mut body = Draft::new(recipients.clone(), &key.text()).encode(user.client()?);
        self.shared.recorder.post(key);
        while !self.shared.is_over() || begun.elapsed() < LAST {
            let posted = user.post_message(&conversation.id, body.clone());
            let answer = self.shared.ask("message", patience(&mut self.dice), posted).await;
            match answer {
                Some(answer) if answer.status == 201 => {
                    let Some(status) = self.status(&answer) else { return Ok(()) };
                    user.correct(&conversation.id, &status);
                    let world = &self.shared.world;
                    let mut devices = world.places(&recipients);
                    for others in [status.redundant(), status.deleted(), status.failed_to_send()] {
                        devices = &devices - &world.places(&others);
                    }
                    // Whoever stays must get everything, whatever the backend says.
                    devices.extend(conversation.staying.iter().filter(|device| **device != self.sender));
                    self.shared.recorder.confirm(key, devices);
                    return Ok(());
                }
                Some(answer) if answer.status == 412 => {
                    let Some(status) = self.status(&answer) else { return Ok(()) };
                    user.correct(&conversation.id, &status);
                    key.variant += 1;
                    recipients = user.recipients(&conversation.id);
                    body = Draft::new(recipients.clone(), &key.text()).encode(user.client()?);
                    self.shared.recorder.post(key);
                }
                Some(answer) if answer.status < 500 && !PASSING.contains(&answer.label().as_str()) => {
                    let (status, label) = (answer.status, answer.label());
                    self.shared.recorder.odd(format!("a message was refused: {status} {label}"));
                    sleep(Duration::from_millis(500)).await;
                }
                _ => sleep(Duration::from_millis(self.dice.random_range(50..400))).await,
            }
        }
        Ok(())
    }

    fn status(&self, answer: &Answer) -> Option<Status> {
        let status = Status::of(answer);
        if let Err(error) = &status {
            self.shared.recorder.odd(format!("an answer that cannot be read: {error:#}"));
        }
        status.ok()
    }
}

/// Somebody who changes a group.
pub(crate) struct Changer {
    pub(crate) shared: Shared,
    pub(crate) stream: u32,
    pub(crate) conversation: usize,
    pub(crate) admin: usize,
    pub(crate) pace: Duration,
    pub(crate) dice: StdRng,
}

impl Changer {
    /// Adds, removes, renames; every change is asked for once, and may have happened when no answer came.
    pub(crate) async fn run(mut self) -> Result<()> {
        let world = self.shared.world.clone();
        let (admin, conversation) = (world.user(self.admin)?.clone(), &world.conversations[self.conversation]);
        let longest = u64::try_from(self.pace.as_millis())? * 2;
        let mut number = 0;
        loop {
            let pause = Duration::from_millis(self.dice.random_range(0..=longest));
            self.shared.rest(pause).await;
            if self.shared.is_over() {
                return Ok(());
            }
            let patience = patience(&mut self.dice);
            let guest = world.user(conversation.guests[self.dice.random_range(0..conversation.guests.len())])?;
            let id = &conversation.id;
            match self.dice.random_range(0..10) {
                0..4 => {
                    let added = [&guest.id];
                    self.shared.ask("add", patience, admin.add_members(id, &added)).await;
                }
                4..6 => {
                    self.shared.ask("remove", patience, admin.remove_member(id, &guest.id)).await;
                }
                6 => {
                    self.shared.ask("leave", patience, guest.remove_member(id, &guest.id)).await;
                }
                7 => self.change_role(&admin, conversation, patience).await?,
                _ => {
                    self.rename(&admin, conversation, number, patience).await;
                    number += 1;
                }
            }
        }
    }

    async fn rename(&self, admin: &User, conversation: &Conversation, number: u32, patience: Duration) {
        let key = Key { stream: self.stream, number, variant: 0 };
        self.shared.recorder.post(key);
        let answer = self.shared.ask("rename", patience, admin.rename(&conversation.id, &key.text())).await;
        if answer.is_some_and(|answer| answer.status == 200) {
            // The one who did it knows by the answer.
            let devices = conversation.staying.iter().copied().filter(|device| *device != self.admin);
            self.shared.recorder.confirm(key, devices.collect());
        }
    }

    /// Makes somebody who is no admin a bare member or an admin. Whoever changes groups stays an admin.
    async fn change_role(&mut self, admin: &User, conversation: &Conversation, patience: Duration) -> Result<()> {
        let others = conversation.senders.iter().filter(|place| !conversation.admins.contains(place));
        let others: Vec<usize> = others.copied().collect();
        if others.is_empty() {
            return Ok(());
        }
        let target = &self.shared.world.user(others[self.dice.random_range(0..others.len())])?.id;
        let role = if self.dice.random_bool(0.5) { "wire_admin" } else { "wire_member" };
        let id = &conversation.id;
        let path = format!("/conversations/{}/{}/members/{}/{}", id.domain, id.id, target.domain, target.id);
        let body = json!({ "conversation_role": role });
        self.shared.ask("role", patience, admin.put(&path, &body)).await;
        Ok(())
    }
}

/// Two who connect and part.
pub(crate) struct Couple {
    pub(crate) shared: Shared,
    pub(crate) both: (usize, usize),
    pub(crate) pace: Duration,
    pub(crate) dice: StdRng,
}

impl Couple {
    /// Either side asks, accepts or takes back, each with one request.
    pub(crate) async fn run(mut self) -> Result<()> {
        let world = self.shared.world.clone();
        let (one, other) = (world.user(self.both.0)?.clone(), world.user(self.both.1)?.clone());
        let longest = u64::try_from(self.pace.as_millis())? * 2;
        loop {
            let pause = Duration::from_millis(self.dice.random_range(0..=longest));
            self.shared.rest(pause).await;
            if self.shared.is_over() {
                return Ok(());
            }
            let (me, them) = if self.dice.random_bool(0.5) { (&one, &other) } else { (&other, &one) };
            let patience = patience(&mut self.dice);
            match self.dice.random_range(0..3) {
                0 => self.shared.ask("connect", patience, me.request_connection(&them.id)).await,
                1 => self.shared.ask("accept", patience, me.set_connection(&them.id, "accepted")).await,
                _ => self.shared.ask("take back", patience, me.set_connection(&them.id, "cancelled")).await,
            };
        }
    }
}

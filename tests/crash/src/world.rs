//! Who takes part, and in which conversations.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use aldis_harness::{
    client::{Recipients, User, connect},
    local::{LocalFederation, Options},
    wait::eventually,
};
use aldis_types::{ClientId, ConversationId, Qualified, UserId};
use anyhow::{Context as _, Result};
use serde_json::json;

/// Domains of a campaign; as many as are wanted are used.
pub(crate) const DOMAINS: [&str; 3] = ["alpha.test", "beta.test", "gamma.test"];
/// People per backend who stay in every conversation.
const STAYING: usize = 2;
/// People per backend who come and go.
const GUESTS: usize = 2;
/// Groups that each backend owns.
const GROUPS: usize = 2;

/// By which way a device hears of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `/await`, and `/notifications` when it comes back.
    Socket,
    /// `/events`.
    Acknowledged,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Acknowledged => "acknowledged",
        }
    }
}

/// A device of somebody.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) user: Arc<User>,
    pub(crate) way: Way,
}

/// Where people write.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    pub(crate) id: Qualified<ConversationId>,
    /// Devices, by place, whose users stay in it. The first of each user sends.
    pub(crate) staying: BTreeSet<usize>,
    pub(crate) senders: Vec<usize>,
    /// Those who may change it; nobody in a conversation of two.
    pub(crate) admins: Vec<usize>,
    /// Those who come and go; by their device.
    pub(crate) guests: Vec<usize>,
}

/// Everybody and everything.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) devices: Vec<Device>,
    pub(crate) conversations: Vec<Conversation>,
    /// Pairs that connect and part again, by device.
    pub(crate) couples: Vec<(usize, usize)>,
    places: BTreeMap<(Qualified<UserId>, ClientId), usize>,
}

/// Devices of one backend.
#[derive(Debug, Default, Clone)]
struct Side {
    staying: Vec<usize>,
    /// Further devices of those who stay.
    further: BTreeMap<usize, Vec<usize>>,
    guests: Vec<usize>,
    suitor: usize,
}

/// So many that no queue drops its oldest events, as it would after about twenty minutes: all are read in the end.
const KEPT: &str = "[notifications]\nqueue_events = 100000000\nqueue_bytes = 1099511627776\n";

/// Starts the processes.
pub(crate) async fn start(binary: Option<PathBuf>, backends: usize) -> Result<LocalFederation> {
    let domains = &DOMAINS[..backends.min(DOMAINS.len())];
    LocalFederation::start(&Options { binary, settings: KEPT.to_owned(), ..Options::of(domains) }).await
}

impl World {
    /// Registers everybody, makes the conversations, and lets every sender get to know the devices of the others.
    pub(crate) async fn make(federation: &LocalFederation, domains: &[&str]) -> Result<Self> {
        let mut world = Self::default();
        let mut sides = Vec::new();
        for domain in domains {
            sides.push(world.populate(federation, domain).await?);
        }
        world.acquaint(&sides).await?;
        for (number, one) in sides.iter().enumerate() {
            for other in &sides[number + 1..] {
                world.pair_up(one, other).await?;
                world.couples.push((one.suitor, other.suitor));
            }
        }
        for (number, domain) in domains.iter().enumerate() {
            for group in 0..GROUPS {
                world.assemble(&sides, number, &format!("Group {group} of {domain}")).await?;
            }
        }
        world.warm_up().await?;
        Ok(world)
    }

    fn add(&mut self, user: User, way: Way) -> Result<usize> {
        let place = self.devices.len();
        self.places.insert((user.id.clone(), user.client()?), place);
        self.devices.push(Device { user: Arc::new(user), way });
        Ok(place)
    }

    async fn populate(&mut self, federation: &LocalFederation, domain: &str) -> Result<Side> {
        let mut side = Side::default();
        for number in 0..STAYING {
            let user = federation.user(domain, &format!("Staying {number} of {domain}")).await?;
            let (second, third) = if number == 0 {
                (None, None)
            } else {
                (Some(user.on_another_device().await?), Some(user.on_another_device().await?))
            };
            let first = self.add(user, Way::Socket)?;
            side.staying.push(first);
            if let (Some(second), Some(third)) = (second, third) {
                third.become_consumer().await?;
                let further = vec![self.add(second, Way::Socket)?, self.add(third, Way::Acknowledged)?];
                side.further.insert(first, further);
            }
        }
        for number in 0..GUESTS {
            let user = federation.user(domain, &format!("Guest {number} of {domain}")).await?;
            side.guests.push(self.add(user, Way::Socket)?);
        }
        let suitor = federation.user(domain, &format!("Suitor of {domain}")).await?;
        side.suitor = self.add(suitor, Way::Socket)?;
        Ok(side)
    }

    /// Whoever may add people is connected with all of them.
    async fn acquaint(&self, sides: &[Side]) -> Result<()> {
        let all: Vec<usize> = sides.iter().flat_map(|side| side.staying.iter().chain(&side.guests)).copied().collect();
        for side in sides {
            let admin = self.user(side.staying[0])?;
            for other in &all {
                let other = self.user(*other)?;
                if other.id != admin.id && admin.relation(&other.id).await? != "accepted" {
                    connect(admin, other).await?;
                }
            }
        }
        Ok(())
    }

    /// Conversations of two across two backends.
    async fn pair_up(&mut self, one: &Side, other: &Side) -> Result<()> {
        for (mine, theirs) in one.staying.iter().zip(&other.staying) {
            let (me, them) = (self.user(*mine)?, self.user(*theirs)?);
            if me.relation(&them.id).await? != "accepted" {
                connect(me, them).await?;
            }
            let id = me.one_to_one(&them.id);
            let staying = devices_of(one, *mine).chain(devices_of(other, *theirs)).collect();
            self.conversations.push(Conversation {
                id,
                staying,
                senders: vec![*mine, *theirs],
                admins: vec![],
                guests: vec![],
            });
        }
        Ok(())
    }

    /// A group of everybody who stays, owned by one side; the first of every side may change it.
    async fn assemble(&mut self, sides: &[Side], owner: usize, name: &str) -> Result<()> {
        let senders: Vec<usize> = sides.iter().flat_map(|side| side.staying.iter().copied()).collect();
        let creator = sides[owner].staying[0];
        let others: Vec<usize> = senders.iter().copied().filter(|place| *place != creator).collect();
        let users = others.iter().map(|place| Ok(&self.user(*place)?.id)).collect::<Result<Vec<_>>>()?;
        let id = self.user(creator)?.group(name, &users).await?;
        let mut admins = vec![creator];
        for side in sides.iter().filter(|side| side.staying[0] != creator) {
            let admin = self.user(side.staying[0])?;
            let path = format!("/conversations/{}/{}/members/{}/{}", id.domain, id.id, admin.id.domain, admin.id.id);
            self.user(creator)?.put(&path, &json!({ "conversation_role": "wire_admin" })).await?.expect(200)?;
            admins.push(side.staying[0]);
        }
        let staying = sides.iter().flat_map(|side| side.staying.iter().flat_map(|place| devices_of(side, *place)));
        self.conversations.push(Conversation {
            id,
            staying: staying.collect(),
            senders,
            admins,
            guests: sides.iter().flat_map(|side| side.guests.iter().copied()).collect(),
        });
        Ok(())
    }

    async fn warm_up(&self) -> Result<()> {
        for conversation in &self.conversations {
            for sender in &conversation.senders {
                let sender = self.user(*sender)?;
                eventually("a first message", async || sender.send(&conversation.id, "warm").await).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn user(&self, device: usize) -> Result<&Arc<User>> {
        Ok(&self.devices.get(device).context("a device")?.user)
    }

    /// The devices that these are, by place.
    pub(crate) fn places(&self, recipients: &Recipients) -> BTreeSet<usize> {
        let all = recipients.iter().flat_map(|(user, clients)| clients.iter().map(|client| (user.clone(), *client)));
        all.filter_map(|device| self.places.get(&device).copied()).collect()
    }

    /// Where a conversation is in the list.
    pub(crate) fn conversation(&self, id: &Qualified<ConversationId>) -> Option<usize> {
        self.conversations.iter().position(|conversation| conversation.id == *id)
    }

    /// Names of devices, for people.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |(place, device): (usize, &Device)| format!("{place} ({})", device.user.person.name);
        self.devices.iter().enumerate().map(name).collect()
    }
}

fn devices_of(side: &Side, first: usize) -> impl Iterator<Item = usize> {
    std::iter::once(first).chain(side.further.get(&first).into_iter().flatten().copied())
}

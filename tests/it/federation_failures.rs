//! Conversations over three backends of which one is away, hangs, denies or cannot be found: what fails, what goes on
//! without it, and that it hears of everything when it is back.

use std::collections::BTreeSet;

use aldis_harness::{
    backend::{Federation, federator_host, reachable},
    client::{Answer, Draft, Event, Recipients, Status, User, connect, members_of, path_of},
    dns::Target,
    local::{LocalFederation, Options},
    wait::eventually,
};
use aldis_types::{ConversationId, Qualified};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA, GAMMA, Three, binary};

/// What is wrong with gamma.test, seen from alpha.test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody listens.
    Down,
    /// It takes connections and says nothing.
    Frozen,
    /// Suspended at alpha.test.
    DeniedHere,
    /// It has suspended alpha.test.
    DeniedThere,
    /// DNS does not know it.
    Unresolvable,
}

impl Fault {
    /// The answer to what only gamma.test could do.
    pub(crate) fn check(self, answer: Answer) -> Result<()> {
        let body = match self {
            Self::Down => answer.expect_error(521, "federation-connection-refused")?,
            Self::DeniedHere => answer.expect_error(400, "federation-denied")?,
            Self::Unresolvable => answer.expect_error(422, "invalid-domain")?,
            Self::Frozen => answer.expect_one_of(&[521, 525, 533])?.value()?,
            Self::DeniedThere => {
                let body = answer.expect_error(533, "federation-remote-error")?;
                ensure!(body["inner"]["label"] == "federation-denied", "{body}");
                body
            }
        };
        ensure!(body["data"]["domain"] == GAMMA, "{body}");
        Ok(())
    }

    /// The answer to the wish to bring users of gamma.test in.
    fn check_invited(self, answer: Answer) -> Result<()> {
        if self == Self::DeniedHere { self.check(answer) } else { self.check_present(answer) }
    }

    /// The answer when a new backend would have to get on with gamma.test, which is in already.
    fn check_present(self, answer: Answer) -> Result<()> {
        let body = answer.expect(533)?.value()?;
        let expected = match self {
            Self::DeniedHere | Self::DeniedThere => {
                json!({ "unreachable_backends": [GAMMA], "denied_backends": [GAMMA] })
            }
            Self::Down | Self::Frozen | Self::Unresolvable => json!({ "unreachable_backends": [GAMMA] }),
        };
        ensure!(body == expected, "{body}");
        Ok(())
    }
}

/// Ann, who is connected with everybody, and Dora of alpha.test; Bob and Eve of beta.test; Cleo and Gus of gamma.test.
struct Scene {
    ann: User,
    dora: User,
    bob: User,
    eve: User,
    cleo: User,
    gus: User,
    /// Ann's, with Bob, Cleo and Gus.
    mixed: Qualified<ConversationId>,
    /// Ann's, with Bob.
    near: Qualified<ConversationId>,
    /// Ann's, with Cleo.
    far: Qualified<ConversationId>,
    /// Cleo's, with Ann and Bob.
    theirs: Qualified<ConversationId>,
}

impl Scene {
    async fn of([ann, dora, bob, eve, cleo, gus]: [User; 6]) -> Result<Self> {
        for other in [&dora, &bob, &eve, &cleo, &gus] {
            connect(&ann, other).await?;
        }
        connect(&cleo, &bob).await?;
        let mixed = ann.group("Mixed", &[&bob.id, &cleo.id, &gus.id]).await?;
        let near = ann.group("Near", &[&bob.id]).await?;
        let far = ann.group("Far", &[&cleo.id]).await?;
        let theirs = cleo.group("Theirs", &[&ann.id, &bob.id]).await?;
        for (user, conversation) in [(&bob, &mixed), (&cleo, &mixed), (&gus, &mixed), (&ann, &theirs), (&bob, &theirs)]
        {
            eventually("the groups", async || user.conversation(conversation).await?.expect(200)).await?;
        }
        ann.send(&mixed, "before").await?;
        got(&cleo, &["before"]).await?;
        Ok(Self { ann, dora, bob, eve, cleo, gus, mixed, near, far, theirs })
    }

    /// A creation that fails leaves nothing anywhere.
    async fn nobody_is_brought_in(&self, fault: Fault) -> Result<()> {
        let Self { ann, bob, cleo, gus, .. } = self;
        let known = async || anyhow::Ok((ann.conversation_ids().await?.len(), bob.conversation_ids().await?.len()));
        let before = known().await?;
        fault.check_invited(ann.create_group("No", &[&bob.id, &cleo.id]).await?)?;
        fault.check_invited(ann.add_members(&self.near, &[&gus.id]).await?)?;
        fault.check_present(ann.add_members(&self.far, &[&bob.id]).await?)?;
        ensure!(known().await? == before, "something was left");
        ensure!(ann.members(&self.near).await?.len() == 2 && ann.members(&self.far).await?.len() == 2);
        Ok(())
    }

    async fn what_they_own_fails(&self, fault: Fault) -> Result<()> {
        let Self { ann, bob, theirs, .. } = self;
        let at = |rest: &str| path_of(theirs, rest);
        let role = at(&format!("/members/{}/{}", bob.id.domain, bob.id.id));
        let access = json!({ "access": ["invite"], "access_role": ["non_team_member"] });
        let recipients = Recipients::from([(bob.id.clone(), BTreeSet::from([bob.client()?]))]);
        let answers = [
            ann.conversation(theirs).await?,
            ann.rename(theirs, "x").await?,
            ann.put(&at("/message-timer"), &json!({ "message_timer": 1000 })).await?,
            ann.put(&at("/receipt-mode"), &json!({ "receipt_mode": 1 })).await?,
            ann.put(&at("/access"), &access).await?,
            ann.put(&role, &json!({ "conversation_role": "wire_admin" })).await?,
            ann.add_members(theirs, &[&self.dora.id]).await?,
            ann.put(&at("/members"), &json!({ "qualified_users": [self.dora.id] })).await?,
            ann.remove_member(theirs, &bob.id).await?,
            ann.remove_member(theirs, &ann.id).await?,
            ann.post(&at("/typing"), &json!({ "status": "started" })).await?,
            ann.post_draft(theirs, &Draft::new(recipients, "lost")).await?,
        ];
        for answer in answers {
            fault.check(answer)?;
        }
        // What is one's own is nobody else's business.
        ann.put(&at("/self"), &json!({ "otr_archived": true })).await?.expect(200)?;
        ensure!(ann.conversation_ids().await?.contains(theirs), "no longer listed");
        let unknown = json!({ "domain": GAMMA, "id": self.near.id });
        let body = json!({ "qualified_ids": [self.mixed, theirs, unknown] });
        let listed = ann.post("/conversations/list", &body).await?.expect(200)?.value()?;
        ensure!(listed["failed"] == json!([theirs]) && listed["not_found"] == json!([unknown]), "{listed}");
        ensure!(listed["found"][0]["qualified_id"] == json!(self.mixed), "{listed}");
        Ok(())
    }

    async fn what_we_own_goes_on(&self) -> Result<()> {
        let Self { ann, dora, bob, eve, mixed, .. } = self;
        let at = |rest: &str| path_of(mixed, rest);
        let role = at(&format!("/members/{}/{}", bob.id.domain, bob.id.id));
        let access = json!({ "access": ["invite"], "access_role": ["non_team_member"] });
        // From a backend that is in already, and from our own.
        ann.add_members(mixed, &[&eve.id]).await?.expect(200)?;
        ann.add_members(mixed, &[&dora.id]).await?.expect(200)?;
        ann.rename(mixed, "Renamed").await?.expect(200)?;
        ann.put(&at("/message-timer"), &json!({ "message_timer": 1000 })).await?.expect(200)?;
        ann.put(&at("/receipt-mode"), &json!({ "receipt_mode": 0 })).await?.expect(200)?;
        ann.put(&at("/access"), &access).await?.expect(200)?;
        ann.put(&role, &json!({ "conversation_role": "wire_admin" })).await?.expect(200)?;
        ann.post(&at("/typing"), &json!({ "status": "started" })).await?.expect(200)?;
        bob.rename(mixed, "Renamed by Bob").await?.expect(200)?;
        dora.remove_member(mixed, &dora.id).await?.expect(200)?;
        Ok(())
    }

    async fn messages_go_on(&self) -> Result<()> {
        let Self { ann, bob, eve, cleo, gus, mixed, .. } = self;
        let nothing = |users: &[&User]| users.iter().map(|user| (user.id.clone(), BTreeSet::new())).collect();
        // For a moment alpha may still rely on what gamma said of its devices.
        eventually("the end of what is known of gamma's devices", async || {
            let mut others = ann.recipients(mixed);
            others.retain(|user, _| user.domain.as_str() != GAMMA);
            let answer = ann.post_draft(mixed, &Draft::new(others, "not complete")).await?.expect(412)?;
            let missing = Status::of(&answer)?.missing();
            ensure!(missing.keys().all(|user| user.domain.as_str() != GAMMA), "{missing:?}");
            Ok(())
        })
        .await?;
        // The sender knows a device of Cleo's and none of Gus'.
        ann.correct(mixed, &Status::of(&self.probe(ann).await?)?);
        let mut known = ann.recipients(mixed);
        known.remove(&gus.id);
        let sent = Status::of(&ann.post_draft(mixed, &Draft::new(known, "meanwhile")).await?.expect(201)?)?;
        ensure!(sent.failed_to_confirm() == Recipients::from([(cleo.id.clone(), [cleo.client()?].into())]), "{sent:?}");
        ensure!(sent.failed_to_send() == nothing(&[gus]), "{sent:?}");
        got(eve, &["meanwhile"]).await?;
        // Of another backend, who knows none of either.
        let sent = bob.send(mixed, "from Bob").await?;
        ensure!(sent.failed_to_send() == nothing(&[cleo, gus]) && sent.failed_to_confirm().is_empty(), "{sent:?}");
        got(ann, &["from Bob"]).await?;
        ann.remove_member(mixed, &gus.id).await?.expect(200)?;
        Ok(())
    }

    /// What is answered to a message for those whom the sender knows already, which is not sent: some are new.
    async fn probe(&self, user: &User) -> Result<Answer> {
        let draft = Draft::new(user.recipients(&self.mixed), "not complete");
        user.post_draft(&self.mixed, &draft).await?.expect(412)
    }
}

/// Waits until the reader has exactly these messages in groups, in this order.
async fn got(reader: &User, texts: &[&str]) -> Result<()> {
    eventually("the messages", async || {
        let inbox = reader.inbox(None).await?;
        let got: Vec<_> = inbox.iter().map(|message| message.text.as_str()).collect();
        ensure!(got == texts, "{} has {got:?}", reader.person.name);
        Ok(())
    })
    .await
}

/// What is tried while a backend fails, and after it.
pub(crate) trait Survey {
    /// What works, and how what does not is refused, with this fault at gamma.test.
    async fn survey(&self, fault: Fault) -> Result<()>;
    /// What is made up for when the fault is over.
    async fn aftermath(&self) -> Result<()>;
}

/// Surveys with a fault at gamma.test, ends it, and looks at what follows.
pub(crate) async fn surveyed(fault: Fault, mut federation: Federation, scene: &impl Survey) -> Result<()> {
    match fault {
        Fault::Down => {
            federation.stop(GAMMA).await?;
            scene.survey(fault).await?;
            federation.resume_running(GAMMA).await?;
        }
        Fault::DeniedHere => {
            federation.suspend(ALPHA, GAMMA).await?;
            scene.survey(fault).await?;
            federation.resume(ALPHA, GAMMA).await?;
        }
        Fault::DeniedThere => {
            federation.suspend(GAMMA, ALPHA).await?;
            scene.survey(fault).await?;
            federation.resume(GAMMA, ALPHA).await?;
        }
        Fault::Unresolvable => {
            // What was found is remembered, and served stale: only a start from nothing has to look.
            federation.stop(ALPHA).await?;
            let target = Target::new(federator_host(GAMMA), federation.federator(GAMMA)?.port());
            federation.dns().set_federator(GAMMA, &[])?;
            federation.resume_running(ALPHA).await?;
            scene.survey(fault).await?;
            federation.dns().set_federator(GAMMA, &[target])?;
        }
        Fault::Frozen => bail!("only a backend in a process of its own can be frozen"),
    }
    scene.aftermath().await
}

/// The same with gamma.test frozen, in processes.
pub(crate) async fn surveyed_frozen(federation: LocalFederation, scene: &impl Survey) -> Result<()> {
    federation.freeze(GAMMA)?;
    scene.survey(Fault::Frozen).await?;
    federation.thaw(GAMMA)?;
    scene.aftermath().await?;
    federation.stop().await
}

impl Survey for Scene {
    async fn survey(&self, fault: Fault) -> Result<()> {
        let profile = format!("/users/{GAMMA}/{}", self.cleo.id.id);
        eventually("the failure to begin", async || fault.check(self.ann.get(&profile).await?)).await?;
        self.nobody_is_brought_in(fault).await?;
        self.what_they_own_fails(fault).await?;
        self.what_we_own_goes_on().await?;
        self.messages_go_on().await
    }

    async fn aftermath(&self) -> Result<()> {
        let Self { ann, bob, eve, cleo, gus, mixed, .. } = self;
        reachable(ann, cleo).await?;
        let changes = [
            "member-join",
            "member-join",
            "rename",
            "message-timer-update",
            "receipt-mode-update",
            "access-update",
            "member-update",
            "rename",
            "member-leave",
            "otr-message-add",
            "member-leave",
        ];
        eventually("the news of everything", async || {
            let queue = cleo.queue(None).await?;
            let here = queue.iter().filter(|event| event.value["qualified_conversation"] == json!(mixed));
            let kinds: Vec<_> = here.map(|event: &Event| event.kind().trim_start_matches("conversation.")).collect();
            let after: Vec<_> = kinds.iter().skip_while(|kind| **kind != "member-join").copied().collect();
            ensure!(after == changes, "{kinds:?}");
            Ok(())
        })
        .await?;
        got(cleo, &["before", "meanwhile"]).await?;
        let mut members: Vec<_> = [ann, bob, eve, cleo].map(|user| user.id.clone()).into();
        members.sort();
        for user in [ann, bob, cleo] {
            eventually("the same for everybody", async || {
                let seen: Value = user.conversation(mixed).await?.expect(200)?.value()?;
                ensure!(seen["name"] == "Renamed by Bob" && seen["access"] == json!(["invite"]), "{seen}");
                ensure!(members_of(&seen)? == members, "{} sees {seen}", user.person.name);
                Ok(())
            })
            .await?;
        }
        gus.conversation(mixed).await?.expect_one_of(&[403, 404])?;
        ann.rename(&self.theirs, "x").await?.expect_error(403, "action-denied")?;
        ann.add_members(&self.far, &[&bob.id]).await?.expect(200)?;
        Ok(())
    }
}

async fn start() -> Result<(Federation, Scene)> {
    let federation = Federation::start(&[ALPHA, BETA, GAMMA]).await?;
    let user = async |domain: &str, name: &str| federation.user(domain, name).await;
    let users = [
        user(ALPHA, "Ann").await?,
        user(ALPHA, "Dora").await?,
        user(BETA, "Bob").await?,
        user(BETA, "Eve").await?,
        user(GAMMA, "Cleo").await?,
        user(GAMMA, "Gus").await?,
    ];
    let scene = Scene::of(users).await?;
    Ok((federation, scene))
}

#[tokio::test]
async fn one_backend_is_down() -> Result<()> {
    let (federation, scene) = start().await?;
    surveyed(Fault::Down, federation, &scene).await
}

#[tokio::test]
async fn one_backend_is_suspended_here() -> Result<()> {
    let (federation, scene) = start().await?;
    surveyed(Fault::DeniedHere, federation, &scene).await
}

#[tokio::test]
async fn one_backend_has_suspended_us() -> Result<()> {
    let (federation, scene) = start().await?;
    surveyed(Fault::DeniedThere, federation, &scene).await
}

#[tokio::test]
async fn one_backend_cannot_be_found() -> Result<()> {
    let (federation, scene) = start().await?;
    surveyed(Fault::Unresolvable, federation, &scene).await
}

/// Backends that wait for each other a moment only.
pub(crate) async fn impatient(domains: &[&str]) -> Result<LocalFederation> {
    let settings = "[federation]\ncall_deadline_ms = 1500\nconnect_timeout_ms = 1000\nbreaker_pause_ms = 500\n";
    let options = Options { binary: Some(binary()), settings: settings.to_owned(), ..Options::of(domains) };
    LocalFederation::start(&options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_backend_hangs() -> Result<()> {
    let federation = impatient(&[ALPHA, BETA, GAMMA]).await?;
    let user = async |domain: &str, name: &str| federation.user(domain, name).await;
    let users = [
        user(ALPHA, "Ann").await?,
        user(ALPHA, "Dora").await?,
        user(BETA, "Bob").await?,
        user(BETA, "Eve").await?,
        user(GAMMA, "Cleo").await?,
        user(GAMMA, "Gus").await?,
    ];
    let scene = Scene::of(users).await?;
    surveyed_frozen(federation, &scene).await
}

#[tokio::test]
async fn whom_his_own_backend_refuses_is_in_no_group() -> Result<()> {
    let Three { federation, ann, bob, cleo } = Three::connected().await?;
    let eve = federation.user(BETA, "Eve").await?;
    connect(&ann, &eve).await?;
    // Nobody at alpha.test knows that Bob has blocked Ann.
    bob.set_connection(&ann.id, "blocked").await?.expect(200)?;
    let created = ann.create_group("Without Bob", &[&bob.id, &cleo.id]).await?.expect(201)?.value()?;
    ensure!(created["failed_to_add"] == json!([bob.id]), "{created}");
    let group: Qualified<ConversationId> = serde_json::from_value(created["qualified_id"].clone())?;
    ann.add_members(&group, &[&bob.id]).await?.expect_error(403, "not-connected")?;
    let added = ann.add_members(&group, &[&bob.id, &eve.id]).await?.expect(200)?.value()?;
    ensure!(added["data"]["user_ids"] == json!([eve.id.id]), "{added}");
    let mut expected = vec![ann.id.clone(), cleo.id.clone(), eve.id.clone()];
    expected.sort();
    for user in [&ann, &cleo, &eve] {
        eventually("the same members for everybody", async || {
            let members = user.members(&group).await?;
            ensure!(members == expected, "{members:?}");
            Ok(())
        })
        .await?;
    }
    ensure!(!bob.conversation_ids().await?.contains(&group), "Bob is in");
    Ok(())
}

//! Users over two backends of which one is away, hangs, denies or cannot be found: what fails, what goes on without it,
//! and that it hears of what it has to know when it is back.

use aldis_harness::{
    backend::{Federation, Setup, reachable},
    client::{User, connect, path_of},
    local::{LocalFederation, Options, service_of},
    wait::eventually,
};
use aldis_types::{ConversationId, Qualified, UserId};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    federation_failures::{Fault, Survey, impatient, surveyed, surveyed_frozen},
    support::{ALPHA, BETA, GAMMA, binary},
};

/// Users of alpha.test, and of gamma.test, which is the one that fails.
struct Scene {
    ann: User,
    /// Of alpha.test; connected with Cleo, and with a request of hers to Gus.
    dora: User,
    /// Connected with Ann.
    cleo: User,
    /// Has asked Ann.
    gus: User,
    /// Has asked Ann too.
    hal: User,
    /// Was asked by Ann.
    ida: User,
    /// Connected with Ann, and blocked by her.
    jon: User,
    /// A group of Ann's, with Cleo.
    ours: Qualified<ConversationId>,
    /// A group of Cleo's and Ann's.
    theirs: Qualified<ConversationId>,
}

impl Scene {
    async fn of([ann, dora, cleo, gus, hal, ida, jon]: [User; 7]) -> Result<Self> {
        connect(&ann, &cleo).await?;
        connect(&ann, &jon).await?;
        connect(&dora, &cleo).await?;
        ann.set_connection(&jon.id, "blocked").await?.expect(200)?;
        for (from, to) in [(&gus, &ann), (&hal, &ann), (&ann, &ida), (&dora, &gus)] {
            from.request_connection(&to.id).await?.expect(201)?;
        }
        let ours = ann.group("Ours", &[&cleo.id]).await?;
        // They know of each other's devices and profiles.
        ann.send(&ours, "before").await?;
        let theirs = cleo.group("Theirs", &[&ann.id]).await?;
        eventually("the other backend's group", async || ann.conversation(&theirs).await?.expect(200)).await?;
        Ok(Self { ann, dora, cleo, gus, hal, ida, jon, ours, theirs })
    }

    async fn questions_with_one_answer_fail(&self, fault: Fault) -> Result<()> {
        let Self { ann, cleo, .. } = self;
        let at = |rest: &str| format!("/users/{GAMMA}/{}{rest}", cleo.id.id);
        let device = cleo.client()?;
        let answers = [
            ann.get(&at("")).await?,
            ann.get(&at("/supported-protocols")).await?,
            ann.get(&at("/clients")).await?,
            ann.get(&at(&format!("/clients/{device}"))).await?,
            ann.get(&at("/prekeys")).await?,
            ann.get(&at(&format!("/prekeys/{device}"))).await?,
            ann.get(&format!("/users/by-handle/{GAMMA}/cleo")).await?,
            ann.search("Cleo", &cleo.id.domain).await?,
            ann.get(&format!("/assets/{GAMMA}/3-2-{}", uuid::Uuid::new_v4())).await?,
        ];
        for answer in answers {
            fault.check(answer)?;
        }
        Ok(())
    }

    async fn lists_go_on(&self) -> Result<()> {
        let Self { ann, dora, cleo, gus, .. } = self;
        let users = json!({ "qualified_ids": [dora.id, cleo.id, gus.id] });
        let listed = ann.post("/list-users", &users).await?.expect(200)?.value()?;
        ensure!(listed["found"][0]["qualified_id"] == json!(dora.id) && count(&listed["found"]) == 1, "{listed}");
        let failed: Vec<Qualified<UserId>> = serde_json::from_value(listed["failed"].clone())?;
        ensure!(failed.len() == 2 && failed.contains(&cleo.id) && failed.contains(&gus.id), "{listed}");

        let users = json!({ "qualified_users": [dora.id, cleo.id] });
        let listed = ann.post("/users/list-clients", &users).await?.expect(200)?.value()?;
        let map = &listed["qualified_user_map"];
        ensure!(count(&map[ALPHA][dora.id.id.to_string()]) == 1 && map.get(GAMMA).is_none(), "{listed}");

        let claims = json!({
            ALPHA: { dora.id.id.to_string(): [dora.client()?] },
            GAMMA: { cleo.id.id.to_string(): [cleo.client()?] },
        });
        let keys = ann.post("/users/list-prekeys", &claims).await?.expect(200)?.value()?;
        ensure!(keys["failed_to_list"] == json!([cleo.id]), "{keys}");
        let doras = &keys["qualified_user_client_prekeys"][ALPHA][dora.id.id.to_string()];
        ensure!(doras[dora.client()?.to_string()]["key"].is_string(), "{keys}");
        Ok(())
    }

    /// Asking, agreeing and unblocking: the failure, and nothing changes.
    async fn agreeing_needs_the_other_side(&self, fault: Fault) -> Result<()> {
        let Self { ann, dora, hal, gus, jon, .. } = self;
        fault.check(dora.request_connection(&hal.id).await?)?;
        ensure!(dora.relation(&hal.id).await? == "none", "a request that failed is there");
        fault.check(ann.request_connection(&gus.id).await?)?;
        fault.check(ann.set_connection(&gus.id, "accepted").await?)?;
        ensure!(ann.relation(&gus.id).await? == "pending");
        fault.check(ann.set_connection(&jon.id, "accepted").await?)?;
        ensure!(ann.relation(&jon.id).await? == "blocked");
        Ok(())
    }

    /// Blocking, ignoring, muting and taking back.
    async fn saying_no_does_not(&self) -> Result<()> {
        let Self { ann, cleo, gus, hal, ida, ours, theirs, .. } = self;
        let conversation = ann.one_to_one(&cleo.id);
        for of in [ours, theirs, &conversation] {
            let muted = json!({ "otr_muted_status": 3, "otr_muted_ref": "1970-01-01T00:00:00.000Z", "hidden": true });
            ann.put(&path_of(of, "/self"), &muted).await?.expect(200)?;
        }
        self.is_muted(&[ours]).await?;
        for (other, status) in [(gus, "ignored"), (hal, "blocked"), (ida, "cancelled"), (cleo, "blocked")] {
            let changed = ann.set_connection(&other.id, status).await?.expect(200)?.value()?;
            ensure!(changed["status"] == status && ann.relation(&other.id).await? == status, "{changed}");
            ann.set_connection(&other.id, status).await?.expect(204)?;
        }
        ann.set_connection(&gus.id, "blocked").await?.expect(200)?;
        let listed = ann.post("/list-connections", &json!({})).await?.expect(200)?.value()?;
        ensure!(count(&listed["connections"]) == 5, "{listed}");
        Ok(())
    }

    /// What is nobody else's business, and the end of an account.
    async fn own_things_go_on(&self) -> Result<()> {
        let Self { ann, dora, .. } = self;
        let tablet = ann.on_another_device().await?;
        ensure!(tablet.client()? != ann.client()?);
        ann.renew().await?;
        ensure!(ann.find("Dora", &ann.id.domain).await? == std::slice::from_ref(&dora.id));
        let goodbye = json!({ "password": dora.person.password });
        dora.delete_with("/self", &goodbye).await?.expect(200)?;
        let gone = ann.get(&format!("/users/{ALPHA}/{}", dora.id.id)).await?.expect(200)?.value()?;
        ensure!(gone["deleted"] == true, "{gone}");
        Ok(())
    }

    /// What Ann has set for herself; the role beside it is for the owner to tell.
    async fn is_muted(&self, conversations: &[&Qualified<ConversationId>]) -> Result<()> {
        for of in conversations {
            let own = self.ann.get(&path_of(of, "/self")).await?.expect(200)?.value()?;
            ensure!(own["otr_muted_status"] == 3 && own["hidden"] == true, "{own}");
        }
        Ok(())
    }
}

fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

const PEOPLE: [(&str, &str); 7] =
    [(ALPHA, "Ann"), (ALPHA, "Dora"), (GAMMA, "Cleo"), (GAMMA, "Gus"), (GAMMA, "Hal"), (GAMMA, "Ida"), (GAMMA, "Jon")];

impl Survey for Scene {
    async fn survey(&self, fault: Fault) -> Result<()> {
        let profile = format!("/users/{GAMMA}/{}", self.cleo.id.id);
        eventually("the failure to begin", async || fault.check(self.ann.get(&profile).await?)).await?;
        self.questions_with_one_answer_fail(fault).await?;
        self.lists_go_on().await?;
        self.agreeing_needs_the_other_side(fault).await?;
        // Before the no to Cleo, who is told.
        self.ann.put("/self", &json!({ "name": "Anna" })).await?.expect(200)?;
        self.saying_no_does_not().await?;
        self.own_things_go_on().await
    }

    async fn aftermath(&self) -> Result<()> {
        let Self { ann, dora, cleo, gus, hal, ida, jon, ours, theirs } = self;
        reachable(ann, cleo).await?;
        // A request that was taken back, a name, and an account that is gone are told; a no is not.
        let expected = [(ida, ann, "cancelled"), (gus, ann, "sent"), (hal, ann, "sent"), (jon, ann, "accepted")];
        eventually("the news", async || {
            for (one, other, status) in [&expected[..], &[(cleo, ann, "accepted")]].concat() {
                let relation = one.relation(&other.id).await?;
                ensure!(relation == status, "{} sees {relation} instead of {status}", one.person.name);
            }
            for one in [cleo, gus] {
                let left = one.relation(&dora.id).await?;
                ensure!(left == "none" || left == "cancelled", "{} is still {left} with Dora", one.person.name);
                let profile = one.get(&format!("/users/{ALPHA}/{}", dora.id.id)).await?.expect(200)?.value()?;
                ensure!(profile["deleted"] == true, "{profile}");
            }
            let profile = cleo.get(&format!("/users/{ALPHA}/{}", ann.id.id)).await?.expect(200)?.value()?;
            ensure!(profile["name"] == "Anna", "{profile}");
            let told = cleo.queue(None).await?;
            let renamed = |event: &Value| event["user"]["id"] == json!(ann.id.id) && event["user"]["name"] == "Anna";
            ensure!(told.iter().any(|event| event.kind() == "user.update" && renamed(&event.value)), "no new name");
            Ok(())
        })
        .await?;
        // And agreeing works again.
        ann.set_connection(&hal.id, "accepted").await?.expect(200)?;
        ann.set_connection(&jon.id, "accepted").await?.expect(200)?;
        for other in [hal, jon] {
            eventually("an agreement", async || {
                ensure!(other.relation(&ann.id).await? == "accepted" && ann.relation(&other.id).await? == "accepted");
                Ok(())
            })
            .await?;
        }
        // What was muted stays so.
        self.is_muted(&[ours, theirs]).await
    }
}

async fn start() -> Result<(Federation, Scene)> {
    let federation = Federation::start(&[ALPHA, GAMMA]).await?;
    let mut users = Vec::new();
    for (domain, name) in PEOPLE {
        users.push(federation.user(domain, name).await?);
    }
    let scene = Scene::of(users.try_into().map_err(|_| anyhow::anyhow!("seven people"))?).await?;
    Ok((federation, scene))
}

#[tokio::test]
async fn users_of_a_backend_that_is_down() -> Result<()> {
    let (federation, scene) = start().await?;
    surveyed(Fault::Down, federation, &scene).await
}

#[tokio::test]
async fn users_of_a_backend_that_is_suspended_here() -> Result<()> {
    let (federation, scene) = start().await?;
    surveyed(Fault::DeniedHere, federation, &scene).await
}

#[tokio::test]
async fn users_of_a_backend_that_has_suspended_us() -> Result<()> {
    let (federation, scene) = start().await?;
    surveyed(Fault::DeniedThere, federation, &scene).await
}

#[tokio::test]
async fn users_of_a_backend_that_cannot_be_found() -> Result<()> {
    let (federation, scene) = start().await?;
    surveyed(Fault::Unresolvable, federation, &scene).await
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_backend_that_hangs() -> Result<()> {
    let federation = impatient(&[ALPHA, GAMMA]).await?;
    let mut users = Vec::new();
    for (domain, name) in PEOPLE {
        users.push(federation.user(domain, name).await?);
    }
    let scene = Scene::of(users.try_into().map_err(|_| anyhow::anyhow!("seven people"))?).await?;
    surveyed_frozen(federation, &scene).await
}

#[tokio::test]
async fn a_backend_without_federation_says_so() -> Result<()> {
    let federation = Federation::with(Setup::of(&[ALPHA, BETA]).alone(ALPHA)).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let body = ann.get(&format!("/users/{BETA}/{}", bob.id.id)).await?.expect_error(400, "federation-not-enabled")?;
    ensure!(body["data"]["domain"] == BETA, "{body}");
    ann.request_connection(&bob.id).await?.expect_error(400, "federation-not-enabled")?;
    let listed = ann.post("/list-users", &json!({ "qualified_ids": [ann.id, bob.id] })).await?.expect(200)?.value()?;
    ensure!(listed["failed"] == json!([bob.id]) && count(&listed["found"]) == 1, "{listed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federator_that_is_down_is_ours_and_a_team_can_be_left_out() -> Result<()> {
    let options = Options { apart: true, binary: Some(binary()), ..Options::of(&[ALPHA, BETA]) };
    let mut federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    reachable(&ann, &bob).await?;

    let team = uuid::Uuid::new_v4().to_string();
    federation.administer(ALPHA, &["remote", "set", BETA, "--team", &team])?;
    eventually("users of no team to be left out", async || {
        ann.request_connection(&bob.id).await?.expect_error(403, "team-not-federating")
    })
    .await?;
    bob.request_connection(&ann.id).await?.expect_error(403, "team-not-federating")?;
    ensure!(ann.relation(&bob.id).await? == "none" && bob.relation(&ann.id).await? == "none");
    ensure!(ann.find("Bob", &bob.id.domain).await?.is_empty() && bob.find("Ann", &ann.id.domain).await?.is_empty());
    federation.administer(ALPHA, &["remote", "set", BETA, "--any-team"])?;
    eventually("everybody to be found again", async || {
        ensure!(bob.find("Ann", &ann.id.domain).await? == std::slice::from_ref(&ann.id));
        Ok(())
    })
    .await?;

    federation.kill(&service_of(ALPHA, "federator")).await?;
    let profile = format!("/users/{BETA}/{}", bob.id.id);
    eventually("our own federator to be missed", async || {
        let body = ann.get(&profile).await?.expect_error(500, "federation-not-available")?;
        ensure!(body["data"]["domain"] == BETA, "{body}");
        Ok(())
    })
    .await?;
    let users = json!({ "qualified_ids": [ann.id, bob.id] });
    let listed = ann.post("/list-users", &users).await?.expect(200)?.value()?;
    ensure!(listed["failed"] == json!([bob.id]), "{listed}");
    federation.restart(&service_of(ALPHA, "federator")).await?;
    reachable(&ann, &bob).await?;
    federation.stop().await
}

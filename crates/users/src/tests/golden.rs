//! Our JSON against samples of the client API's types; see `aldis-golden`.

use std::collections::BTreeMap;

use aldis_golden::{Golden, Part, Verdict, read, same};
use aldis_types::{ClientId, Domain, Prekey, UserId};
use serde_json::{Value, json};

use super::variations;
use crate::{
    accounts::{Locale, http as accounts},
    auth::http as auth,
    clients::http as clients,
    connections::http as connections,
    lifecycle::http as lifecycle,
    properties::PropertyKey,
    testing::{Backend, PASSWORD, User, new_client, until},
};

#[tokio::test]
async fn golden_types_are_read_and_written() {
    let mut golden = Golden::of(Part::Users);
    requests(&mut golden);
    let (backend, _beta, network) = Backend::pair().await;
    let (ann, bob) = (backend.register_with_handle("Ann", "ann").await, backend.register("Bob").await);
    sessions(&mut golden, &backend, &ann).await;
    clients(&mut golden, &backend, &ann).await;
    profiles(&mut golden, &backend, &ann, &bob).await;
    contacts(&mut golden, &backend, &ann, &bob).await;
    network.take_down(&"beta.test".parse().unwrap());
    lists(&mut golden, &backend, &ann, &bob).await;
    events(&mut golden, &backend, &ann).await;
    golden.finish();
}

fn requests(golden: &mut Golden) {
    golden.reads::<accounts::ActivateBody>("Activate_user");
    golden.reads::<accounts::FreeHandlesBody>("CheckHandles_user");
    golden.reads::<connections::UpdateBody>("ConnectionUpdate_user");
    golden.reads::<u32>("CookieId_user");
    golden.check("CookieLabel_user", |sample| same(auth::cookie_label(Some(read(sample))).ok(), sample));
    golden.reads::<accounts::HandleBody>("HandleUpdate_user");
    golden.reads::<clients::ListClientsBody>("LimitedQualifiedUserIdList_user");
    golden.check("LocaleUpdate_user", |sample| {
        read::<accounts::LocaleBody>(sample);
        locale(&sample["locale"]);
    });
    golden.check("Locale_user", locale);
    golden.check("LoginId_user", |sample| {
        let mut login = sample.clone();
        login["password"] = PASSWORD.into();
        drop(read::<auth::LoginBody>(&login));
    });
    golden.reads::<auth::LoginBody>("Login_user");
    golden.reads::<clients::RegisterBody>("NewClient_user");
    for kind in ["NewUserPublic_user", "NewUser_user", "fromJSON/NewUserPublic_user", "fromJSON/NewUser_user"] {
        golden.reads::<accounts::RegisterBody>(kind);
    }
    golden.check("PropertyKey_user", |sample| {
        if sample == "" {
            return Verdict::LeftOut("an empty key is no part of a path");
        }
        same(PropertyKey::new(read(sample)).unwrap().as_str(), sample);
        Verdict::Alike
    });
    golden.reads::<clients::RemoveBody>("RmClient_user");
    golden.reads::<clients::RemoveBody>("fromJSON/RmClient_user");
    golden.reads::<accounts::SendCodeBody>("SendActivationCode");
    golden.reads::<clients::UpdateBody>("UpdateClient_user");
    golden.reads::<accounts::SelfBody>("UserUpdate_user");
    golden.reads::<lifecycle::CompleteResetBody>("CompletePasswordReset_user");
    golden.reads::<lifecycle::DeleteSelfBody>("DeleteUser_user");
    golden.reads::<lifecycle::EmailBody>("EmailUpdate_user");
    golden.reads::<lifecycle::ResetBody>("NewPasswordReset_user");
    golden.reads::<lifecycle::PasswordBody>("PasswordChange_user");
    golden.reads::<auth::RemoveCookiesBody>("RemoveCookies_user");
    golden.reads::<lifecycle::DeleteBody>("VerifyDeleteUser_user");
}

#[tokio::test]
async fn golden_samples_that_are_spoilt_break_nothing() {
    let golden = Golden::of(Part::Users);
    let backend = Backend::alone().await;
    let (ann, bob) = (backend.register_with_handle("Ann", "ann").await, backend.register("Bob").await);
    for request in variations::requests(&backend, &ann, &bob).await {
        for kind in request.golden {
            for sample in golden.some(kind, 2) {
                request.vary(&backend, &ann, &sample, 10).await;
            }
        }
    }
}

fn locale(sample: &Value) {
    same(read::<String>(sample).parse::<Locale>().unwrap(), sample);
}

async fn sessions(golden: &mut Golden, backend: &Backend, ann: &User) {
    let token = backend.access("/access", Some(&ann.cookie), None).await.expect(200);
    golden.has_shape("AccessToken_user", &[("", &token)]);
    golden.check("TokenType_user", |sample| same(&token["token_type"], sample));
    let login = json!({ "email": ann.email, "password": PASSWORD });
    backend.call("POST", "/login", None, Some(login)).await.expect(200);
    let list = backend.get(ann, "/cookies").await.expect(200);
    let cookie = &list["cookies"][0];
    golden.has_shape("CookieList_user", &[("", &list), ("/cookies/0", cookie)]);
    golden.has_shape("Cookie_20_28_29_user", &[("", cookie)]);
    let kinds: Vec<_> = list["cookies"].as_array().unwrap().iter().map(|cookie| cookie["type"].clone()).collect();
    golden.check("CookieType_user", |sample| assert!(kinds.contains(sample), "{sample} in {kinds:?}"));

    let email = "dan@example.com";
    let body = json!({ "name": "Dan", "email": email, "password": PASSWORD });
    backend.call("POST", "/register", None, Some(body)).await.expect(201);
    let mail = backend.mail(email, "Activation").await;
    let path = format!("/activate?key={}&code={}", mail["X-Zeta-Key"], mail["X-Zeta-Code"]);
    let activated = backend.call("GET", &path, None, None).await.expect(200);
    golden.has_shape("ActivationResponse_user", &[("", &activated)]);
}

async fn clients(golden: &mut Golden, backend: &Backend, ann: &User) {
    let mut body = new_client("permanent", "one", 3);
    body["cookie"] = "a cookie".into();
    let client = backend.post(ann, "/clients", body).await.expect(201);
    golden.has_shape("Client_user", &[("", &client)]);
    until(|| !backend.recorder.events("user.client-add").is_empty()).await;
    let event = backend.recorder.events("user.client-add").remove(0).event["client"].clone();
    golden.has_shape("ClientV6_user", &[("", &event), ("/capabilities", &event["capabilities"])]);
    let own = format!("/users/alpha.test/{}", ann.id);
    let bundle = backend.get(ann, &format!("{own}/prekeys")).await.expect(200);
    golden.has_shape("PrekeyBundle_user", &[("", &bundle), ("/clients/0", &bundle["clients"][0])]);
    golden.has_shape("ClientPrekey_user", &[("", &bundle["clients"][0])]);
    golden.has_shape("PubClient_user", &[("", &backend.get(ann, &format!("{own}/clients")).await.expect(200)[0])]);
}

async fn profiles(golden: &mut Golden, backend: &Backend, ann: &User, bob: &User) {
    backend.put(ann, "/self", json!({ "text_status": "x" })).await.expect(200);
    golden.has_shape("SelfProfile_user", &[("", &backend.get(ann, "/self").await.expect(200))]);
    let profile = format!("/users/alpha.test/{}", bob.id);
    golden.has_shape("UserProfile_user", &[("", &backend.get(ann, &profile).await.expect(200))]);
    let rich_info = backend.get(ann, &format!("/users/{}/rich-info", ann.id)).await.expect(200);
    golden.has_shape("RichInfoAssocList_user", &[("", &rich_info)]);
    let calls = backend.get(ann, "/calls/config/v2").await.expect(200);
    let server = &calls["ice_servers"][0];
    golden.has_shape("RTCConfiguration_user", &[("", &calls), ("/ice_servers/0", server)]);
    golden.has_shape("RTCIceServer_user", &[("", server)]);
    let fields = |name: &Value| {
        let name: String = read(name);
        let starts = ["d=", ".v=", ".k=", ".t=", ".r="].map(|field| name.find(field));
        assert!(starts.is_sorted() && starts[0] == Some(0), "{name}");
    };
    fields(&server["username"]);
    golden.check("TurnUsername_user", fields);
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

async fn contacts(golden: &mut Golden, backend: &Backend, ann: &User, bob: &User) {
    let path = format!("/connections/alpha.test/{}", bob.id);
    let connection = backend.call("POST", &path, Some(&ann.token), None).await.expect(201);
    golden.has_shape("UserConnection_user", &[("", &without_conversation(&connection))]);
    golden.has_shape("UserConnectionList_user", &[("/connections/1", &connection)]);
    let found = backend.get(ann, "/search/contacts?q=bob").await.expect(200);
    let contact = &found["documents"][0];
    golden.has_shape("SearchResult_20Contact_user", &[("", &found)]);
    golden.has_shape("SearchResultContact", &[("", &found), ("/documents/0", contact)]);
    golden.has_shape("Contact_user", &[("", contact)]);
    golden.has_shape("Contact", &[("", contact)]);
}

/// The conversation may be left out, as in the one sample.
fn without_conversation(connection: &Value) -> Value {
    let mut connection = connection.clone();
    let members = connection.as_object_mut().unwrap();
    assert!(members.remove("conversation").is_some() && members.remove("qualified_conversation").is_some());
    connection
}

/// Answers about users of a backend that is down as well as of our own.
async fn lists(golden: &mut Golden, backend: &Backend, ann: &User, bob: &User) {
    let far = json!({ "domain": "beta.test", "id": "4f201a43-935e-4e19-8fe0-0a878d3d6e74" });
    let ids = json!({ "qualified_ids": [bob.qualified(), far] });
    let listed = backend.post(ann, "/list-users", ids).await.expect(200);
    same(&listed["failed"], &json!([far]));
    golden.has_shape("ListUsersById_user", &[("", &listed), ("/found/0", &listed["found"][0])]);

    let client = backend.get(ann, "/clients").await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    let wanted = json!({
        "alpha.test": { ann.id.to_string(): [client, "1"] },
        "beta.test": { "4f201a43-935e-4e19-8fe0-0a878d3d6e74": ["1"] },
    });
    let claimed = backend.post(ann, "/users/list-prekeys", wanted).await.expect(200);
    same(&claimed["failed_to_list"], &json!([far]));
    golden.has_shape("QualifiedUserClientPrekeyMapV4", &[("", &claimed)]);
    let ours = &claimed["qualified_user_client_prekeys"];
    same(read::<BTreeMap<Domain, Prekeys>>(ours), ours);
    golden.round_trips::<BTreeMap<Domain, Prekeys>>("QualifiedUserClientPrekeyMap");
    golden.round_trips::<Prekeys>("UserClientPrekeyMap");
}

/// As the answer to `POST /users/list-prekeys` has them.
type Prekeys = BTreeMap<UserId, BTreeMap<ClientId, Option<Prekey>>>;

async fn events(golden: &mut Golden, backend: &Backend, ann: &User) {
    backend.put(ann, "/properties/a", json!(39)).await.expect(200);
    backend.delete(ann, "/properties", None).await.expect(200);
    let profile = json!({ "name": "Anna", "accent_id": 2, "assets": [], "text_status": "x" });
    backend.put(ann, "/self", profile).await.expect(200);
    let dan = backend.register("Dan Two").await;
    let asked = backend.delete(&dan, "/self", Some(json!({}))).await.expect(202);
    golden.has_shape("DeletionCodeTimeout_user", &[("", &asked)]);
    backend.delete(&dan, "/self", Some(json!({ "password": PASSWORD }))).await.expect(200);
    until(|| !backend.recorder.events("user.delete").is_empty()).await;
    until(|| backend.recorder.events("user.update").iter().any(|told| told.event["user"]["name"] == "Anna")).await;
    let last = |kind: &str| backend.recorder.events(kind).pop().unwrap_or_else(|| panic!("no {kind}")).event;
    golden.check("UserEvent", |sample| {
        let kind = sample["type"].as_str().unwrap();
        match kind {
            "user.properties-set" | "user.properties-clear" => same(last(kind), sample),
            "user.client-add" | "user.delete" => same(keys(&last(kind)), &json!(keys(sample))),
            "user.update" => {
                let ours = last(kind);
                same(keys(&ours), &json!(keys(sample)));
                let known = keys(&sample["user"]);
                assert!(keys(&ours["user"]).iter().all(|key| known.contains(key)), "{ours}");
            }
            "user.suspend" => return Verdict::LeftOut("a suspended account's sockets are closed without a word"),
            "user.identity-remove" => return Verdict::LeftOut("addresses cannot be removed"),
            "user.legalhold-enable" | "user.legalhold-request" => return Verdict::LeftOut("legal hold is not offered"),
            "user.new" => return Verdict::LeftOut("new users are activated at once"),
            other => panic!("unknown event {other}"),
        }
        Verdict::Alike
    });
}

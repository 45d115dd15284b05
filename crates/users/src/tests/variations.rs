//! Requests that are spoilt in every way: each is accepted, or refused as the table of routes says, and nothing breaks.

use std::sync::LazyLock;

use aldis_api::routes::Table;
use aldis_golden::{expect_documented, variations};
use serde_json::{Value, json};

use crate::testing::{Backend, PASSWORD, User, new_client};

static TABLE: LazyLock<Table> = LazyLock::new(crate::table);

/// A request with a body, and the types of golden samples that are such bodies.
pub(super) struct Request {
    method: &'static str,
    path: String,
    /// As in the table.
    route: &'static str,
    #[cfg_attr(not(feature = "golden"), allow(dead_code))] // there are samples with the feature alone
    pub(super) golden: &'static [&'static str],
    body: Value,
}

/// Every request that has a body. The password is right where that does no harm.
pub(super) async fn requests(backend: &Backend, ann: &User, bob: &User) -> Vec<Request> {
    let client = backend.post(ann, "/clients", new_client("permanent", "of Ann", 2)).await.expect(201);
    let client = client["id"].as_str().unwrap().to_owned();
    let other = backend.register("Cleo").await;
    let to = format!("/connections/alpha.test/{}", bob.id);
    backend.call("POST", &to, Some(&ann.token), None).await.expect(201);
    let of = |method, path: &str, golden, body| Request { method, path: path.to_owned(), route: "", golden, body };
    let at = |route, request: Request| Request { route, ..request };
    let mut update = new_client("permanent", "of Ann", 2);
    update["capabilities"] = json!(["legalhold-implicit-consent"]);
    let picture = json!({ "type": "image", "key": "3-1-8dd0ab5d-cdb3-4b3f-9dd8-39a5e9f7e4b5", "size": "complete" });
    let profile = json!({ "name": "Anna", "accent_id": 3, "assets": [picture], "text_status": "away" });
    let new_user = json!({
        "name": "New", "email": "new@example.com", "password": PASSWORD, "accent_id": 2, "assets": [picture],
        "locale": "de-CH", "supported_protocols": ["proteus"], "label": "a label", "phone": null, "team": null,
    });
    let claim = json!({ "alpha.test": { ann.id.to_string(): [client] } });
    let code = json!({ "email": "x@example.com", "code": "123456", "dryrun": true });
    let list = json!({ "qualified_ids": [bob.qualified(), other.qualified()] });
    let clients = json!({ "qualified_users": [bob.qualified(), ann.qualified()] });
    let remove = json!({ "password": "not the password", "labels": ["a"], "ids": [1, 2] });
    let reset = json!({ "email": bob.email, "key": bob.id, "code": "123456", "password": "a new password" });
    let login = json!({ "email": bob.email, "password": PASSWORD, "label": "a label" });
    let new_users = &["NewUserPublic_user", "NewUser_user", "fromJSON/NewUserPublic_user", "fromJSON/NewUser_user"];
    vec![
        of("POST", "/activate", &["Activate_user"], code),
        of("POST", "/activate/send", &["SendActivationCode"], json!({ "email": "y@example.com", "locale": "de" })),
        of("POST", "/register", new_users, new_user),
        of("POST", "/login", &["Login_user"], login),
        of("POST", "/cookies/remove", &["RemoveCookies_user"], remove),
        of("POST", "/verification-code/send", &[], json!({ "email": bob.email, "action": "login" })),
        of("POST", "/password-reset", &["NewPasswordReset_user"], json!({ "email": bob.email })),
        of("POST", "/password-reset/complete", &["CompletePasswordReset_user"], reset),
        of("PUT", "/access/self/email", &["EmailUpdate_user"], json!({ "email": "anna@example.com" })),
        of("POST", "/delete", &["VerifyDeleteUser_user"], json!({ "key": bob.id, "code": "123456" })),
        of("PUT", "/self", &["UserUpdate_user"], profile),
        of("PUT", "/self/handle", &["HandleUpdate_user"], json!({ "handle": "anna" })),
        of("PUT", "/self/locale", &["LocaleUpdate_user"], json!({ "locale": "de" })),
        of("PUT", "/self/supported-protocols", &[], json!({ "supported_protocols": ["proteus"] })),
        of("POST", "/handles", &["CheckHandles_user"], json!({ "handles": ["anna", "bob"], "return": 2 })),
        of("POST", "/list-users", &[], list),
        of("POST", "/list-connections", &[], json!({ "size": 100, "paging_state": null })),
        of("POST", "/users/list-clients", &["LimitedQualifiedUserIdList_user"], clients),
        of("POST", "/users/list-prekeys", &[], claim),
        of("POST", "/clients", &["NewClient_user"], new_client("permanent", "another", 2)),
        at("/connections/{domain}/{id}", of("PUT", &to, &["ConnectionUpdate_user"], json!({ "status": "blocked" }))),
        at("/clients/{client}", of("PUT", &format!("/clients/{client}"), &["UpdateClient_user"], update)),
        at(
            "/clients/{client}",
            of("DELETE", &format!("/clients/{client}"), &["RmClient_user"], json!({ "password": "not it" })),
        ),
        of("POST", "/get-domain-registration", &[], json!({ "email": bob.email })),
        of(
            "PUT",
            "/self/password",
            &["PasswordChange_user"],
            json!({ "old_password": "not it", "new_password": "12345678" }),
        ),
        of("DELETE", "/self", &["DeleteUser_user"], json!({ "password": "not it" })),
    ]
}

impl Request {
    /// Sends a body as Ann, and checks that the answer is a documented one.
    pub(super) async fn send(&self, backend: &Backend, ann: &User, body: &Value) -> u16 {
        let answer = backend.call(self.method, &self.path, Some(&ann.token), Some(body.clone())).await;
        let route = if self.route.is_empty() { &self.path } else { self.route };
        expect_documented(&TABLE, (self.method, route), body, (answer.status.as_u16(), &answer.body));
        answer.status.as_u16()
    }

    /// Sends variations of a body.
    pub(super) async fn vary(&self, backend: &Backend, ann: &User, body: &Value, pairs: usize) -> [usize; 2] {
        let mut answers = [0, 0];
        for body in variations(body, pairs) {
            let refused = self.send(backend, ann, &body).await >= 400;
            answers[usize::from(refused)] += 1;
        }
        answers
    }
}

#[tokio::test]
async fn spoilt_requests_are_accepted_or_refused_as_documented() {
    let backend = Backend::alone().await;
    let (ann, bob) = (backend.register_with_handle("Ann", "ann").await, backend.register("Bob").await);
    for request in requests(&backend, &ann, &bob).await {
        request.send(&backend, &ann, &request.body).await;
        let [accepted, refused] = request.vary(&backend, &ann, &request.body, 40).await;
        println!("{} {}: {accepted} accepted, {refused} refused", request.method, request.path);
        assert!(refused > 20, "{} {} accepts anything", request.method, request.path);
    }
}

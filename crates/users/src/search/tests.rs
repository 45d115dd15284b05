use aldis_proto::internal::v1::{SetRemoteRequest, remote_admin_client::RemoteAdminClient};
use serde_json::{Value, json};

use crate::testing::{Backend, User};

async fn names(backend: &Backend, user: &User, query: &str) -> Vec<String> {
    let answer = backend.get(user, &format!("/search/contacts?{query}")).await.expect(200);
    let documents = answer["documents"].as_array().unwrap();
    assert_eq!(answer["found"], documents.len());
    assert_eq!(answer["returned"], documents.len());
    documents.iter().map(|document| document["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn people_here_are_found_by_name_and_handle() {
    let backend = Backend::alone().await;
    let ann = backend.register_with_handle("Ann", "ann").await;
    let zoe = backend.register_with_handle("Zoë Müller", "annette").await;
    backend.register_with_handle("Annette", "other").await;
    assert_eq!(names(&backend, &ann, "q=zoe").await, ["Zoë Müller"]);
    assert_eq!(names(&backend, &ann, "q=MULL").await, ["Zoë Müller"]);
    assert_eq!(names(&backend, &ann, "q=%40annette").await, ["Zoë Müller", "Annette"], "the exact handle first");
    assert_eq!(names(&backend, &ann, "q=annette&size=1").await, ["Zoë Müller"]);
    assert_eq!(names(&backend, &zoe, "q=ann&domain=ALPHA.test").await, ["Ann", "Annette"]);
    assert!(names(&backend, &ann, "q=").await.is_empty());
    let answer = backend.get(&ann, "/search/contacts?q=zoe").await.expect(200);
    let document = json!({
        "qualified_id": zoe.qualified(), "id": zoe.id, "name": "Zoë Müller", "accent_id": 1, "handle": "annette",
        "team": null, "type": "regular",
    });
    assert_eq!((&answer["documents"], &answer["search_policy"]), (&json!([document]), &json!("full_search")));
    backend.get(&ann, "/search/contacts?q=a&size=501").await.expect_label(400, "bad-request");
    backend.get(&ann, "/search/contacts").await.expect_label(400, "bad-request");
    let long = "x".repeat(257);
    backend.get(&ann, &format!("/search/contacts?q={long}")).await.expect_label(400, "bad-request");
}

#[tokio::test]
async fn another_backend_answers_by_its_own_policy() {
    let (alpha, beta, network) = Backend::pair().await;
    let ann = alpha.register_with_handle("Ann", "ann").await;
    let bob = beta.register_with_handle("Bob", "bob").await;
    beta.register_with_handle("Bobby", "bobby").await;
    let mut admin = RemoteAdminClient::new(beta.admin.clone());
    let cases: [(u32, &str, &[&str], &str); 4] = [
        (3, "bob", &["Bob", "Bobby"], "full_search"),
        (2, "bob", &["Bob"], "exact_handle_search"),
        (2, "bo", &[], "exact_handle_search"),
        (1, "bob", &[], "no_search"),
    ];
    for (policy, text, expected, name) in cases {
        let request =
            SetRemoteRequest { domain: "alpha.test".to_owned(), search_policy: policy, ..SetRemoteRequest::default() };
        admin.set_remote(request).await.unwrap();
        let query = format!("q={text}&domain=beta.test");
        assert_eq!(names(&alpha, &ann, &query).await, expected, "{name} {text}");
        let answer = alpha.get(&ann, &format!("/search/contacts?{query}")).await.expect(200);
        assert_eq!(answer["search_policy"], name);
        let by_handle = alpha.get(&ann, "/users/by-handle/beta.test/bob").await;
        assert_eq!(by_handle.status, if policy == 1 { 404 } else { 200 });
    }
    assert_eq!(bob.domain, beta.domain);
    network.take_down(&beta.domain);
    let down = alpha.get(&ann, "/search/contacts?q=bob&domain=beta.test").await;
    assert_eq!(down.expect_label(521, "federation-connection-refused")["inner"], Value::Null);
}

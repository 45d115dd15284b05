use serde_json::{Value, json};

use crate::{
    Config, Deeplink, Mail, Registration,
    testing::{Backend, Network},
};

#[tokio::test]
async fn what_apps_ask_at_start() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| {
        config.deeplink = Some(Deeplink {
            backend_url: "https://api.alpha.test".to_owned(),
            backend_ws_url: Some("https://ws.alpha.test".to_owned()),
            title: Some("Alpha & <Sons>".to_owned()),
            black_list_url: None,
            teams_url: Some("https://teams.alpha.test".to_owned()),
            accounts_url: None,
            website_url: None,
        });
        config.blacklist.ios.min_version = "3000".to_owned();
        config.blacklist.ios.exclude = vec!["3003".to_owned()];
    })
    .await;
    let ann = backend.register("Ann").await;
    let open = async |method: &str, path: &str, body: Option<Value>| backend.call(method, path, None, body).await;
    let version = open("GET", "/api-version", None).await.expect(200);
    let expected = json!({
        "supported": [8, 9, 10, 11, 12, 13], "development": [], "federation": true, "domain": "alpha.test",
    });
    assert_eq!(version, expected);
    open("GET", "/status", None).await.expect(200);
    let deeplink = open("GET", "/deeplink.json", None).await.expect(200);
    let endpoints = json!({
        "backendURL": "https://api.alpha.test",
        "backendWSURL": "https://ws.alpha.test",
        "blackListURL": "https://api.alpha.test/clientblacklist",
        "teamsURL": "https://teams.alpha.test",
        "accountsURL": "https://api.alpha.test",
        "websiteURL": "https://api.alpha.test",
    });
    assert_eq!(deeplink, json!({ "endpoints": endpoints, "title": "Alpha & <Sons>" }));
    assert_eq!(open("GET", "/config.json", None).await.expect(200), deeplink);
    let page = open("GET", "/deeplink.html", None).await.expect(200);
    assert!(page.as_str().unwrap().contains("wire://access/?config=https://api.alpha.test/deeplink.json"));
    assert!(page.as_str().unwrap().contains("<title>Alpha &amp; &lt;Sons&gt;</title>"));
    let blacklist = open("GET", "/clientblacklist/android", None).await.expect(200);
    assert_eq!(blacklist, json!({ "min_version": "0", "exclude": [] }));
    let blacklist = open("GET", "/clientblacklist/ios", None).await.expect(200);
    assert_eq!(blacklist, json!({ "min_version": "3000", "exclude": ["3003"] }));
    let email = Some(json!({ "email": "a@b.c" }));
    let registration = open("POST", "/get-domain-registration", email.clone()).await.expect(200);
    assert_eq!(registration, json!({ "domain_redirect": "none" }));
    assert_eq!(open("GET", "/sso/settings", None).await.expect(200), json!({}));
    open("HEAD", "/sso/initiate-login/x", None).await.expect(404);
    open("GET", "/custom-backend/by-domain/a.b", None).await.expect_label(404, "custom-backend-not-found");
    open("POST", "/verification-code/send", Some(json!({ "email": "a@b.c", "action": "login" }))).await.expect(200);
    open("GET", "/nothing", None).await.expect_label(404, "no-endpoint");
    open("POST", "/password-reset/key", Some(json!({}))).await.expect_label(404, "no-endpoint");
    for path in ["/mls/key-packages/self/1a", "/mls/key-packages/claim/alpha.test/x"] {
        open("POST", path, None).await.expect_label(401, "invalid-credentials");
        backend.post(&ann, path, json!({})).await.expect_label(400, "mls-not-enabled");
    }
    open("PATCH", "/self", None).await.expect_label(405, "method-not-allowed");
    open("GET", "/system/settings", None).await.expect_label(401, "invalid-credentials");
    let settings = backend.get(&ann, "/system/settings").await.expect(200);
    assert_eq!(settings, json!({ "setRestrictUserCreation": false, "setEnableMls": false }));
    assert_eq!(backend.get(&ann, "/self/consent").await.expect(200), json!({ "results": [] }));
    let calls = backend.get(&ann, "/calls/config/v2").await.expect(200);
    assert_eq!((&calls["ttl"], &calls["ice_servers"][0]["urls"]), (&json!(3600), &json!(["turn:turn.test:3478"])));
    assert_eq!(calls.as_object().unwrap().len(), 2);
    backend.get(&ann, "/calls/config/v2?limit=11").await.expect_label(400, "bad-request");
}

#[tokio::test]
async fn without_settings_the_answers_are_still_true() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| {
        config.calls = crate::Calls::default();
        config.federation.strategy = aldis_types::Strategy::AllowNone;
    })
    .await;
    let ann = backend.register("Ann").await;
    backend.call("GET", "/deeplink.json", None, None).await.expect_label(404, "not-found");
    assert_eq!(backend.call("GET", "/api-version", None, None).await.expect(200)["federation"], false);
    backend.get(&ann, "/calls/config/v2").await.expect_label(500, "server-error");
}

#[test]
fn a_wrong_configuration_is_named_with_key_value_and_what_is_allowed() {
    fn refused(adapt: impl FnOnce(&mut Config)) -> String {
        let mut config = crate::testing::config(std::path::Path::new("mail"));
        config.check().unwrap();
        adapt(&mut config);
        config.check().unwrap_err()
    }
    let text = refused(|config| config.tokens.access_seconds = 1);
    assert_eq!(text, "users.tokens.access_seconds = 1: allowed are 10 to 86400");
    assert!(refused(|config| config.mail = Mail::default()).contains("users.mail"));
    assert!(refused(|config| config.mail.from = Some("nobody".to_owned())).contains("\"nobody\""));
    assert!(refused(|config| config.calls.secret = None).contains("users.calls.secret"));
    assert!(refused(|config| config.calls.turn_uris.push("http://x".to_owned())).contains("turn:"));
    for url in ["api.example.com", "https://", "https://api.example.com/", "https://a b"] {
        let wrong = refused(|config| {
            config.deeplink = Some(serde_json::from_value(json!({ "backend_url": url })).unwrap());
        });
        assert!(wrong.contains("users.deeplink.backend_url") && wrong.contains(url), "{wrong}");
    }
    let domains = refused(|config| config.registration = Registration::Domains(vec!["*".to_owned()]));
    assert!(domains.contains("users.registration"));
    let none: Config = serde_json::from_str("{}").unwrap();
    none.check().unwrap();
    assert_eq!(none.registration, Registration::Closed);
}

#[test]
fn settings_are_read() {
    let text = json!({
        "registration": ["Example.com"],
        "federation": { "strategy": "allow_list", "quotas": { "searches": 5 } },
        "calls": { "turn_uris": ["turn:a"], "secret": "s" },
        "mail": { "smtp": { "host": "mail", "encryption": "none" } },
    });
    let config: Config = serde_json::from_value(text).unwrap();
    assert_eq!(config.registration, Registration::Domains(vec!["example.com".to_owned()]));
    config.check().unwrap();
    assert!(!format!("{config:?}").contains("\"s\""), "secrets are hidden");
    for wrong in [json!({ "registration": "maybe" }), json!({ "unknown": 1 }), json!({ "calls": { "x": 1 } })] {
        assert!(serde_json::from_value::<Config>(wrong).is_err());
    }
}

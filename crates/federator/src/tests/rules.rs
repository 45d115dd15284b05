//! Rules that need no network.

use std::{sync::Arc, time::Duration};

use aldis_runtime::SystemRandom;
use http::{HeaderMap, HeaderValue};
use tokio::time::advance;

use super::world::domain;
use crate::{
    Config, Pin, StaticTarget, Trust,
    egress::{Admission, Breaker},
    failure::Failure,
    rpc::{self, Component, Rpc, Shape},
};

fn breaker() -> Arc<Breaker> {
    Breaker::new(domain("beta.test"), "call", 3, Duration::from_secs(5), Arc::new(SystemRandom))
}

fn down() -> Failure {
    Failure::unreachable("down")
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_after_failures_in_a_row_and_lets_one_call_find_out() {
    let breaker = breaker();
    for _ in 0..2 {
        breaker.failed(&down());
        breaker.failed(&down());
        assert!(matches!(breaker.admit(), Admission::Go));
        breaker.succeeded();
    }
    (0..3).for_each(|_| breaker.failed(&down()));
    assert!(matches!(breaker.admit(), Admission::Refused(failure) if failure == down()));
    advance(Duration::from_millis(1_001)).await;
    let Admission::Probe(probe) = breaker.admit() else { panic!("somebody may find out") };
    assert!(matches!(breaker.admit(), Admission::Refused(_)), "but only one");
    assert_eq!(breaker.name(), "half-open");
    // Whoever found nothing out leaves it to the next.
    drop(probe);
    let Admission::Probe(probe) = breaker.admit() else { panic!("the next may find out") };
    probe.failed(&down());
    assert!(matches!(breaker.admit(), Admission::Refused(_)));
    // However often it fails, the pause stays within the setting.
    for _ in 0..20 {
        advance(Duration::from_millis(5_001)).await;
        let Admission::Probe(probe) = breaker.admit() else { panic!("the pause is over") };
        probe.failed(&down());
    }
    breaker.nudge();
    let Admission::Probe(probe) = breaker.admit() else { panic!("a sign of life ends the pause") };
    probe.succeeded();
    assert!(matches!(breaker.admit(), Admission::Go));
    assert_eq!(breaker.name(), "closed");
}

#[test]
fn paths_are_exact() {
    let parse =
        |path: &'static str| Rpc::parse(&http::Uri::from_static(path)).map(|rpc| (rpc.component(), rpc.shape()));
    let known = [
        ("/aldis.federation.v1.Users/GetUsers", Some(Component::Users), Shape::Call),
        ("/aldis.federation.v1.UsersDelivery/Deliver", Some(Component::Users), Shape::Events),
        ("/aldis.federation.v1.Conversations/SendMessage", Some(Component::Conversations), Shape::Call),
        ("/aldis.federation.v1.ConversationsDelivery/Deliver", Some(Component::Conversations), Shape::Events),
        ("/aldis.federation.v1.Assets/Fetch", Some(Component::Assets), Shape::Transfer),
        ("/aldis.federation.v1.Assets/Check", Some(Component::Assets), Shape::Call),
        ("/aldis.federation.v1.Federator/Hello", Some(Component::Federator), Shape::Call),
        ("/aldis.federation.v1.Users/Deliver", Some(Component::Users), Shape::Call),
        ("/aldis.federation.v1.Elsewhere/Get", None, Shape::Call),
    ];
    for (path, component, stream) in known {
        assert_eq!(parse(path), Some((component, stream)), "{path}");
    }
    for path in [
        "/aldis.federation.v1.Users",
        "/aldis.federation.v1.Users/",
        "/aldis.federation.v1./Get",
        "/aldis.federation.v1.Users/Get/",
        "/aldis.federation.v1.Users/../Get",
        "/aldis.federation.v1.Users/G%65t",
        "/aldis.federation.v1.Users/Get?a",
        "/aldis.internal.v1.Policy/Watch",
        "/x/aldis.federation.v1.Users/Get",
        "/",
    ] {
        assert_eq!(parse(path), None, "{path}");
    }
}

#[test]
fn timeouts_are_read_as_grpc_writes_them() {
    let read = |text: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_static(text));
        aldis_peers::timeout(&headers)
    };
    assert_eq!(read("10S"), Some(Duration::from_secs(10)));
    assert_eq!(read("250m"), Some(Duration::from_millis(250)));
    assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
    for text in ["", "S", "10", "-1S", "123456789m", "1.5S", "10s", "1 S"] {
        assert_eq!(read(text), None, "{text}");
    }
    let mut headers = HeaderMap::new();
    rpc::state_timeout(&mut headers, Duration::from_secs(10));
    assert_eq!(headers["grpc-timeout"], "9750m");
    rpc::state_timeout(&mut headers, Duration::ZERO);
    assert_eq!(headers["grpc-timeout"], "1m");
}

fn valid() -> Config {
    Config {
        certificate_file: "/c.pem".into(),
        key_file: "/k.pem".into(),
        ca_file: Some("/ca.pem".into()),
        ..Config::default()
    }
}

#[test]
fn settings_are_checked_with_key_value_and_what_is_allowed() {
    assert_eq!(valid().check(), Ok(()));
    assert_eq!(Config { trust: Trust::System, ca_file: None, ..valid() }.check(), Ok(()));
    let beta = domain("beta.test");
    let target = |host: &str, port| StaticTarget { host: host.to_owned(), port, address: None };
    let wrong = [
        (Config { certificate_file: "".into(), ..valid() }, "federation.certificate_file"),
        (Config { ca_file: None, ..valid() }, "federation.ca_file"),
        (Config { proxy_protocol: true, ..valid() }, "`federation.trusted_proxies` are needed together"),
        (
            Config { trusted_proxies: vec!["10.0.0.0/99".to_owned()], ..valid() },
            "`federation.trusted_proxies` has \"10.0.0.0/99\"; allowed: networks",
        ),
        (Config { call_deadline_ms: 1, ..valid() }, "`federation.call_deadline_ms` = 1; allowed: 50 to 120000"),
        (Config { max_policy_age_seconds: 1, ..valid() }, "federation.max_policy_age_seconds"),
        (Config { static_targets: [(beta.clone(), vec![])].into(), ..valid() }, "federation.static_targets"),
        (Config { static_targets: [(beta.clone(), vec![target("a b", 1)])].into(), ..valid() }, "\"a b\""),
        (Config { static_targets: [(beta.clone(), vec![target("a.test", 0)])].into(), ..valid() }, ".port` = 0"),
        (Config { pins: [(beta.clone(), Pin::default())].into(), ..valid() }, "is empty"),
        (
            Config { pins: [(beta, Pin { spki_sha256: vec!["xy".to_owned()], ..Pin::default() })].into(), ..valid() },
            "64 hexadecimal digits",
        ),
    ];
    for (config, text) in wrong {
        let error = config.check().unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn settings_are_read_from_toml() {
    let text = r#"
        listen = "127.0.0.1:18101"
        certificate_file = "certificate.pem"
        key_file = "key.pem"
        ca_file = "ca.pem"
        trust = "both"
        dns = "127.0.0.1:18053"
        static_targets = { "beta.test" = [{ host = "federator.beta.test", port = 443 }] }
        pins = { "beta.test" = { names = ["federator.beta.test"] } }
    "#;
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!(config.check(), Ok(()));
    assert_eq!(config.trust, Trust::Both);
    assert_eq!(config.static_targets[&domain("beta.test")][0].port, 443);
    assert_eq!(config.max_concurrent_per_peer, 256);
    assert!(toml::from_str::<Config>("unknown = 1").is_err());
}

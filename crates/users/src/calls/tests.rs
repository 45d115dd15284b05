use std::{collections::HashSet, sync::Arc};

use aldis_runtime::SystemRandom;

use super::*;
use crate::config::Secret;

fn user() -> UserId {
    "11111111-1111-4111-8111-111111111111".parse().unwrap()
}

fn config(uris: &[&str]) -> config::Calls {
    config::Calls {
        turn_uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        secret: Some(Secret::from("shared".to_owned())),
        ..config::Calls::default()
    }
}

const URIS: [&str; 5] = [
    "turn:a.test:3478?transport=udp",
    "turn:b.test:3478",
    "turn:a.test:3478?transport=tcp",
    "turns:a.test:5349?transport=tcp",
    "turns:b.test:5349?transport=tcp",
];

fn servers(limit: Option<usize>) -> Vec<IceServer> {
    let random: SharedRandom = Arc::new(SystemRandom);
    ice_servers(&config(&URIS), &random, user(), Timestamp::from_millis(1_700_000_000_000), limit)
}

#[test]
fn every_server_gets_credentials_that_the_shared_secret_proves() {
    let servers = servers(None);
    let uris: HashSet<&str> = servers.iter().map(|server| server.uri.as_str()).collect();
    assert_eq!(uris, HashSet::from(URIS));
    let username = &servers[0].username;
    assert!(username.starts_with("d=1700021600.v=1.k=0.t=s.r="), "{username}");
    let mut mac = Hmac::<Sha512>::new_from_slice(b"shared").unwrap();
    mac.update(username.as_bytes());
    mac.verify_slice(&STANDARD.decode(&servers[0].credential).unwrap()).unwrap();
}

#[test]
fn a_limit_takes_the_transports_in_turn() {
    for _ in 0..20 {
        let servers = servers(Some(4));
        let kinds: Vec<_> = servers
            .iter()
            .map(|server| match &server.uri {
                uri if uri.starts_with("turns:") => "tls",
                uri if uri.ends_with("tcp") => "tcp",
                _ => "udp",
            })
            .collect();
        assert_eq!(kinds, ["udp", "tls", "tcp", "udp"]);
    }
}

#[test]
fn the_name_is_stable_and_in_base_26() {
    assert_eq!(stable_name(user()), stable_name(user()));
    assert!(stable_name(user()).bytes().all(|digit| digit.is_ascii_lowercase()));
}

#[test]
fn nothing_without_servers() {
    let random: SharedRandom = Arc::new(SystemRandom);
    assert!(ice_servers(&config::Calls::default(), &random, user(), Timestamp::EPOCH, None).is_empty());
}

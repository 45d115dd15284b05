use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use aldis_runtime::SystemRandom;

use super::{
    discovery::{FindServers, ServerError, Target},
    *,
};
use crate::config::{Config, Secret};

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

fn now() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn lists() -> Lists {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Lists { turn: texts(&URIS), sft: texts(&["https://a.test:443", "https://b.test:443", "https://c.test:443"]) }
}

fn servers(limit: Option<usize>) -> Vec<IceServer> {
    let random: SharedRandom = Arc::new(SystemRandom);
    ice_servers(&config(&[]), &lists(), &random, user(), now(), limit)
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
    assert!(ice_servers(&config(&[]), &Lists::default(), &random, user(), Timestamp::EPOCH, None).is_empty());
}

#[test]
fn credentials_for_coturn_are_the_expiry_and_a_sha1_hmac() {
    let random: SharedRandom = Arc::new(SystemRandom);
    let config = config::Calls { turn_credentials: TurnCredentials::Rest, ..config(&[]) };
    let servers = ice_servers(&config, &lists(), &random, user(), now(), Some(1));
    assert_eq!(servers[0].username, format!("1700021600:{}", stable_name(user())));
    let mut mac = Hmac::<Sha1>::new_from_slice(b"shared").unwrap();
    mac.update(servers[0].username.as_bytes());
    mac.verify_slice(&STANDARD.decode(&servers[0].credential).unwrap()).unwrap();
}

#[test]
fn conference_servers_are_told_in_part_and_whole() {
    let random: SharedRandom = Arc::new(SystemRandom);
    let two = config::Calls { sft_list_length: 2, ..config(&[]) };
    let told = sft_servers(&two, &lists(), &random, user(), now());
    assert_eq!((told.some.len(), told.all, told.credentials), (2, Some(lists().sft), None));
    let secret = Some(Secret::from("sft".to_owned()));
    let quiet = config::Calls { sft_list_all: false, sft_secret: secret, ..config(&[]) };
    let told = sft_servers(&quiet, &lists(), &random, user(), now());
    assert_eq!((told.some.len(), told.all), (3, None));
    let username = told.credentials.unwrap().username;
    assert_eq!(username, format!("d=1700021600.v=1.k=0.s=1.r={}", stable_name(user())));
    assert_eq!(sft_servers(&quiet, &Lists::default(), &random, user(), now()), SftServers::default());
}

/// Answers what a test wants, and can fail.
#[derive(Default)]
struct FakeDns(Mutex<HashMap<String, Option<Vec<Target>>>>);

impl FakeDns {
    fn set(&self, name: &str, targets: Option<&[(&str, u16)]>) {
        let target = |(host, port): &(&str, u16)| Target { host: (*host).to_owned(), port: *port };
        let targets = targets.map(|targets| targets.iter().map(target).collect());
        self.0.lock().unwrap().insert(name.to_owned(), targets);
    }
}

#[async_trait::async_trait]
impl FindServers for FakeDns {
    async fn find(&self, name: &str) -> Result<Vec<Target>, ServerError> {
        match self.0.lock().unwrap().get(name) {
            None => Ok(Vec::new()),
            Some(Some(targets)) => Ok(targets.clone()),
            Some(None) => Err(ServerError::Dns("down".to_owned())),
        }
    }
}

async fn until(servers: &Servers, expected: &Lists) {
    for _ in 0..2_000 {
        if *servers.now() == *expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(*servers.now(), *expected);
}

#[tokio::test]
async fn servers_come_from_settings_file_and_dns_and_the_last_good_list_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("turn");
    std::fs::write(&file, "# ours\n\nturn:file.test:3478\n  turns:file.test:5349  \n").unwrap();
    let calls = config::Calls {
        turn_uris_file: Some(file.clone()),
        turn_discovery: Some("turn.test".parse().unwrap()),
        sft_discovery: Some("sft.test".parse().unwrap()),
        discovery_seconds: 1,
        ..config(&["turn:listed.test:3478"])
    };
    let servers = Servers::new(Arc::new(Config { calls, ..Config::default() }));
    assert!(servers.changes());
    let dns = Arc::new(FakeDns::default());
    dns.set("_turn._udp.turn.test", Some(&[("a.test", 3478)]));
    dns.set("_turns._tcp.turn.test", Some(&[("a.test", 5349)]));
    dns.set("_sft._tcp.sft.test", Some(&[("one.test", 443), ("two.test", 8443)]));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(servers.clone().keep(dns.clone()));
    let texts = |list: &[&str]| -> Vec<String> { list.iter().map(|text| (*text).to_owned()).collect() };
    let turn =
        ["turn:listed.test:3478", "turn:file.test:3478", "turns:file.test:5349", "turn:a.test:3478?transport=udp"];
    let mut expected = Lists { turn: texts(&turn), sft: texts(&["https://one.test:443", "https://two.test:8443"]) };
    expected.turn.push("turns:a.test:5349?transport=tcp".to_owned());
    until(&servers, &expected).await;

    // Nothing of this can be used; another server of DNS comes all the same.
    std::fs::write(&file, "http://file.test\n").unwrap();
    dns.set("_turn._udp.turn.test", None);
    dns.set("_sft._tcp.sft.test", Some(&[("three.test", 443)]));
    expected.sft = texts(&["https://three.test:443"]);
    until(&servers, &expected).await;
    dns.set("_sft._tcp.sft.test", Some(&[]));
    std::fs::write(&file, "turn:new.test:3478\n").unwrap();
    expected.turn.splice(1..3, texts(&["turn:new.test:3478"]));
    until(&servers, &expected).await;
}

//! Rules of the shared values, with the published test vectors.

use crate::*;

fn user(digit: char, domain: &str) -> Qualified<UserId> {
    let d = |n: usize| digit.to_string().repeat(n);
    let text = format!("{}-{}-4{}-8{}-{}", d(8), d(4), d(3), d(3), d(12));
    Qualified::new(text.parse().unwrap(), domain.parse().unwrap())
}

#[test]
fn one_to_one_ids_are_those_of_the_published_vectors() {
    let a = user('1', "a.example.com");
    let b = user('2', "b.example.com");
    let c = user('3', "b.example.com");
    let vectors = [
        (&a, &b, OneToOneProtocol::Proteus, "7754c2ef-29cd-540c-8ad8-58a67c19144a", "b.example.com"),
        (&b, &a, OneToOneProtocol::Proteus, "7754c2ef-29cd-540c-8ad8-58a67c19144a", "b.example.com"),
        (&a, &b, OneToOneProtocol::Mls, "7b8fe68c-48c6-5944-9e5b-e236e4bf891d", "a.example.com"),
        (&a, &c, OneToOneProtocol::Proteus, "33548a15-e5e4-541c-8116-c75ae9989c33", "b.example.com"),
        (&a, &c, OneToOneProtocol::Mls, "ef4666bd-9d59-5580-b264-75ef0677d2c5", "b.example.com"),
        (&b, &c, OneToOneProtocol::Mls, "bc64d465-cb8a-5475-9f5c-7e19a2c4cbc9", "b.example.com"),
    ];
    for (x, y, protocol, id, owner) in vectors {
        let derived = one_to_one(x, y, protocol);
        assert_eq!((derived.id.to_string().as_str(), derived.domain.as_str()), (id, owner));
    }
}

#[test]
fn domains_are_normalised_and_checked() {
    assert_eq!("Alpha.TEST.".parse::<Domain>().unwrap().as_str(), "alpha.test");
    assert!("localhost".parse::<Domain>().is_ok());
    for bad in
        ["", "test", "a..b", "-a.test", "a-.test", "a.1test", "a_b.test", "a.test..", "ä.test", &"a.".repeat(130)]
    {
        assert_eq!(bad.parse::<Domain>(), Err(InvalidDomain), "{bad}");
    }
}

#[test]
fn client_ids_are_hexadecimal_without_leading_zeros() {
    assert_eq!(ClientId(0xb17).to_string(), "b17");
    assert_eq!("0B17".parse(), Ok(ClientId(0xb17)));
    for bad in ["", "xyz", "+1", "11111111111111111"] {
        assert!(bad.parse::<ClientId>().is_err(), "{bad}");
    }
    assert_eq!(serde_json::to_string(&ClientId(u64::MAX)).unwrap(), "\"ffffffffffffffff\"");
}

#[test]
fn times_have_three_decimals() {
    let time: Timestamp = "2025-03-01T12:34:56.7Z".parse().unwrap();
    assert_eq!(time.to_string(), "2025-03-01T12:34:56.700Z");
    assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00.000Z");
    assert_eq!("2025-03-01T13:34:56.700+01:00".parse(), Ok(time));
}

#[test]
fn handles_names_and_addresses_have_bounds() {
    assert!("a".parse::<Handle>().is_err());
    assert!("Alice".parse::<Handle>().is_err());
    assert!("al.ice_9-".parse::<Handle>().is_ok());
    assert!("".parse::<Name>().is_err());
    assert!("ä".repeat(128).parse::<Name>().is_ok());
    assert!("ä".repeat(129).parse::<Name>().is_err());
    for bad in ["", "a", "a@", "@b.c", "a b@c.d", "a@b@", ".a@b.c", "a@-b.c", "a\r\n@b.c"] {
        assert!(bad.parse::<Email>().is_err(), "{bad}");
    }
    assert_eq!(" A.b@Example.COM ".parse::<Email>().unwrap().as_str(), "A.b@example.com");
    assert_eq!(format!("{:?}", "a@b.c".parse::<Email>().unwrap()), "Email(…)");
}

#[test]
fn legacy_access_roles_contain_the_new_ones() {
    use AccessRole::{Guest, NonTeamMember, Service, TeamMember};
    assert_eq!(LegacyAccessRole::containing(&[]), LegacyAccessRole::Private);
    assert_eq!(LegacyAccessRole::containing(&[TeamMember]), LegacyAccessRole::Team);
    assert_eq!(LegacyAccessRole::containing(&[TeamMember, NonTeamMember, Service]), LegacyAccessRole::Activated);
    assert_eq!(
        LegacyAccessRole::containing(&[TeamMember, NonTeamMember, Guest, Service]),
        LegacyAccessRole::NonActivated
    );
    assert_eq!(LegacyAccessRole::containing(&[Guest]), LegacyAccessRole::NonActivated);
}

#[test]
fn policy_denies_unless_allowed() {
    let listed: Domain = "beta.test".parse().unwrap();
    let other: Domain = "gamma.test".parse().unwrap();
    let remote = |state| RemotePolicy::new(state, SearchPolicy::FullSearch);
    let mut policy = PolicySnapshot { strategy: Strategy::AllowList, ..PolicySnapshot::default() };
    policy.remotes.insert(listed.clone(), remote(RemoteState::Active));
    assert!(policy.allows(&listed) && !policy.allows(&other));
    assert_eq!(policy.search_policy(&listed), SearchPolicy::FullSearch);
    policy.remotes.insert(listed.clone(), remote(RemoteState::Suspended));
    assert!(!policy.allows(&listed));
    assert_eq!(policy.search_policy(&listed), SearchPolicy::NoSearch);
    policy.strategy = Strategy::AllowAll;
    assert!(!policy.allows(&listed) && policy.allows(&other));
    policy.strategy = Strategy::AllowNone;
    assert!(!policy.allows(&other));
}

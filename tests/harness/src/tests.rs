use std::net::Ipv4Addr;

use aldis_proto::federation::v1::GetUsersRequest;
use anyhow::Result;
use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RData,
};
use tonic::Code;

use crate::{
    client::{Draft, Mail, MailFolder, encode, prekeys},
    dns::{Dns, Mood, Target},
    pki::Authority,
    rogue::{Caller, Conduct, Rogue},
};

fn resolver(dns: &Dns) -> Result<Resolver<TokioRuntimeProvider>> {
    let mut udp = ConnectionConfig::udp();
    udp.port = dns.address().port();
    let server = NameServerConfig::new(dns.address().ip(), true, vec![udp]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.options_mut().attempts = 1;
    Ok(builder.build()?)
}

#[tokio::test]
async fn dns_answers_what_the_test_decides() -> Result<()> {
    let dns = Dns::start().await?;
    let resolver = resolver(&dns)?;
    let record = "_wire-server-federator._tcp.alpha.test.";
    assert!(resolver.srv_lookup(record).await.is_err());
    dns.set_federator("alpha.test", &[Target::new("federator.alpha.test", 4711)])?;
    let found = resolver.srv_lookup(record).await?;
    let ports: Vec<u16> = found
        .answers()
        .iter()
        .filter_map(|record| if let RData::SRV(srv) = &record.data { Some(srv.port) } else { None })
        .collect();
    assert_eq!(ports, [4711]);
    let host = resolver.ipv4_lookup("federator.alpha.test.").await?;
    assert!(host.answers().iter().any(|record| record.data == RData::A(Ipv4Addr::LOCALHOST.into())));
    dns.set_mood(Mood::Failing);
    assert!(resolver.srv_lookup(record).await.is_err());
    dns.set_mood(Mood::Willing);
    dns.set_federator("alpha.test", &[])?;
    assert!(resolver.srv_lookup(record).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_caller_and_a_rogue_meet_over_mutual_tls() -> Result<()> {
    let authority = Authority::new("test")?;
    let server = authority.issue(&["federator.alpha.test"])?;
    let client = authority.issue(&["federator.beta.test"])?;
    let rogue = Rogue::start(&authority, &server, Conduct::Oversized(64 * 1024 * 1024)).await?;
    let caller =
        Caller::connect(rogue.address(), "federator.alpha.test", &authority, Some(&client), Some("beta.test")).await?;
    assert_eq!(caller.hello().await?.capabilities.map(|known| known.versions), Some(vec![1]));
    let refused = caller.users().get_users(GetUsersRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");

    let stranger = Authority::new("stranger")?;
    assert!(Caller::connect(rogue.address(), "federator.alpha.test", &stranger, None, None).await.is_err());
    assert!(Caller::connect(rogue.address(), "federator.gamma.test", &authority, None, None).await.is_err());
    Ok(())
}

#[test]
fn mails_are_found_by_address() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mail = |name: &str, to: &str, code: &str| {
        let text = format!("To: {to}\r\nX-Zeta-Code: {code}\r\n\r\nX-Zeta-Code: 999999\r\n");
        std::fs::write(folder.path().join(name), text)
    };
    mail("1.eml", "ann@mail.test", "111111")?;
    mail("2.eml", "bob@mail.test", "222222")?;
    mail("3.eml", "ann@mail.test", "333333")?;
    mail("4.tmp", "ann@mail.test", "444444")?;
    let mails = MailFolder::new(folder.path()).to("ann@mail.test")?;
    let codes: Vec<_> = mails.iter().filter_map(|mail: &Mail| mail.header("x-zeta-code")).collect();
    assert_eq!(codes, ["111111", "333333"]);
    Ok(())
}

#[test]
fn bodies_have_the_shape_that_a_backend_reads() -> Result<()> {
    let client = prekeys::new_client("permanent", 3, None)?;
    assert_eq!(client["prekeys"].as_array().map(Vec::len), Some(3));
    assert_eq!(client["lastkey"]["id"], 65535);
    let draft = Draft { strategy: None, ..Draft::new(std::collections::BTreeMap::new(), "x") };
    // sender: {client: 1}
    assert_eq!(draft.encode(aldis_types::ClientId(1))[..], [0x0a, 2, 8, 1]);
    assert_eq!(encode("a b/ä"), "a%20b%2F%C3%A4");
    Ok(())
}

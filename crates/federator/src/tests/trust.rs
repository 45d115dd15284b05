//! Who is believed: certificates, names, origins, pins, and what happens when any of it changes.

use super::support::{
    dns::Mood,
    pki::{Authority, Identity},
    rogue::Caller,
    wait::{eventually, soon},
};
use aldis_proto::error;
use aldis_types::RemoteState;
use anyhow::{Result, ensure};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use super::world::{Backend, World, domain, host};
use crate::{Config, Pin};

fn label(status: &Status) -> (Code, String) {
    (status.code(), error::detail(status).map(|detail| detail.label).unwrap_or_default())
}

fn refused(code: Code, label: &str) -> (Code, String) {
    (code, label.to_owned())
}

async fn caller(world: &World, backend: &Backend, identity: &Identity, origin: &'static str) -> Caller {
    Caller::connect(backend.address(), &host("beta.test"), &world.authority, Some(identity), Some(origin))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_peer_with_another_name_in_its_certificate_is_not_called() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let beta = world.backend_with("beta.test", world.config(&world.identity("gamma.test"))).await;
    let answer = alpha.call("beta.test", "Echo").await;
    assert_eq!(Backend::label(&answer, "beta.test"), (525, "federation-tls-error"));
    assert!(beta.echo.seen().is_empty());
}

#[tokio::test]
async fn a_peer_of_an_unknown_authority_is_not_called() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let other = Authority::new("other").unwrap();
    for (name, identity) in [
        ("beta.test", other.issue(&[&host("beta.test")]).unwrap()),
        ("gamma.test", world.authority.issue_expired(&[&host("gamma.test")]).unwrap()),
    ] {
        let peer = world.backend_with(name, world.config(&identity)).await;
        let answer = alpha.call(name, "Echo").await;
        assert_eq!(Backend::label(&answer, name), (525, "federation-tls-error"), "{:?}", answer.status);
        assert!(peer.echo.seen().is_empty());
    }
}

#[tokio::test]
async fn a_peer_that_does_not_trust_our_certificate_shows_as_a_tls_error() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let mut config = world.config(&world.identity("beta.test"));
    config.ca_file = Some(world.file(Authority::new("other").unwrap().pem()));
    let beta = world.backend_with("beta.test", config).await;
    let answer = alpha.call("beta.test", "Echo").await;
    assert_eq!(Backend::label(&answer, "beta.test"), (525, "federation-tls-error"), "{:?}", answer.status);
    assert!(beta.echo.seen().is_empty());
}

#[tokio::test]
async fn an_origin_must_be_proven_by_the_certificate() {
    let world = World::new().await;
    let beta = world.backend("beta.test").await;
    world.point("alpha.test", &[1]);
    world.point("mallory.test", &[2]);
    let mallory = world.identity("mallory.test");
    let caller = caller(&world, &beta, &mallory, "alpha.test").await;
    let status = caller.hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::Unauthenticated, "authentication-failure"));
    // A backend cannot even claim to be us.
    let status = caller.claiming("beta.test").hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::Unauthenticated, "authentication-failure"));
    let status = caller.claiming("BETA.test.").hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::Unauthenticated, "authentication-failure"));
    let status = caller.claiming("not a domain").hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::InvalidArgument, "domain-parse-error"));
    // Its own name is fine, on the same connection.
    assert_eq!(caller.claiming("mallory.test").hello().await.unwrap().capabilities.unwrap().versions, [1]);
    let anonymous =
        Caller::connect(beta.address(), &host("beta.test"), &world.authority, Some(&mallory), None).await.unwrap();
    let status = anonymous.hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::InvalidArgument, "no-origin-domain"));
}

#[tokio::test]
async fn a_wildcard_covers_one_label() {
    let world = World::new().await;
    let beta = world.backend("beta.test").await;
    world.point("alpha.test", &[1]);
    let wild = world.authority.issue(&["*.alpha.test"]).unwrap();
    assert!(caller(&world, &beta, &wild, "alpha.test").await.hello().await.is_ok());
    world.dns.set_federator("deep.test", &[super::support::dns::Target::new("a.b.alpha.test", 1)]).unwrap();
    let status = caller(&world, &beta, &wild, "deep.test").await.hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::Unauthenticated, "authentication-failure"));
}

#[tokio::test]
async fn a_common_name_proves_nothing() {
    let world = World::new().await;
    let beta = world.backend("beta.test").await;
    world.point("alpha.test", &[1]);
    let named = world.authority.issue_without_names(&host("alpha.test")).unwrap();
    let status = caller(&world, &beta, &named, "alpha.test").await.hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::Unauthenticated, "authentication-failure"));
}

#[tokio::test]
async fn an_origin_without_a_record_or_standing_is_refused() {
    let world = World::new().await;
    let beta = world.backend("beta.test").await;
    let alpha = world.identity("alpha.test");
    let caller = caller(&world, &beta, &alpha, "alpha.test").await;
    assert_eq!(label(&caller.hello().await.unwrap_err()), refused(Code::FailedPrecondition, "invalid-domain"));
    world.dns.set_mood(Mood::Failing);
    let status = caller.claiming("other.test").hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::Unavailable, "discovery-failure"));
    // Policy comes first, and says nothing about DNS.
    beta.remotes(&[("gamma.test", RemoteState::Active)]);
    assert_eq!(label(&caller.hello().await.unwrap_err()), refused(Code::PermissionDenied, "federation-denied"));
}

#[tokio::test]
async fn nobody_gets_in_without_a_valid_certificate() {
    let world = World::new().await;
    let beta = world.backend("beta.test").await;
    world.point("alpha.test", &[1]);
    let expired = world.authority.issue_expired(&[&host("alpha.test")]).unwrap();
    let foreign = Authority::new("other").unwrap().issue(&[&host("alpha.test")]).unwrap();
    let server_only = world.authority.issue_for_server(&[&host("alpha.test")]).unwrap();
    for identity in [None, Some(&expired), Some(&foreign), Some(&server_only)] {
        let caller =
            Caller::connect(beta.address(), &host("beta.test"), &world.authority, identity, Some("alpha.test")).await;
        if let Ok(caller) = caller {
            let status = soon("an end", caller.hello()).await.unwrap().unwrap_err();
            assert_eq!(error::detail(&status), None, "the handshake refuses, not the call");
        }
    }
}

#[tokio::test]
async fn only_methods_of_the_federation_api_are_reachable() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let beta = world.backend("beta.test").await;
    let alpha_identity = world.identity("alpha.test");
    let caller = caller(&world, &beta, &alpha_identity, "alpha.test").await;
    caller.hello().await.unwrap();
    for path in [
        "/aldis.internal.v1.Profiles/GetAccounts",
        "/aldis.federation.v1.Unknown/Get",
        "/aldis.federation.v1.Users/../Get",
        "/aldis.federation.v1.Users/Get/More",
        "/aldis.federation.v1.Users/Get?x=1",
        "/aldis.federation.v1.Users/%2e%2e",
        "/aldis.federation.v1.Assets/Fetch",
        "/",
    ] {
        let status = raw(&caller, http::Method::POST, path, "application/grpc").await.unwrap();
        assert_eq!(status, Err(Code::Unimplemented), "{path}");
    }
    let get = raw(&caller, http::Method::GET, "/aldis.federation.v1.Users/Get", "application/grpc").await.unwrap();
    assert_eq!(get, Ok(http::StatusCode::METHOD_NOT_ALLOWED));
    let json = raw(&caller, http::Method::POST, "/aldis.federation.v1.Users/Get", "application/json").await.unwrap();
    assert_eq!(json, Ok(http::StatusCode::UNSUPPORTED_MEDIA_TYPE));
    assert!(beta.echo.seen().is_empty());
    drop(alpha);
}

/// The gRPC code of the answer, or else the HTTP status.
async fn raw(caller: &Caller, method: http::Method, path: &str, kind: &str) -> Result<Result<http::StatusCode, Code>> {
    use tower_service::Service as _;
    let mut channel = caller.channel();
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .header("aldis-origin-domain", "alpha.test")
        .body(tonic::body::Body::empty())?;
    let response = channel.call(request).await?;
    Ok(match response.headers().get("grpc-status") {
        Some(code) => Err(Code::from_bytes(code.as_bytes())),
        None => Ok(response.status()),
    })
}

fn key_of(identity: &Identity) -> String {
    let chain = identity.chain();
    hex::encode(Sha256::digest(ParsedCertificate::try_from(&chain[0]).unwrap().subject_public_key_info()))
}

fn pinned(mut config: Config, peer: &str, pin: Pin) -> Config {
    config.pins.insert(domain(peer), pin);
    config
}

#[tokio::test]
async fn a_pinned_key_decides_both_ways() {
    let world = World::new().await;
    let (alpha_identity, beta_identity) = (world.identity("alpha.test"), world.identity("beta.test"));
    let right = |identity: &Identity| Pin { spki_sha256: vec![key_of(identity)], ..Pin::default() };
    let config = pinned(world.config(&alpha_identity), "beta.test", right(&beta_identity));
    let alpha = world.backend_with("alpha.test", config).await;
    let config = pinned(world.config(&beta_identity), "alpha.test", right(&alpha_identity));
    let beta = world.backend_with("beta.test", config).await;
    // A pin proves without DNS.
    world.point("alpha.test", &[]);
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    assert_eq!(beta.echo.seen()[0].origin, Some(domain("alpha.test")));
    // Another certificate of the same name and authority is not enough.
    let twin = world.identity("alpha.test");
    let status = caller(&world, &beta, &twin, "alpha.test").await.hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::Unauthenticated, "authentication-failure"));
    let twin = world.backend_with("beta.test", world.config(&world.identity("beta.test"))).await;
    let other = pinned(world.config(&alpha_identity), "beta.test", right(&beta_identity));
    let alpha = Backend::start("alpha.test", other, None).await;
    let answer = alpha.call("beta.test", "Echo").await;
    assert_eq!(Backend::label(&answer, "beta.test"), (525, "federation-tls-error"));
    drop(twin);
}

#[tokio::test]
async fn pinned_names_and_authorities_hold_for_one_peer_alone() {
    let world = World::new().await;
    let partner = Authority::new("partner").unwrap();
    let beta_identity = partner.issue(&["edge.partner.test"]).unwrap();
    let alpha_pin =
        Pin { names: vec!["edge.partner.test".to_owned()], ca_file: Some(world.file(partner.pem())), ..Pin::default() };
    let config = pinned(world.config(&world.identity("alpha.test")), "beta.test", alpha_pin);
    let alpha = world.backend_with("alpha.test", config).await;
    let beta = world.backend_with("beta.test", world.config(&beta_identity)).await;
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    assert_eq!(beta.echo.seen().len(), 1);
    // The partner's authority may speak for its own domain ...
    let connect = |origin| {
        Caller::connect(alpha.address(), "federator.alpha.test", &world.authority, Some(&beta_identity), Some(origin))
    };
    assert!(connect("beta.test").await.unwrap().hello().await.is_ok());
    // ... and for no other, whatever names it issues.
    world.dns.set_federator("gamma.test", &[super::support::dns::Target::new("edge.partner.test", 1)]).unwrap();
    let status = connect("gamma.test").await.unwrap().hello().await.unwrap_err();
    assert_eq!(label(&status), refused(Code::Unauthenticated, "authentication-failure"));
    world.dns.set_federator("gamma.test", &[super::support::dns::Target::new("edge.partner.test", beta.port)]).unwrap();
    assert_eq!(alpha.call("gamma.test", "Echo").await.label(), "federation-tls-error");
}

#[tokio::test]
async fn new_certificates_and_authorities_come_into_force_without_a_restart() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let beta = world.backend_with("beta.test", world.config(&world.identity("wrong.test"))).await;
    assert_eq!(alpha.call("beta.test", "Echo").await.label(), "federation-tls-error");
    // A certificate that does not fit its key is not used.
    let right = world.identity("beta.test");
    std::fs::write(&beta.config.certificate_file, &right.certificate_pem).unwrap();
    std::fs::write(&beta.config.key_file, &right.key_pem).unwrap();
    eventually("the new certificate", async || {
        ensure!(alpha.call("beta.test", "Echo").await.is_ok());
        Ok(())
    })
    .await
    .unwrap();
    // What cannot be used changes nothing.
    std::fs::write(&beta.config.certificate_file, "no certificate").unwrap();
    let since = std::time::Instant::now();
    while since.elapsed() < std::time::Duration::from_millis(2_500) {
        assert!(alpha.call("beta.test", "Echo").await.is_ok());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // Trust taken away ends what rests on it.
    std::fs::write(&beta.config.certificate_file, &right.certificate_pem).unwrap();
    std::fs::write(beta.config.ca_file.as_ref().unwrap(), Authority::new("other").unwrap().pem()).unwrap();
    eventually("the old authority to be forgotten", async || {
        let answer = alpha.call("beta.test", "Echo").await;
        ensure!(answer.label() == "federation-tls-error" || answer.inner() == "authentication-failure", "{answer:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn suspension_ends_open_streams_on_either_side() {
    let world = World::new().await;
    let (alpha, beta) = (world.backend("alpha.test").await, world.backend("beta.test").await);
    for (who, both) in [(&alpha, "beta.test"), (&beta, "alpha.test")] {
        let active = [(both, RemoteState::Active)];
        alpha.remotes(&[("beta.test", RemoteState::Active)]);
        beta.remotes(&[("alpha.test", RemoteState::Active)]);
        let mut stream = open(&alpha).await;
        stream.say("hello").await;
        assert_eq!(stream.hear().await, "hello");
        let hanging = alpha.call("beta.test", "Hang");
        tokio::pin!(hanging);
        tokio::select! {
            _ = &mut hanging => panic!("nobody answers"),
            running = eventually("both calls to run", async || { ensure!(beta.echo.running() == 2); Ok(()) }) => running.unwrap(),
        }

        who.remotes(&[(both, RemoteState::Suspended)]);
        let soon_enough = std::time::Duration::from_secs(2);
        let status = tokio::time::timeout(soon_enough, stream.end()).await.unwrap();
        let failure = aldis_peers::PeerError::from_status(&domain("beta.test"), &status);
        let answer = tokio::time::timeout(soon_enough, hanging).await.unwrap();
        if both == "beta.test" {
            assert!(failure.is_denied(), "{failure:?}");
            assert_eq!(answer.label(), "federation-denied");
        } else {
            assert_eq!(failure.inner().unwrap().0, "federation-denied");
            assert_eq!(answer.inner(), "federation-denied");
        }
        eventually("the service to be rid of them", async || {
            ensure!(beta.echo.running() == 0);
            Ok(())
        })
        .await
        .unwrap();
        who.remotes(&active);
        eventually("federation to go on", async || {
            ensure!(alpha.call("beta.test", "Echo").await.is_ok());
            Ok(())
        })
        .await
        .unwrap();
    }
}

async fn open(alpha: &Backend) -> super::world::Conversation {
    eventually("a stream", async || alpha.open("beta.test").await.map_err(|answer| anyhow::anyhow!("{answer:?}")))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_key_pinned_in_the_list_holds_in_both_directions_and_at_once() {
    let world = World::new().await;
    let (own, theirs) = (world.identity("alpha.test"), world.identity("beta.test"));
    let alpha = world.backend_with("alpha.test", world.config(&own)).await;
    let beta = world.backend_with("beta.test", world.config(&theirs)).await;
    alpha.pin("beta.test", &key_of(&theirs));
    beta.pin("alpha.test", &key_of(&own));
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    assert!(beta.call("alpha.test", "Echo").await.is_ok());
    let mut stream = open(&alpha).await;
    // Another key is pinned while the connections stand.
    alpha.pin("beta.test", &"00".repeat(32));
    soon("the end of the stream", stream.end()).await.unwrap();
    eventually("the pin", async || {
        let (called, heard) = (alpha.call("beta.test", "Echo").await, beta.call("alpha.test", "Echo").await);
        ensure!(called.label() == "federation-tls-error", "{called:?}");
        ensure!(heard.inner() == "authentication-failure", "{heard:?}");
        Ok(())
    })
    .await
    .unwrap();
    alpha.pin("beta.test", &key_of(&theirs));
    eventually("the right key", async || {
        ensure!(alpha.call("beta.test", "Echo").await.is_ok());
        ensure!(beta.call("alpha.test", "Echo").await.is_ok());
        Ok(())
    })
    .await
    .unwrap();
}

//! Fuzz targets: what a peer's connection brings before anything is known of it.
//!
//! Run as tests with random input; `cargo bolero test -p aldis-federator <name>` lets a fuzzing engine search for longer.

use std::time::Duration;

use aldis_proto::federation::v1 as pb;
use bolero::check;
use http::{HeaderMap, HeaderValue};
use prost::Message;
use rustls_pki_types::CertificateDer;

use crate::{hello::Capabilities, identity::Shown, rpc::Rpc};

#[test]
fn method_paths() {
    check!().with_type::<(String, String, bool)>().for_each(|(service, method, prefixed)| {
        let prefix = if *prefixed { "/aldis.federation.v1." } else { "/" };
        let Ok(uri) = format!("{prefix}{service}/{method}").parse::<http::Uri>() else { return };
        if let Some(rpc) = Rpc::parse(&uri) {
            assert!(*prefixed);
            assert_eq!(uri.to_string(), format!("/aldis.federation.v1.{}/{}", rpc.service, rpc.method));
            assert!(rpc.method.len() <= 64 && !rpc.method.contains('/'));
        }
    });
}

#[test]
fn deadlines() {
    check!().with_type::<(u64, u8, Vec<u8>)>().for_each(|(digits, unit, bytes)| {
        for text in [format!("{digits}{}", char::from(*unit)).into_bytes(), bytes.clone()] {
            let Ok(value) = HeaderValue::from_bytes(&text) else { continue };
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(aldis_peers::GRPC_TIMEOUT), value)]);
            if let Some(timeout) = aldis_peers::timeout(&headers) {
                assert!(text.len() <= 9 && timeout <= Duration::from_secs(99_999_999 * 3_600));
            }
        }
    });
}

/// A certificate of any bytes, and a real one that is altered anywhere, is read or refused.
#[test]
fn certificates() {
    let real = rcgen::generate_simple_self_signed(vec!["federator.alpha.test".to_owned()]).unwrap().cert.der().to_vec();
    assert!(Shown::new(&[CertificateDer::from(real.clone())]).is_some());
    check!().with_type::<(Vec<(u16, u8)>, Vec<u8>)>().for_each(|(altered, bytes)| {
        let mut certificate = real.clone();
        for (place, byte) in altered {
            let place = usize::from(*place) % certificate.len();
            certificate[place] = *byte;
        }
        for der in [certificate, bytes.clone()] {
            let der = CertificateDer::from(der);
            let _ = Shown::new(std::slice::from_ref(&der));
            if let Ok(leaf) = rustls::server::ParsedCertificate::try_from(&der) {
                let name = rustls_pki_types::ServerName::try_from("federator.alpha.test").unwrap();
                let _ = rustls::client::verify_server_name(&leaf, &name);
            }
        }
    });
}

/// What a peer claims to be able to do is brought within its bounds.
#[test]
fn capabilities() {
    check!().with_type::<(String, Vec<u32>, Vec<u8>)>().for_each(|(build, numbers, bytes)| {
        let long: Vec<u32> = numbers.iter().copied().cycle().take(if numbers.is_empty() { 0 } else { 2_000 }).collect();
        let stated = pb::Capabilities {
            build: build.repeat(64),
            versions: long.clone(),
            users_kinds: long,
            ..Default::default()
        };
        let read = pb::Capabilities::decode(bytes.as_slice());
        for wire in [stated].into_iter().chain(read) {
            let own = Capabilities::from(wire);
            assert!(own.build.chars().count() <= 128 && !own.build.contains(char::is_control));
            assert!(own.versions.len() <= 1_024 && own.users_kinds.len() <= 1_024);
        }
    });
}

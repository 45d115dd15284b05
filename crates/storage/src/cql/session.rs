//! Connecting.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use scylla::{
    client::{
        Compression, PoolSize, execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder,
    },
    policies::{
        load_balancing::{DefaultPolicy, LoadBalancingPolicy},
        retry::DefaultRetryPolicy,
        speculative_execution::SimpleSpeculativeExecutionPolicy,
    },
};

use super::{CqlError, CqlOptions, CqlTls, Failure, statement::consistencies};
use crate::StoreError;

/// How often an idle connection is tried, and how long an answer may take, until it counts as broken.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long nodes may take to agree on a schema.
const SCHEMA_AGREEMENT: Duration = Duration::from_secs(60);

/// The profile of all statements but reads, which wait for one replica at a time.
fn profile(options: &CqlOptions) -> ExecutionProfile {
    let nodes: Arc<dyn LoadBalancingPolicy> = DefaultPolicy::builder()
        .prefer_datacenter(options.datacenter.clone())
        .permit_dc_failover(false)
        .token_aware(true)
        .build();
    let (consistency, serial) = consistencies(options.quorum);
    ExecutionProfile::builder()
        .consistency(consistency)
        .serial_consistency(Some(serial))
        .request_timeout(Some(options.request_timeout))
        .load_balancing_policy(nodes)
        .retry_policy(Arc::new(DefaultRetryPolicy::new()))
        .speculative_execution_policy(None)
        .build()
}

/// The profile of reads.
pub(super) fn reads(options: &CqlOptions) -> ExecutionProfile {
    let profile = profile(options);
    match options.ask_another_after {
        None => profile,
        Some(retry_interval) => profile
            .to_builder()
            .speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
                max_retry_count: 1,
                retry_interval,
            })))
            .build(),
    }
}

pub(super) async fn connect(options: &CqlOptions) -> Result<Session, StoreError> {
    options.check()?;
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.addresses)
        .connection_timeout(options.connect_timeout)
        .hostname_resolution_timeout(Some(options.connect_timeout))
        .default_execution_profile_handle(profile(options).into_handle())
        .compression(Some(Compression::Lz4))
        .pool_size(PoolSize::PerShard(NonZeroUsize::MIN))
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .schema_agreement_timeout(SCHEMA_AGREEMENT)
        .fetch_schema_metadata(false);
    if let Some((user, password)) = &options.credentials {
        builder = builder.user(user, password);
    }
    if let Some(tls) = &options.tls {
        builder = builder.tls_context(Some(Arc::new(self::tls(tls)?)));
    }
    let session = builder.build().await;
    Ok(session.map_err(|error| CqlError::new("connect", Failure::Unavailable, error))?)
}

fn tls(files: &CqlTls) -> Result<ClientConfig, StoreError> {
    let invalid = |error: String| StoreError::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, error));
    let certificates = |file| -> Result<Vec<_>, StoreError> {
        let all = CertificateDer::pem_file_iter(file).map_err(|error| invalid(error.to_string()))?;
        all.collect::<Result<_, _>>().map_err(|error| invalid(error.to_string()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca_file)? {
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    match &files.identity {
        None => Ok(config.with_no_client_auth()),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| invalid(error.to_string()))?;
            config.with_client_auth_cert(certificates(certificate)?, key).map_err(|error| invalid(error.to_string()))
        }
    }
}

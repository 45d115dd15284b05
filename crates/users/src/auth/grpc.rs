//! `aldis.internal.v1.Auth`.

use std::sync::Arc;

use aldis_api::{TokenVerifier, auth::AuthState};
use aldis_proto::{
    convert::bytes_of,
    internal::v1::{
        AuthSnapshot, WatchAuthRequest,
        auth_server::{Auth as AuthService, AuthServer},
        auth_snapshot::{ClientRevocation, FamilyRevocation, Key, UserRevocation},
    },
};
use aldis_types::UserId;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{revocations::Published, store::Revoked};
use crate::beats;

/// Streams keys and revocations.
pub(crate) struct AuthGrpc(pub(crate) watch::Receiver<Arc<Published>>);

impl AuthGrpc {
    pub(crate) fn server(self) -> AuthServer<Self> {
        AuthServer::new(self)
    }
}

fn user_bytes(user: UserId) -> bytes::Bytes {
    bytes_of(user)
}

fn snapshot(published: &Arc<Published>) -> AuthSnapshot {
    let mut snapshot = AuthSnapshot {
        keys: published
            .keys
            .iter()
            .map(|(index, key)| Key { index: *index, public_key: key.to_vec().into() })
            .collect(),
        version: published.version,
        ..AuthSnapshot::default()
    };
    for revocation in &published.revocations {
        let user = user_bytes(revocation.user);
        match revocation.what {
            Revoked::Client(client) => snapshot.clients.push(ClientRevocation { user, client: client.0 }),
            Revoked::Family(family) => snapshot.families.push(FamilyRevocation { user, family }),
            Revoked::Everything { except } => {
                let until = revocation.refused_until();
                let revocation = UserRevocation { user, refuse_expiring_until: until, except_family: except };
                snapshot.users.push(revocation);
            }
        }
    }
    snapshot
}

/// Keeps this process's own verifier up to date for as long as it is polled; the first update is done when it returns
/// from its first poll.
pub(crate) async fn feed(verifier: TokenVerifier, mut published: watch::Receiver<Arc<Published>>) {
    loop {
        let state = AuthState::from_snapshot(&snapshot(&published.borrow_and_update()));
        verifier.update(state);
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// Puts what is published now into a verifier.
pub(crate) fn feed_once(verifier: &TokenVerifier, published: &watch::Receiver<Arc<Published>>) {
    verifier.update(AuthState::from_snapshot(&snapshot(&published.borrow())));
}

#[tonic::async_trait]
impl AuthService for AuthGrpc {
    type WatchStream = BoxStream<'static, Result<AuthSnapshot, Status>>;

    #[tracing::instrument(name = "grpc.auth.watch", skip_all)]
    async fn watch(&self, _: Request<WatchAuthRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(beats::stream(self.0.clone(), snapshot)))
    }
}

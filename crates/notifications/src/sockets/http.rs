//! `/await`.

use aldis_api::{HttpError, Query, TokenVerifier, UserCaller};
use aldis_types::ClientId;
use axum::{extract::State, response::Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Mode, Sockets, error::SocketError, handshake::Handshake, serve::serve};

#[derive(Deserialize, JsonSchema)]
pub(crate) struct AwaitQuery {
    client: Option<ClientId>,
}

/// `GET /await`: a socket with what is new while it is open, in binary frames. 400 `malformed-request` for a broken
/// handshake, 401 without a valid token, 420 `too-many-requests` above the sockets of one user.
#[tracing::instrument(name = "http.sockets.await", skip_all, fields(user.id))]
pub(crate) async fn open(
    State(sockets): State<Sockets>,
    State(verifier): State<TokenVerifier>,
    caller: UserCaller,
    Query(query): Query<AwaitQuery>,
    handshake: Handshake,
) -> Result<Response, HttpError> {
    let socket = sockets.register(*caller, query.client, Mode::Frames)?;
    // A revocation that came between the check of the token and the registration found no socket to end.
    if verifier.state().revokes(&caller) {
        return Err(SocketError::Revoked.into());
    }
    Ok(handshake.accept(move |stream| serve(stream, socket)))
}

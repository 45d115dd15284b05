//! `/events`.

use aldis_api::{HttpError, Query, TokenVerifier, UserCaller, label};
use aldis_types::ClientId;
use axum::{extract::State, response::Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Consumers, serve::serve};
use crate::{
    activity::Activity,
    sockets::{Handshake, Mode, Sockets},
};

/// Longest marker.
const MAX_MARKER_BYTES: usize = 256;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct EventsQuery {
    client: Option<ClientId>,
    sync_marker: Option<String>,
}

/// `GET /vN/events`: a socket on which every event is sent until it is acknowledged. 400 `malformed-request` for a broken
/// handshake, 400 `bad-request` for a marker that is too long, 401 without a valid token, 404 `not-found` for a client
/// without the capability `consumable-notifications`, 420 `too-many-requests` above the sockets of one user.
#[tracing::instrument(name = "http.consumers.events", skip_all, fields(user.id))]
pub(crate) async fn open(
    State(sockets): State<Sockets>,
    State(consumers): State<Consumers>,
    State(verifier): State<TokenVerifier>,
    State(activity): State<Activity>,
    caller: UserCaller,
    Query(query): Query<EventsQuery>,
    handshake: Handshake,
) -> Result<Response, HttpError> {
    if query.sync_marker.as_ref().is_some_and(|marker| marker.len() > MAX_MARKER_BYTES) {
        return Err(HttpError::with_message(label::BAD_REQUEST, "The marker is too long"));
    }
    // Present before the place in the queue is read, so that nothing can come unnoticed in between.
    let socket = sockets.register(*caller, query.client, Mode::News)?;
    // A revocation that came between the check of the token and the registration found no socket to end.
    if verifier.state().revokes(&caller) {
        return Err(label::INVALID_TOKEN_401.into());
    }
    let consumer = consumers.consumer(caller.user, query.client).await?;
    if let Some(client) = query.client {
        activity.heard_of(caller.user, client);
    }
    let marker = query.sync_marker.filter(|_| query.client.is_some());
    Ok(handshake.accept(move |stream| serve(stream, socket, consumer, marker)))
}

//! What other backends say of the wishes of their users, read and bounded.

use aldis_peers::{CallOptions, PeerError, Peers};
use aldis_proto::{
    convert::{InvalidWire, bytes_of, user_id},
    federation::v1::{ConnectionPair, ListConnectionsRequest, ListConnectionsResponse},
};
use aldis_types::{Domain, Timestamp, UserId};

use super::{MOST, Pair};
use crate::peers::UserPeers;

/// The other backend says that its user wants a connection, or that it can't say so now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement {
    /// When the user told us so.
    pub time: Timestamp,
    pub unsettled: bool,
}

/// Statements in ascending order of (their user, our user), and whether there are more.
pub(super) type Statements = (Vec<(Pair, Statement)>, bool);

/// Reads a pair of a user of the backend that is asked and one of the backend that asks.
pub(crate) fn read_pair(pair: &ConnectionPair) -> Result<(UserId, UserId), InvalidWire> {
    Ok((user_id(&pair.user)?, user_id(&pair.other)?))
}

/// The same for the wire.
pub(crate) fn write_pair((user, other): (UserId, UserId)) -> ConnectionPair {
    ConnectionPair { user: bytes_of(user), other: bytes_of(other) }
}

impl UserPeers {
    /// A page of what users of `domain` want of ours, after a pair. One that is followed by more is not empty. With
    /// `compare_too` the other backend is asked to compare its rows as well.
    #[tracing::instrument(name = "peer.list_connections", skip_all, fields(peer.domain = %domain))]
    pub(super) async fn list_connections(
        &self,
        domain: &Domain,
        after: Option<Pair>,
        compare_too: bool,
    ) -> Result<Statements, PeerError> {
        let options = CallOptions::default();
        let message = ListConnectionsRequest { after: after.map(write_pair), compare_too };
        let request = Peers::request(domain, message, &options);
        let answer = Peers::finish(domain, &options, self.client().list_connections(request)).await?;
        read(&answer, after).map_err(|error| PeerError::invalid_answer(domain, error))
    }
}

pub(super) fn read(answer: &ListConnectionsResponse, after: Option<Pair>) -> Result<Statements, InvalidWire> {
    let invalid = InvalidWire("connections");
    if answer.connections.len() > MOST || (answer.more && answer.connections.is_empty()) {
        return Err(invalid);
    }
    let mut statements = Vec::with_capacity(answer.connections.len());
    for connection in &answer.connections {
        let pair = read_pair(connection.pair.as_ref().ok_or(InvalidWire("pair"))?)?;
        let time = Timestamp::from_millis(connection.time);
        statements.push((pair, Statement { time, unsettled: connection.unsettled }));
    }
    let pairs = statements.iter().map(|(pair, _)| *pair);
    if !after.into_iter().chain(pairs).is_sorted_by(|a, b| a < b) {
        return Err(invalid);
    }
    Ok((statements, answer.more))
}

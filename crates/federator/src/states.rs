//! What our own services and the operator may know about peers.

use std::sync::Arc;

use aldis_proto::internal::v1::{ListPeersRequest, ListPeersResponse, PeerState, peer_states_server::PeerStates};
use tonic::{Request, Response, Status};

use crate::egress::{PeerView, Pool};

pub(crate) struct States(pub(crate) Arc<Pool>);

impl From<PeerView> for PeerState {
    fn from(peer: PeerView) -> Self {
        let (last_error_time, last_error) = peer.last_error.unwrap_or_default();
        Self {
            domain: peer.domain.as_str().to_owned(),
            connected: peer.connected_since.is_some(),
            connected_since: peer.connected_since.map_or(0, aldis_types::Timestamp::millis),
            last_error_time: last_error_time.millis(),
            last_error: last_error.to_owned(),
            breaker: peer.breaker.to_owned(),
            build: peer.capabilities.as_ref().map(|capabilities| capabilities.build.clone()).unwrap_or_default(),
            reachable: peer.reachable.map(|(reachable, _)| reachable),
            reachable_since: peer.reachable.map_or(0, |(_, since)| since.millis()),
            latency_micros: peer.latency.map(|latency| u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)),
            last_answer: peer.answered.map_or(0, aldis_types::Timestamp::millis),
            certificate_expiry: peer.certificate_expiry.map_or(0, aldis_types::Timestamp::millis),
            capabilities: peer.capabilities.as_ref().map(Into::into),
        }
    }
}

#[tonic::async_trait]
impl PeerStates for States {
    async fn list_peers(&self, request: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        let only = request.into_inner().domain;
        let wanted = |peer: &PeerView| only.is_empty() || peer.domain.as_str() == only;
        let peers = self.0.states().into_iter().filter(wanted).map(Into::into).collect();
        Ok(Response::new(ListPeersResponse { peers }))
    }
}

//! `aldis.internal.v1.Connections`.

use aldis_api::status;
use aldis_proto::{
    convert::{InvalidWire, qualified_user, to_relation, user_id},
    internal::v1::{
        GetRelationsRequest, GetRelationsResponse,
        connections_server::{Connections as ConnectionsService, ConnectionsServer},
    },
};
use tonic::{Request, Response, Status};

use super::{ConnectionError, Connections};

const MAX_OTHERS: usize = 1000;

/// Relations for our own services.
pub(crate) struct ConnectionsGrpc(pub(crate) Connections);

impl ConnectionsGrpc {
    pub(crate) fn server(self) -> ConnectionsServer<Self> {
        ConnectionsServer::new(self)
    }
}

#[tonic::async_trait]
impl ConnectionsService for ConnectionsGrpc {
    #[tracing::instrument(name = "grpc.connections.get_relations", skip_all)]
    async fn get_relations(
        &self,
        request: Request<GetRelationsRequest>,
    ) -> Result<Response<GetRelationsResponse>, Status> {
        let request = request.into_inner();
        if request.others.len() > MAX_OTHERS {
            return Err(InvalidWire("others").into());
        }
        let user = user_id(&request.user)?;
        let others = request.others.iter().map(|other| qualified_user(Some(other))).collect::<Result<_, _>>()?;
        let relations = self.0.store().relations(user, others).await;
        let relations = relations.map_err(|error| status(&ConnectionError::from(error)))?;
        let relations = relations.into_iter().map(|relation| to_relation(relation).into()).collect();
        Ok(Response::new(GetRelationsResponse { relations }))
    }
}

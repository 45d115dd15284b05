//! What our own services ask: proto/internal/v1/conversations.proto.

use aldis_api::status;
use aldis_proto::{
    convert,
    internal::v1::{
        ApplyRelationRequest, ApplyRelationResponse, RemoveUserRequest, RemoveUserResponse,
        memberships_server::Memberships,
    },
};
use aldis_types::{ConnId, Timestamp};
use async_trait::async_trait;
use tonic::{Request, Response, Status};

use super::RelationChange;
use crate::app::App;

/// The server of `Memberships`.
#[derive(Clone)]
pub(crate) struct MembershipsServer(pub App);

#[async_trait]
impl Memberships for MembershipsServer {
    #[tracing::instrument(name = "grpc.memberships.apply_relation", skip_all)]
    async fn apply_relation(
        &self,
        request: Request<ApplyRelationRequest>,
    ) -> Result<Response<ApplyRelationResponse>, Status> {
        let request = request.into_inner();
        let change = RelationChange {
            user: convert::user_id(&request.user)?,
            other: convert::qualified_user(request.other.as_ref())?,
            relation: convert::from_relation(request.relation())?,
            time: Timestamp::from_millis(request.time),
            connection: request.connection.map(ConnId),
            name: request.name,
        };
        self.0.apply_relation(&change).await.map_err(|error| status(&error))?;
        Ok(Response::new(ApplyRelationResponse {}))
    }

    #[tracing::instrument(name = "grpc.memberships.remove_user", skip_all)]
    async fn remove_user(&self, request: Request<RemoveUserRequest>) -> Result<Response<RemoveUserResponse>, Status> {
        let user = convert::user_id(&request.into_inner().user)?;
        self.0.remove_user(user).await.map_err(|error| status(&error))?;
        Ok(Response::new(RemoveUserResponse {}))
    }
}

//! What our own services ask about conversations: proto/internal/v1/conversations.proto.

use aldis_api::status;
use aldis_proto::{
    convert,
    internal::v1::{ListBackendsRequest, ListBackendsResponse, audiences_server::Audiences},
};
use async_trait::async_trait;
use tonic::{Request, Response, Status};

use super::error::GroupError;
use crate::app::App;

/// The server of `Audiences`.
#[derive(Clone)]
pub(crate) struct AudiencesServer(pub App);

#[async_trait]
impl Audiences for AudiencesServer {
    #[tracing::instrument(name = "grpc.audiences.list_backends", skip_all)]
    async fn list_backends(
        &self,
        request: Request<ListBackendsRequest>,
    ) -> Result<Response<ListBackendsResponse>, Status> {
        let request = request.into_inner();
        let user = convert::user_id(&request.user)?;
        let conversation = convert::qualified_conversation(request.conversation.as_ref())?;
        let backends = match self.0.backends_of(user, conversation).await {
            Ok(backends) => backends,
            Err(GroupError::NoConversation | GroupError::AccessDenied) => {
                return Err(Status::not_found("no such conversation of this user"));
            }
            Err(error) => return Err(status(&error)),
        };
        let domains = backends.iter().map(ToString::to_string).collect();
        Ok(Response::new(ListBackendsResponse { domains }))
    }
}

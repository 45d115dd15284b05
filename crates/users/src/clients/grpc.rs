//! `aldis.internal.v1.Clients`.

use aldis_api::status;
use aldis_proto::{
    convert::{InvalidWire, to_clients, user_id, user_ids},
    internal::v1::{
        ListClientsRequest, ListClientsResponse, NoteActiveRequest, NoteActiveResponse,
        clients_server::{Clients as ClientsService, ClientsServer},
    },
};
use aldis_types::ClientId;
use tonic::{Request, Response, Status};

use super::Clients;

const MAX_USERS: usize = 1000;

/// Clients for our own services.
pub(crate) struct ClientsGrpc(pub(crate) Clients);

impl ClientsGrpc {
    pub(crate) fn server(self) -> ClientsServer<Self> {
        ClientsServer::new(self)
    }
}

#[tonic::async_trait]
impl ClientsService for ClientsGrpc {
    #[tracing::instrument(name = "grpc.clients.list_clients", level = "debug", skip_all)]
    async fn list_clients(
        &self,
        request: Request<ListClientsRequest>,
    ) -> Result<Response<ListClientsResponse>, Status> {
        let users = user_ids(&request.into_inner().users, MAX_USERS)?;
        let clients = self.0.list_local(&users).await.map_err(|error| status(&error))?;
        Ok(Response::new(ListClientsResponse { users: clients.iter().map(to_clients).collect() }))
    }

    #[tracing::instrument(name = "grpc.clients.note_active", level = "debug", skip_all)]
    async fn note_active(&self, request: Request<NoteActiveRequest>) -> Result<Response<NoteActiveResponse>, Status> {
        let clients = request.into_inner().clients;
        if clients.len() > MAX_USERS {
            return Err(Status::invalid_argument("too many clients"));
        }
        let clients = clients.iter().map(|client| Ok((user_id(&client.user)?, ClientId(client.client))));
        let clients = clients.collect::<Result<_, InvalidWire>>()?;
        self.0.note_active(clients).await.map_err(|error| status(&error))?;
        Ok(Response::new(NoteActiveResponse {}))
    }
}

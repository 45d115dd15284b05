//! `aldis.internal.v1.Profiles`.

use aldis_api::status;
use aldis_proto::{
    convert::{bytes_of, user_ids},
    internal::v1::{
        Account as AccountMessage, GetAccountsRequest, GetAccountsResponse,
        profiles_server::{Profiles, ProfilesServer},
    },
};
use tonic::{Request, Response, Status};

use super::Accounts;

const MAX_ACCOUNTS: usize = 1000;

/// Accounts for our own services.
pub(crate) struct ProfilesGrpc(pub(crate) Accounts);

impl ProfilesGrpc {
    pub(crate) fn server(self) -> ProfilesServer<Self> {
        ProfilesServer::new(self)
    }
}

#[tonic::async_trait]
impl Profiles for ProfilesGrpc {
    #[tracing::instrument(name = "grpc.accounts.get_accounts", skip_all)]
    async fn get_accounts(
        &self,
        request: Request<GetAccountsRequest>,
    ) -> Result<Response<GetAccountsResponse>, Status> {
        let users = user_ids(&request.into_inner().users, MAX_ACCOUNTS)?;
        let accounts = self.0.accounts(users).await.map_err(|error| status(&error))?;
        let accounts = accounts
            .into_iter()
            .map(|account| AccountMessage {
                id: bytes_of(account.id),
                name: account.name.as_str().to_owned(),
                activated: account.is_activated(),
                deleted: account.deleted,
                suspended: account.suspended,
            })
            .collect();
        Ok(Response::new(GetAccountsResponse { accounts }))
    }
}

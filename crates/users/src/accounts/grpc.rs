//! `aldis.internal.v1.Profiles` and `aldis.internal.v1.UserAdmin`.

use aldis_api::status;
use aldis_proto::{
    convert::{bytes_of, user_ids},
    internal::v1::{
        Account as AccountMessage, CreateUserRequest, CreateUserResponse, GetAccountsRequest, GetAccountsResponse,
        profiles_server::{Profiles, ProfilesServer},
        user_admin_server::{UserAdmin, UserAdminServer},
    },
};
use aldis_types::Domain;
use tonic::{Request, Response, Status};

use super::{AccountError, Accounts};
use crate::auth::passwords::Password;

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

/// Accounts for the administrator.
pub(crate) struct UserAdminGrpc {
    pub(crate) accounts: Accounts,
    pub(crate) domain: Domain,
}

impl UserAdminGrpc {
    pub(crate) fn server(self) -> UserAdminServer<Self> {
        UserAdminServer::new(self)
    }
}

#[tonic::async_trait]
impl UserAdmin for UserAdminGrpc {
    #[tracing::instrument(name = "grpc.accounts.create_user", skip_all)]
    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<CreateUserResponse>, Status> {
        let request = request.into_inner();
        let email = request.email.parse().map_err(|error| invalid("e-mail", error))?;
        let name = request.name.parse().map_err(|error| invalid("name", error))?;
        let handle =
            request.handle.map(|handle| handle.parse()).transpose().map_err(|error| invalid("handle", error))?;
        let password = Password::new(request.password)
            .ok_or_else(|| Status::invalid_argument("a password has at most 1024 characters"))?;
        let account = self.accounts.create_by_admin(email, password, name, handle).await;
        let account = account.map_err(|error| match error {
            AccountError::EmailTaken => Status::already_exists("the e-mail address is in use"),
            AccountError::HandleTaken => Status::already_exists("the handle is taken"),
            AccountError::Invalid(what) => Status::invalid_argument(what),
            other => status(&other),
        })?;
        let response = CreateUserResponse { id: bytes_of(account.id), domain: self.domain.as_str().to_owned() };
        Ok(Response::new(response))
    }
}

fn invalid(what: &str, error: aldis_types::InvalidValue) -> Status {
    Status::invalid_argument(format!("{what}: {error}"))
}

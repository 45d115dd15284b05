//! `aldis.internal.v1.UserAdmin`, `KeyAdmin` and `AuditLog`.

use aldis_api::status;
use aldis_proto::{
    convert::{bytes_of, user_id},
    internal::v1::{
        AccountState as StateMessage, AuditRecord as RecordMessage, CreateUserRequest, CreateUserResponse,
        DeleteUserRequest, DeleteUserResponse, ListKeysRequest, ListKeysResponse, ListRecordsRequest,
        ListRecordsResponse, ListUsersRequest, ListUsersResponse, LogOutUserRequest, LogOutUserResponse,
        ResetPasswordRequest, ResetPasswordResponse, ResumeUserRequest, ResumeUserResponse, RotateKeyRequest,
        RotateKeyResponse, ShowUserRequest, ShowUserResponse, SuspendUserRequest, SuspendUserResponse, TokenKeyRecord,
        UserRecord, UserReference,
        audit_log_server::{AuditLog, AuditLogServer},
        key_admin_server::{KeyAdmin, KeyAdminServer},
        show_user_response::Client as ClientMessage,
        user_admin_server::{UserAdmin, UserAdminServer},
        user_reference::Who,
    },
};
use aldis_types::{Domain, InvalidValue, Timestamp};
use serde::Serialize;
use tonic::{Request, Response, Status};

use super::{
    AdminError, Administration, KeyState, Reference,
    store::{AccountRecord, AccountState},
};
use crate::{
    accounts::{AccountError, Accounts},
    audit::Administrator,
    auth::passwords::Password,
    clients::Client,
};

/// Accounts for the administrator.
pub(crate) struct UserAdminGrpc {
    pub(crate) administration: Administration,
    pub(crate) accounts: Accounts,
    pub(crate) domain: Domain,
}

impl UserAdminGrpc {
    pub(crate) fn server(self) -> UserAdminServer<Self> {
        UserAdminServer::new(self)
    }
}

fn invalid(what: &str, error: InvalidValue) -> Status {
    Status::invalid_argument(format!("{what}: {error}"))
}

fn refused(error: AdminError) -> Status {
    status(&error)
}

fn reference(who: Option<UserReference>) -> Result<Reference, Status> {
    match who.and_then(|user| user.who) {
        Some(Who::Id(id)) => Ok(Reference::Id(user_id(&id)?)),
        Some(Who::Handle(handle)) => handle.parse().map(Reference::Handle).map_err(|error| invalid("handle", error)),
        Some(Who::Email(email)) => email.parse().map(Reference::Email).map_err(|error| invalid("e-mail", error)),
        None => Err(Status::invalid_argument("no account is named")),
    }
}

fn password(text: String) -> Result<Password, Status> {
    Password::new(text).ok_or_else(|| Status::invalid_argument("a password has at most 1024 characters"))
}

fn state(message: StateMessage) -> Option<AccountState> {
    match message {
        StateMessage::Unspecified => None,
        StateMessage::Active => Some(AccountState::Active),
        StateMessage::Pending => Some(AccountState::Pending),
        StateMessage::Suspended => Some(AccountState::Suspended),
        StateMessage::Deleted => Some(AccountState::Deleted),
    }
}

fn user_record(record: &AccountRecord) -> UserRecord {
    let state = match record.state() {
        AccountState::Active => StateMessage::Active,
        AccountState::Pending => StateMessage::Pending,
        AccountState::Suspended => StateMessage::Suspended,
        AccountState::Deleted => StateMessage::Deleted,
    };
    let account = &record.account;
    UserRecord {
        id: bytes_of(account.id),
        name: account.name.as_str().to_owned(),
        handle: account.handle.as_ref().map(|handle| handle.as_str().to_owned()),
        email: account.email.as_ref().map(|email| email.as_str().to_owned()),
        unverified_email: account.unverified_email.as_ref().map(|email| email.as_str().to_owned()),
        state: state.into(),
        created: record.created.millis(),
    }
}

/// The text of an enum's value in the client API.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

fn client_record(client: Client) -> ClientMessage {
    ClientMessage {
        id: client.id.0,
        r#type: word(&client.kind),
        class: client.class.as_ref().map(word),
        label: client.label,
        model: client.model,
        created: client.created.millis(),
    }
}

#[tonic::async_trait]
impl UserAdmin for UserAdminGrpc {
    #[tracing::instrument(name = "grpc.administration.create_user", skip_all)]
    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<CreateUserResponse>, Status> {
        let by = Administrator::of(&request);
        let request = request.into_inner();
        let email = request.email.parse().map_err(|error| invalid("e-mail", error))?;
        let name = request.name.parse().map_err(|error| invalid("name", error))?;
        let handle =
            request.handle.map(|handle| handle.parse()).transpose().map_err(|error| invalid("handle", error))?;
        let password = password(request.password)?;
        let account = self.accounts.create_by_admin(&by, email, password, name, handle).await;
        let not_created = || by.does("account-created", "none");
        let account = match account {
            Ok(account) => account,
            Err(AccountError::EmailTaken) => {
                self.administration.refused(not_created(), "email-taken").await;
                return Err(Status::already_exists("the e-mail address is in use"));
            }
            Err(AccountError::HandleTaken) => {
                self.administration.refused(not_created(), "handle-taken").await;
                return Err(Status::already_exists("the handle is taken"));
            }
            Err(AccountError::Invalid(what)) => return Err(Status::invalid_argument(what)),
            Err(other) => return Err(status(&other)),
        };
        let response = CreateUserResponse { id: bytes_of(account.id), domain: self.domain.as_str().to_owned() };
        Ok(Response::new(response))
    }

    #[tracing::instrument(name = "grpc.administration.list_users", skip_all)]
    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let request = request.into_inner();
        let after = if request.after.is_empty() { None } else { Some(user_id(&request.after)?) };
        let found = self.administration.list(after, state(request.state()), request.limit).await;
        let (found, more) = found.map_err(refused)?;
        Ok(Response::new(ListUsersResponse { users: found.iter().map(user_record).collect(), more }))
    }

    #[tracing::instrument(name = "grpc.administration.show_user", skip_all)]
    async fn show_user(&self, request: Request<ShowUserRequest>) -> Result<Response<ShowUserResponse>, Status> {
        let details = self.administration.show(reference(request.into_inner().user)?).await.map_err(refused)?;
        Ok(Response::new(ShowUserResponse {
            user: Some(user_record(&details.record)),
            clients: details.clients.into_iter().map(client_record).collect(),
            sessions: u32::try_from(details.sessions).unwrap_or(u32::MAX),
        }))
    }

    #[tracing::instrument(name = "grpc.administration.suspend_user", skip_all)]
    async fn suspend_user(
        &self,
        request: Request<SuspendUserRequest>,
    ) -> Result<Response<SuspendUserResponse>, Status> {
        let by = Administrator::of(&request);
        let who = reference(request.into_inner().user)?;
        let user = self.administration.suspend(&by, who).await.map_err(refused)?;
        Ok(Response::new(SuspendUserResponse { id: bytes_of(user) }))
    }

    #[tracing::instrument(name = "grpc.administration.resume_user", skip_all)]
    async fn resume_user(&self, request: Request<ResumeUserRequest>) -> Result<Response<ResumeUserResponse>, Status> {
        let by = Administrator::of(&request);
        let who = reference(request.into_inner().user)?;
        let user = self.administration.resume(&by, who).await.map_err(refused)?;
        Ok(Response::new(ResumeUserResponse { id: bytes_of(user) }))
    }

    #[tracing::instrument(name = "grpc.administration.reset_password", skip_all)]
    async fn reset_password(
        &self,
        request: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        let by = Administrator::of(&request);
        let request = request.into_inner();
        let (who, password) = (reference(request.user)?, password(request.password)?);
        let user = self.administration.reset_password(&by, who, password).await.map_err(refused)?;
        Ok(Response::new(ResetPasswordResponse { id: bytes_of(user) }))
    }

    #[tracing::instrument(name = "grpc.administration.log_out_user", skip_all)]
    async fn log_out_user(&self, request: Request<LogOutUserRequest>) -> Result<Response<LogOutUserResponse>, Status> {
        let by = Administrator::of(&request);
        let who = reference(request.into_inner().user)?;
        let (user, sessions) = self.administration.log_out(&by, who).await.map_err(refused)?;
        let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
        Ok(Response::new(LogOutUserResponse { id: bytes_of(user), sessions }))
    }

    #[tracing::instrument(name = "grpc.administration.delete_user", skip_all)]
    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        let by = Administrator::of(&request);
        let who = reference(request.into_inner().user)?;
        let user = self.administration.delete(&by, who).await.map_err(refused)?;
        Ok(Response::new(DeleteUserResponse { id: bytes_of(user) }))
    }
}

/// Token keys for the administrator.
pub(crate) struct KeyAdminGrpc(pub(crate) Administration);

impl KeyAdminGrpc {
    pub(crate) fn server(self) -> KeyAdminServer<Self> {
        KeyAdminServer::new(self)
    }
}

fn key_record(key: &KeyState) -> TokenKeyRecord {
    let millis = |time: Option<Timestamp>| time.map_or(0, Timestamp::millis);
    TokenKeyRecord {
        position: key.position,
        created: key.created.millis(),
        retired: millis(key.retired),
        kept_until: millis(key.kept_until),
        signing: key.signing,
        public_key: key.public_key.to_vec().into(),
    }
}

#[tonic::async_trait]
impl KeyAdmin for KeyAdminGrpc {
    #[tracing::instrument(name = "grpc.administration.list_keys", skip_all)]
    async fn list_keys(&self, _: Request<ListKeysRequest>) -> Result<Response<ListKeysResponse>, Status> {
        Ok(Response::new(ListKeysResponse { keys: self.0.keys().iter().map(key_record).collect() }))
    }

    #[tracing::instrument(name = "grpc.administration.rotate_key", skip_all)]
    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Result<Response<RotateKeyResponse>, Status> {
        let key = self.0.rotate_key(&Administrator::of(&request)).await.map_err(refused)?;
        Ok(Response::new(RotateKeyResponse { key: Some(key_record(&key)) }))
    }
}

/// The audit log for the administrator.
pub(crate) struct AuditLogGrpc(pub(crate) Administration);

impl AuditLogGrpc {
    pub(crate) fn server(self) -> AuditLogServer<Self> {
        AuditLogServer::new(self)
    }
}

#[tonic::async_trait]
impl AuditLog for AuditLogGrpc {
    #[tracing::instrument(name = "grpc.administration.list_records", skip_all)]
    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let request = request.into_inner();
        let before = (request.before > 0).then_some(request.before);
        let subject = (!request.subject.is_empty()).then_some(request.subject);
        let records = self.0.records(before, subject, request.limit).await.map_err(refused)?;
        let records = records.into_iter().map(|record| RecordMessage {
            number: record.number,
            time: record.time.millis(),
            actor: record.actor,
            who: record.who,
            action: record.action,
            subject: record.subject,
            detail: record.detail,
            outcome: record.outcome,
        });
        Ok(Response::new(ListRecordsResponse { records: records.collect() }))
    }
}

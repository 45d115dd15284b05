use std::time::Duration;

use aldis_proto::{
    convert,
    internal::v1::{
        AccountState as StateMessage, AuditRecord, DeleteUserRequest, ListKeysRequest, ListRecordsRequest,
        ListUsersRequest, LogOutUserRequest, ResetPasswordRequest, ResumeUserRequest, RotateKeyRequest,
        ShowUserRequest, SuspendUserRequest, UserReference, WatchAuthRequest, audit_log_client::AuditLogClient,
        auth_client::AuthClient, key_admin_client::KeyAdminClient, user_admin_client::UserAdminClient,
        user_reference::Who,
    },
};
use aldis_types::{AccentId, Protocol, Timestamp, UserId};
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

use super::store::{SqliteAdministration, suite};
use crate::{
    accounts::{
        Locale, NewAccount,
        store::{AccountProof, AccountStore as _, FreshCode, SqliteAccounts},
    },
    audit::AuditEntry,
    auth::store::SqliteAuth,
    testing::{Backend, Network, PASSWORD, User, database_and_outbox, new_client},
};

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db, outbox) = database_and_outbox().await;
    let accounts = SqliteAccounts::new(db.clone(), outbox);
    let now = Timestamp::from_millis(1000);
    for number in [1, 2, 3] {
        let account = NewAccount {
            id: UserId::new(Uuid::from_u128(number)),
            name: "Somebody".parse().unwrap(),
            handle: None,
            email: format!("u{number}@example.com").parse().unwrap(),
            password: "a hash".to_owned(),
            locale: Locale::default(),
            accent_id: AccentId(1),
            assets: Vec::new(),
            protocols: vec![Protocol::Proteus],
        };
        let fresh = FreshCode { code: "1".to_owned(), now, expires: now, mail_expires: now };
        let proof = match number {
            2 => AccountProof::Pending { key: "k".to_owned(), fresh },
            _ => AccountProof::Administrator,
        };
        let audit = AuditEntry::new("client", "account-created", account.id);
        accounts.create(account, proof, audit, now).await.unwrap();
    }
    db.write(|tx| Ok(tx.execute("DELETE FROM users_audit", [])?)).await.unwrap();
    suite::all(&SqliteAdministration::new(db.clone()), &SqliteAuth::new(db)).await;
}

type Users = UserAdminClient<aldis_proto::channel::Channel>;

fn users(backend: &Backend) -> Users {
    UserAdminClient::new(backend.admin.clone())
}

fn by_id(user: &User) -> UserReference {
    UserReference { who: Some(Who::Id(convert::bytes_of(user.id))) }
}

async fn records(backend: &Backend, subject: &str) -> Vec<AuditRecord> {
    let request = ListRecordsRequest { before: 0, limit: 100, subject: subject.to_owned() };
    AuditLogClient::new(backend.admin.clone()).list_records(request).await.unwrap().into_inner().records
}

/// What was done about somebody, oldest first.
async fn actions(backend: &Backend, user: &User) -> Vec<(String, String)> {
    let records = records(backend, &user.id.to_string()).await;
    records.into_iter().rev().map(|record| (record.action, record.outcome)).collect()
}

async fn login(backend: &Backend, user: &User, password: &str) -> crate::testing::Answer {
    let body = json!({ "email": user.email, "password": password });
    backend.call("POST", "/login?persist=true", None, Some(body)).await
}

#[tokio::test]
async fn a_suspended_user_is_kept_out_and_comes_back() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let mut watch = AuthClient::new(backend.internal.clone()).watch(WatchAuthRequest {}).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().users.is_empty());
    let request = SuspendUserRequest { user: Some(by_id(&ann)) };
    users(&backend).suspend_user(request.clone()).await.unwrap();
    let told = watch.message().await.unwrap().unwrap();
    assert_eq!(told.users[0].user, ann.id.as_bytes().as_slice());
    while backend.get(&ann, "/self").await.status != 401 {
        tokio::task::yield_now().await;
    }
    login(&backend, &ann, PASSWORD).await.expect_label(403, "suspended");
    backend.access("/access", Some(&ann.cookie), None).await.expect_label(403, "suspended");
    users(&backend).suspend_user(request).await.unwrap();

    users(&backend).resume_user(ResumeUserRequest { user: Some(by_id(&ann)) }).await.unwrap();
    let renewed = backend.access("/access", Some(&ann.cookie), None).await.expect(200);
    let token = renewed["access_token"].as_str().unwrap().to_owned();
    backend.get(&User { token, ..ann.clone() }, "/self").await.expect(200);
    backend.get(&ann, "/self").await.expect(401);
    login(&backend, &ann, PASSWORD).await.expect(200);
    let done = |action: &str| (action.to_owned(), "done".to_owned());
    let expected = [done("account-created"), done("account-suspended"), done("account-resumed")];
    assert_eq!(actions(&backend, &ann).await, expected);
}

#[tokio::test]
async fn all_sessions_of_a_user_end_together() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let other = login(&backend, &ann, PASSWORD).await.cookie().unwrap();
    let ended = users(&backend).log_out_user(LogOutUserRequest { user: Some(by_id(&ann)) }).await.unwrap().into_inner();
    assert_eq!(ended.sessions, 2);
    for cookie in [&ann.cookie, &other] {
        backend.access("/access", Some(cookie), None).await.expect_label(403, "invalid-credentials");
    }
    while backend.get(&ann, "/self").await.status != 401 {
        tokio::task::yield_now().await;
    }
    // A login in the very same moment is a new session.
    let token = login(&backend, &ann, PASSWORD).await.expect(200)["access_token"].as_str().unwrap().to_owned();
    backend.get(&User { token, ..ann }, "/self").await.expect(200);
}

#[tokio::test]
async fn a_reset_password_replaces_the_old_one_and_ends_a_lock_out() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| config.limits.login_failures = 1).await;
    let ann = backend.register("Ann").await;
    login(&backend, &ann, "wrong").await.expect_label(403, "invalid-credentials");
    login(&backend, &ann, PASSWORD).await.expect_label(403, "client-error");
    let reset = |password: &str| ResetPasswordRequest { user: Some(by_id(&ann)), password: password.to_owned() };
    users(&backend).reset_password(reset("quite another")).await.unwrap();
    backend.access("/access", Some(&ann.cookie), None).await.expect_label(403, "invalid-credentials");
    login(&backend, &ann, "quite another").await.expect(200);
    login(&backend, &ann, PASSWORD).await.expect_label(403, "invalid-credentials");
    let short = users(&backend).reset_password(reset("short")).await.unwrap_err();
    assert_eq!(short.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn accounts_are_listed_and_shown_in_any_state() {
    let backend = Backend::alone().await;
    let ann = backend.register_with_handle("Ann", "ann").await;
    let bob = backend.register("Bob").await;
    backend.post(&ann, "/clients", new_client("permanent", "one", 1)).await.expect(201);
    users(&backend).suspend_user(SuspendUserRequest { user: Some(by_id(&bob)) }).await.unwrap();

    let mut admin = users(&backend);
    let mut list = async |after: &[u8], limit, state: StateMessage| {
        let request = ListUsersRequest { after: after.to_vec().into(), limit, state: state.into() };
        admin.list_users(request).await.map(tonic::Response::into_inner)
    };
    let first = list(&[], 1, StateMessage::Unspecified).await.unwrap();
    assert!(first.more && first.users.len() == 1);
    let second = list(&first.users[0].id, 10, StateMessage::Unspecified).await.unwrap();
    assert!(!second.more && second.users.len() == 1);
    let suspended = list(&[], 10, StateMessage::Suspended).await.unwrap().users;
    assert_eq!((suspended.len(), suspended[0].name.as_str()), (1, "Bob"));
    for (after, limit) in [(&b"short"[..], 1), (&[], 0), (&[], 1001)] {
        assert_eq!(list(after, limit, StateMessage::Unspecified).await.unwrap_err().code(), Code::InvalidArgument);
    }

    for who in [Who::Handle("ann".to_owned()), Who::Email(ann.email.clone()), Who::Id(convert::bytes_of(ann.id))] {
        let request = ShowUserRequest { user: Some(UserReference { who: Some(who) }) };
        let shown = users(&backend).show_user(request).await.unwrap().into_inner();
        let user = shown.user.unwrap();
        assert_eq!((user.state(), user.handle.as_deref()), (StateMessage::Active, Some("ann")));
        assert_eq!((shown.clients.len(), shown.sessions), (1, 1));
        assert_eq!(
            (shown.clients[0].r#type.as_str(), shown.clients[0].class.as_deref()),
            ("permanent", Some("desktop"))
        );
    }
    let wrong = [None, Some(Who::Handle("!".to_owned())), Some(Who::Id(b"short".to_vec().into()))];
    for who in wrong {
        let request = ShowUserRequest { user: Some(UserReference { who }) };
        assert_eq!(users(&backend).show_user(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_deleted_account_is_a_tombstone() {
    let backend = Backend::alone().await;
    let ann = backend.register_with_handle("Ann", "ann").await;
    let request = DeleteUserRequest { user: Some(by_id(&ann)) };
    users(&backend).delete_user(request.clone()).await.unwrap();
    login(&backend, &ann, PASSWORD).await.expect_label(403, "invalid-credentials");
    let shown = ShowUserRequest { user: Some(by_id(&ann)) };
    let shown = users(&backend).show_user(shown).await.unwrap().into_inner();
    assert_eq!((shown.user.unwrap().state(), shown.sessions), (StateMessage::Deleted, 0));
    assert_eq!(users(&backend).delete_user(request).await.unwrap_err().code(), Code::NotFound);
    let outcome = |outcome: &str| ("account-deleted".to_owned(), outcome.to_owned());
    assert_eq!(actions(&backend, &ann).await[1..], [outcome("done"), outcome("not-found")]);
}

#[tokio::test]
async fn what_is_refused_is_recorded_without_handles_and_addresses() {
    let backend = Backend::alone().await;
    let nobody = UserId::new(Uuid::from_u128(7));
    for who in [
        Who::Id(convert::bytes_of(nobody)),
        Who::Handle("secret.handle".to_owned()),
        Who::Email("secret@example.com".to_owned()),
    ] {
        let request = SuspendUserRequest { user: Some(UserReference { who: Some(who) }) };
        let refused = users(&backend).suspend_user(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert!(!refused.message().is_empty() && !refused.message().contains('\n'));
    }
    let records = records(&backend, "").await;
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.outcome == "not-found" && record.actor == "admin"));
    let subjects: Vec<_> = records.iter().map(|record| record.subject.as_str()).collect();
    assert_eq!(subjects, ["unknown", "unknown", &nobody.to_string()]);
    assert!(!format!("{records:?}").contains("secret"));
}

#[tokio::test]
async fn a_new_key_takes_over_and_nobody_is_logged_out() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let mut keys = KeyAdminClient::new(backend.admin.clone());
    let mut watch = AuthClient::new(backend.internal.clone()).watch(WatchAuthRequest {}).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().keys.len(), 1);
    let made = keys.rotate_key(RotateKeyRequest {}).await.unwrap().into_inner().key.unwrap();
    assert_eq!((made.position, made.signing, made.retired), (2, false, 0));
    assert_eq!(watch.message().await.unwrap().unwrap().keys.len(), 2, "told before it signs");
    let before = login(&backend, &ann, PASSWORD).await.expect(200);
    assert!(before["access_token"].as_str().unwrap().contains(".k=1."));
    backend.clock.advance(Duration::from_secs(2));
    let renewed = backend.access("/access", Some(&ann.cookie), None).await.expect(200);
    let token = renewed["access_token"].as_str().unwrap().to_owned();
    assert!(token.contains(".k=2."), "{token}");
    for token in [&token, &ann.token] {
        backend.get(&User { token: token.clone(), ..ann.clone() }, "/self").await.expect(200);
    }
    let listed = keys.list_keys(ListKeysRequest {}).await.unwrap().into_inner().keys;
    assert_eq!((listed[0].signing, listed[1].signing), (false, true));
    assert_eq!(listed[0].kept_until - listed[0].retired, 56 * 86_400_000 + 60_000);
    assert_eq!(records(&backend, "token-keys").await[0].action, "token-key-rotated");
}

#[tokio::test]
async fn audit_records_say_which_process_it_was() {
    use aldis_runtime::listen::LocalPeer;
    let mut request = tonic::Request::new(());
    request.extensions_mut().insert(LocalPeer { uid: 7, pid: Some(42) });
    let entry = crate::audit::Administrator::of(&request).does("something", "subject");
    assert_eq!((entry.actor, entry.who.as_str(), entry.outcome), ("admin", "uid 7, pid 42", "done"));
}

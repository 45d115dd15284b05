//! The end of an account: a tombstone stays, everything else goes, and everybody who has to know is told in the same
//! step.

use std::{sync::Arc, time::Duration};

use aldis_api::Session;
use aldis_proto::federation::v1::{UserDeleted, users_event::Change};
use aldis_types::{Qualified, UserId};

use super::{
    Lifecycle, LifecycleError, hash_of,
    store::{CodeProof, Confirmation, Deleted, Deletion, Departed, Requested},
};
use crate::{
    accounts::json::delete_event,
    audit::AuditEntry,
    auth::{passwords::Password, store::Revoked},
    connections,
    detached::detached,
    events::{self, Effects},
};

/// How long the own sockets of a deleted account may stay open, so that they are told why they are closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// What became of a wish to delete the own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeletionAsked {
    Done,
    /// It has to be confirmed by mail, within this time.
    Mailed(Duration),
}

impl Lifecycle {
    /// Deletes the own account: at once with the password, else after a confirmation by mail.
    pub(crate) async fn ask_for_deletion(
        &self,
        session: Session,
        password: Option<Password>,
    ) -> Result<DeletionAsked, LifecycleError> {
        let user = session.user;
        if let Some(password) = password {
            self.parts.auth.reauthenticate(user, Some(password)).await?;
            let audit = AuditEntry::new("client", "account-deleted", user);
            self.delete(user, None, Some(session), audit).await?;
            return Ok(DeletionAsked::Done);
        }
        let email = self.account(user).await?.email.ok_or(LifecycleError::MissingPassword)?;
        let fresh = self.fresh(user, Confirmation::Deletion, email);
        let now = fresh.now;
        let expires = fresh.expires;
        match self.parts.store.request(fresh).await? {
            Requested::Queued => {
                self.parts.mail.notify_one();
                Ok(DeletionAsked::Mailed(expires.since(now)))
            }
            Requested::Pending(expires) => Err(LifecycleError::PendingDeletion(expires.since(now))),
            Requested::NoAccount => Err(LifecycleError::NotFound),
        }
    }

    /// Deletes an account with the code that was mailed.
    pub(crate) async fn confirm_deletion(&self, user: UserId, code: &str) -> Result<(), LifecycleError> {
        let proof = CodeProof { hash: hash_of(code), failures: self.config.limits.code_failures };
        let audit = AuditEntry::new("client", "account-deleted", user);
        self.delete(user, Some(proof), None, audit).await
    }

    /// Deletes an account. With `proof` only when that holds; the socket of `session` is not told.
    pub(crate) async fn delete(
        &self,
        user: UserId,
        proof: Option<CodeProof>,
        session: Option<Session>,
        audit: AuditEntry,
    ) -> Result<(), LifecycleError> {
        let now = self.parts.clock.now();
        let revocation = self.parts.auth.revocation(user, Revoked::EVERYTHING);
        let deletion = Deletion {
            user: Qualified::new(user, self.parts.domain.clone()),
            proof,
            revocation,
            audit,
            now,
            effects: self.effects(session),
        };
        let parts = self.parts.clone();
        detached(async move {
            let outcome = parts.store.delete(deletion).await;
            parts.clients.changed(user);
            match outcome? {
                Deleted::Done(delivery) => {
                    // The own clients hear of it while their sockets are open.
                    delivery.local(FAREWELL).await;
                    parts.auth.revocations().add(revocation, now);
                    Ok(())
                }
                Deleted::WrongCode => Err(LifecycleError::WrongDeletionCode),
                Deleted::NoAccount => Err(LifecycleError::NotFound),
            }
        })
        .await
    }

    /// The own clients and the contacts here are told, our conversations service takes the user out of every
    /// conversation, other backends end the connections on their side, and at last the queues go.
    fn effects(&self, session: Option<Session>) -> Effects<Departed> {
        let domain = self.parts.domain.clone();
        Arc::new(move |departed: &Departed| {
            let (gone, time) = (&departed.user, departed.now);
            let mut effects = vec![
                events::to_users(gone.id, &[gone.id], &delete_event(gone), session.as_ref()),
                events::remove_user(gone.id, time),
            ];
            effects.extend(connections::events::of_departure(gone, &departed.here, &domain, time));
            effects.extend(
                departed
                    .elsewhere
                    .iter()
                    .map(|domain| events::to_backend(domain, gone.id, time, Change::UserDeleted(UserDeleted {}))),
            );
            effects.push(events::remove_queues(gone.id));
            effects
        })
    }
}

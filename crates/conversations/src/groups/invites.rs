//! Who may be added by whom: connections on both sides, and backends that all reach and federate with each other.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aldis_peers::FAN_OUT;
use aldis_types::{Domain, Qualified, UserId};
use futures::{StreamExt, stream};

use super::error::{GroupError, Unreachable};
use crate::{app::App, backends::InviteAnswer};

/// Users that cannot be added.
pub(crate) type RefusedUsers = BTreeSet<Qualified<UserId>>;

/// Whom a backend is asked about.
type Questions = BTreeMap<Domain, Vec<UserId>>;

impl App {
    /// Checks that a user of ours may add these users: he is connected with all of them, and ours with him.
    pub(crate) async fn check_connected(
        &self,
        inviter: &Qualified<UserId>,
        invitees: &[Qualified<UserId>],
    ) -> Result<(), GroupError> {
        if invitees.is_empty() {
            return Ok(());
        }
        if !self.users.connected_with_all(inviter.id, invitees).await? {
            return Err(GroupError::NotConnected);
        }
        let local = self.local_users(invitees);
        let connected = self.users.connected(&local, inviter).await?;
        if connected.len() < local.len() { Err(GroupError::NotConnected) } else { Ok(()) }
    }

    fn local_users(&self, users: &[Qualified<UserId>]) -> BTreeSet<UserId> {
        users.iter().filter(|user| user.domain == self.domain).map(|user| user.id).collect()
    }

    /// Checks users that are about to be added to a conversation of ours in which `present` backends take part, and says
    /// which of them their own backends refuse.
    ///
    /// A backend that is new to the conversation makes every backend be asked, so that all of them federate pairwise;
    /// otherwise only those of the added users are. The inviter's own backend vouches for its own users.
    pub(crate) async fn screen(
        &self,
        inviter: &Qualified<UserId>,
        invitees: &[Qualified<UserId>],
        present: &BTreeSet<Domain>,
    ) -> Result<RefusedUsers, GroupError> {
        let mut refused = RefusedUsers::new();
        if inviter.domain == self.domain {
            self.check_connected(inviter, invitees).await?;
        } else {
            let local = self.local_users(invitees);
            let connected = self.users.connected(&local, inviter).await?;
            let others = local.into_iter().filter(|user| !connected.contains(user));
            refused.extend(others.map(|user| self.own_user(user)));
        }
        let (questions, others) = self.questions(inviter, invitees, present)?;
        let answers = self.ask_backends(inviter, &questions, &others).await?;
        for (domain, answer) in answers {
            if let Some(other) = answer.non_federating {
                return Err(GroupError::NonFederating(domain, other));
            }
            refused.extend(answer.refused.into_iter().map(|user| Qualified::new(user, domain.clone())));
        }
        Ok(refused)
    }

    /// Which backends are asked about whom, and about which other backends.
    fn questions(
        &self,
        inviter: &Qualified<UserId>,
        invitees: &[Qualified<UserId>],
        present: &BTreeSet<Domain>,
    ) -> Result<(Questions, BTreeSet<Domain>), GroupError> {
        let mut questions = Questions::new();
        for user in invitees.iter().filter(|user| user.domain != self.domain) {
            questions.entry(user.domain.clone()).or_default().push(user.id);
        }
        if let Some(denied) = questions.keys().find(|domain| !self.policy.allows(domain)) {
            return Err(GroupError::Denied(denied.clone()));
        }
        if questions.contains_key(&inviter.domain) {
            questions.insert(inviter.domain.clone(), Vec::new());
        }
        let mut others = BTreeSet::new();
        if questions.keys().any(|domain| !present.contains(domain)) {
            for domain in present {
                questions.entry(domain.clone()).or_default();
            }
            others.extend(questions.keys().cloned());
        } else {
            questions.retain(|_, users| !users.is_empty());
        }
        Ok((questions, others))
    }

    /// Asks all backends at the same time; those that do not answer are unreachable, and denied when that is the reason. That
    /// we have asked one too much is told as it is.
    async fn ask_backends(
        &self,
        inviter: &Qualified<UserId>,
        questions: &Questions,
        others: &BTreeSet<Domain>,
    ) -> Result<Vec<(Domain, InviteAnswer)>, GroupError> {
        let asked = stream::iter(questions.clone())
            .map(|(domain, users)| async move {
                let answer = self.backends.check_invite(&domain, inviter, &users, others).await;
                (domain, answer)
            })
            .buffer_unordered(FAN_OUT);
        let outcomes: Vec<_> = asked.collect().await;
        let mut answers = Vec::with_capacity(outcomes.len());
        let mut unreachable = Unreachable::default();
        for (domain, outcome) in outcomes {
            match outcome {
                Ok(answer) => answers.push((domain, answer)),
                Err(error) if error.is_quota() => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(peer.domain = %domain, %error, "a backend cannot be asked about an invitation");
                    if error.is_denied() || error.is_denied_there() {
                        unreachable.denied.insert(domain.clone());
                    }
                    unreachable.domains.insert(domain);
                }
            }
        }
        if unreachable.domains.is_empty() {
            answers.sort_by(|a, b| a.0.cmp(&b.0));
            return Ok(answers);
        }
        Err(GroupError::Unreachable(unreachable))
    }

    /// What another backend is answered that wants to add users of ours. Users that do not exist are refused like those
    /// that are not connected.
    pub(crate) async fn answer_invite(
        &self,
        inviter: &Qualified<UserId>,
        invitees: &BTreeSet<UserId>,
        domains: &BTreeSet<Domain>,
    ) -> Result<(Vec<UserId>, Vec<Domain>), GroupError> {
        let active = self.users.active(invitees).await?;
        let existing: BTreeSet<_> = invitees.iter().copied().filter(|user| active.contains(user)).collect();
        let connected: HashSet<_> = self.users.connected(&existing, inviter).await?;
        let refused = invitees.iter().copied().filter(|user| !connected.contains(user)).collect();
        let non_federating =
            domains.iter().filter(|domain| **domain != self.domain && !self.policy.allows(domain)).cloned().collect();
        Ok((refused, non_federating))
    }
}

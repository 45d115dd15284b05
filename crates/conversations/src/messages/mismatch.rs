//! Which clients a message reaches: pure comparison of what was sent with who is there.

use std::collections::{BTreeMap, BTreeSet};

use aldis_types::{ClientId, Domain, Qualified, UserId};

use super::wire::{Recipient, Strategy};

/// Clients by domain and user. A user without clients means that his clients are not known.
pub(crate) type Clients = BTreeMap<Domain, BTreeMap<UserId, BTreeSet<ClientId>>>;

/// The clients of one user, an empty set when he has none yet.
pub(crate) fn of_user<'a>(clients: &'a mut Clients, user: &Qualified<UserId>) -> &'a mut BTreeSet<ClientId> {
    clients.entry(user.domain.clone()).or_default().entry(user.id).or_default()
}

/// Who is there.
#[derive(Debug, Default)]
pub(crate) struct Present {
    /// The members of the conversation.
    pub members: BTreeSet<Qualified<UserId>>,
    /// Their clients, of all backends that could be asked.
    pub clients: Clients,
    /// Backends that could not be asked.
    pub failed: BTreeSet<Domain>,
}

impl Present {
    /// Whether the client is known to be the user's.
    pub(crate) fn has_client(&self, user: &Qualified<UserId>, client: ClientId) -> bool {
        let clients = self.clients.get(&user.domain).and_then(|users| users.get(&user.id));
        clients.is_some_and(|clients| clients.contains(&client))
    }
}

/// The outcome of the comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Not empty: nothing may be sent.
    pub missing: Clients,
    pub redundant: Clients,
    pub deleted: Clients,
    pub failed_to_send: Clients,
    pub failed_to_confirm: Clients,
    /// Places, among the recipients, of those that are sent to.
    pub valid: Vec<usize>,
}

impl Comparison {
    /// Takes back what would go to a backend: it is reported as not sent.
    pub(crate) fn withhold(&mut self, domain: &Domain, recipients: &[Recipient]) {
        self.failed_to_confirm.remove(domain);
        self.valid.retain(|place| {
            let Some(recipient) = recipients.get(*place).filter(|recipient| recipient.user.domain == *domain) else {
                return true;
            };
            of_user(&mut self.failed_to_send, &recipient.user).insert(recipient.client);
            false
        });
    }
}

/// Compares the recipients of a message with who is there.
///
/// - A ciphertext for a client that does not exist is dropped: *deleted* if its user is a member, else *redundant*. The
///   sending client is redundant too.
/// - Clients without a ciphertext are *missing* as far as the strategy wants to hear of them.
/// - Users of backends that could not be asked are taken to have exactly the clients that the sender knows, which is
///   reported; those for whom he has nothing are not reached.
pub(crate) fn compare(
    sender: (&Qualified<UserId>, ClientId),
    recipients: &[Recipient],
    strategy: &Strategy,
    present: &Present,
) -> Comparison {
    let mut result = Comparison::default();
    let mut addressed: BTreeSet<(&Qualified<UserId>, ClientId)> = BTreeSet::new();
    for (place, recipient) in recipients.iter().enumerate() {
        let user = &recipient.user;
        if !addressed.insert((user, recipient.client)) {
            continue;
        }
        let is_member = present.members.contains(user);
        let is_failed = present.failed.contains(&user.domain);
        let target = if is_failed && is_member {
            result.valid.push(place);
            &mut result.failed_to_confirm
        } else if is_failed {
            &mut result.failed_to_send
        } else if (user, recipient.client) == sender || !is_member {
            &mut result.redundant
        } else if present.has_client(user, recipient.client) {
            result.valid.push(place);
            continue;
        } else {
            &mut result.deleted
        };
        of_user(target, user).insert(recipient.client);
    }
    let addressed_users: BTreeSet<_> = addressed.iter().map(|(user, _)| *user).collect();
    for user in &present.members {
        if present.failed.contains(&user.domain) {
            if !addressed_users.contains(user) {
                of_user(&mut result.failed_to_send, user);
            }
        } else if strategy.reports(user) {
            let clients = present.clients.get(&user.domain).and_then(|users| users.get(&user.id));
            for client in clients.into_iter().flatten() {
                if (user, *client) != sender && !addressed.contains(&(user, *client)) {
                    of_user(&mut result.missing, user).insert(*client);
                }
            }
        }
    }
    result
}

impl Strategy {
    /// Whether missing clients of this user are reported.
    fn reports(&self, user: &Qualified<UserId>) -> bool {
        match self {
            Self::ReportAll => true,
            Self::IgnoreAll => false,
            Self::ReportOnly(users) => users.contains(user),
            Self::IgnoreOnly(users) => !users.contains(user),
        }
    }
}

//! What owners say of our users' places, read and bounded.

use std::collections::BTreeSet;

use aldis_delivery::Place;
use aldis_peers::{CallOptions, PeerError, Peers};
use aldis_proto::{
    convert::{self, InvalidWire},
    federation::v1 as pb,
};
use aldis_types::{ConversationId, Domain, Qualified};

use super::{Digest, Users, bucket_of};
use crate::{backends::Backends, groups::model::MAX_MEMBERS};

/// Most conversations in one answer, and in one question.
pub(crate) const PAGE: usize = 200;

/// Which of our users the owner takes for members of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub conversation: Qualified<ConversationId>,
    pub users: Users,
    /// When it was so.
    pub place: Place,
}

impl Backends {
    /// Buckets of which the owner has another digest.
    pub(super) async fn compare_memberships(
        &self,
        domain: &Domain,
        digests: &[Digest],
    ) -> Result<BTreeSet<u8>, PeerError> {
        let digests = digests.iter().map(|digest| digest.to_vec().into()).collect();
        let (options, mut client) = (CallOptions::default(), self.conversations());
        let request = Peers::request(domain, pb::CompareMembershipsRequest { digests }, &options);
        let answer = Peers::finish(domain, &options, client.compare_memberships(request)).await?;
        let differing = answer.differing.into_iter().map(u8::try_from).collect::<Result<_, _>>();
        differing.map_err(|_| PeerError::invalid_answer(domain, "differing"))
    }

    /// A page of a bucket, in ascending order, and whether there are more. One that is followed by more is not empty.
    pub(super) async fn list_memberships(
        &self,
        domain: &Domain,
        bucket: u8,
        after: Option<ConversationId>,
    ) -> Result<(Vec<Statement>, bool), PeerError> {
        let message = pb::ListMembershipsRequest { bucket: bucket.into(), after: after.map(convert::bytes_of) };
        let (options, mut client) = (CallOptions::default(), self.conversations());
        let request = Peers::request(domain, message, &options);
        let answer = Peers::finish(domain, &options, client.list_memberships(request)).await?;
        let invalid = |error: InvalidWire| PeerError::invalid_answer(domain, error);
        let page = read(domain, &answer.incarnation, &answer.memberships).map_err(invalid)?;
        let ids = || page.iter().map(|statement| statement.conversation.id);
        let in_order = after.into_iter().chain(ids()).is_sorted_by(|a, b| a < b);
        if !in_order || !ids().all(|id| bucket_of(id) == bucket) || (answer.more && page.is_empty()) {
            return Err(invalid(InvalidWire("memberships")));
        }
        Ok((page, answer.more))
    }

    /// What the owner says of certain conversations.
    pub(super) async fn get_memberships(
        &self,
        domain: &Domain,
        conversations: &[ConversationId],
    ) -> Result<Vec<Statement>, PeerError> {
        let mut found = Vec::with_capacity(conversations.len());
        for chunk in conversations.chunks(PAGE) {
            let message = pb::GetMembershipsRequest { conversations: chunk.iter().map(convert::bytes_of).collect() };
            let (options, mut client) = (CallOptions::default(), self.conversations());
            let request = Peers::request(domain, message, &options);
            let answer = Peers::finish(domain, &options, client.get_memberships(request)).await?;
            let invalid = |error: InvalidWire| PeerError::invalid_answer(domain, error);
            let page = read(domain, &answer.incarnation, &answer.memberships).map_err(invalid)?;
            if !page.iter().map(|statement| &statement.conversation.id).eq(chunk) {
                return Err(invalid(InvalidWire("memberships")));
            }
            found.extend(page);
        }
        Ok(found)
    }
}

pub(super) fn read(
    domain: &Domain,
    incarnation: &[u8],
    memberships: &[pb::Membership],
) -> Result<Vec<Statement>, InvalidWire> {
    if memberships.len() > PAGE {
        return Err(InvalidWire("memberships"));
    }
    let incarnation = <[u8; 16]>::try_from(incarnation).map_err(|_| InvalidWire("incarnation"))?;
    let statement = |membership: &pb::Membership| {
        let id = convert::conversation_id(&membership.conversation)?;
        Ok(Statement {
            conversation: Qualified::new(id, domain.clone()),
            users: convert::user_ids(&membership.users, MAX_MEMBERS)?.into_iter().collect(),
            place: Place {
                origin: domain.clone(),
                incarnation,
                lane: *id.as_bytes(),
                sequence: membership.sequence,
                delivered: membership.delivered,
            },
        })
    };
    memberships.iter().map(statement).collect()
}

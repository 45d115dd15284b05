//! Tells the users service which clients fetch their notifications. Each is told of once a week, which is as exactly as
//! it is shown; what cannot be told now is told when the client comes again.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aldis_proto::{
    channel::Channel,
    convert,
    internal::v1::{NoteActiveRequest, clients_client::ClientsClient, note_active_request},
};
use aldis_runtime::SharedClock;
use aldis_types::{ClientId, UserId};
use tokio::sync::mpsc;

/// Milliseconds.
const WEEK: i64 = 7 * 86_400_000;
/// Clients that are remembered as told of; when there are more, it is begun anew.
const MAX_TOLD: usize = 100_000;
/// Clients that wait to be told of; more wait until they come again.
const MAX_WAITING: usize = 4096;
/// Clients in one call.
const MAX_IN_CALL: usize = 500;
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(5);

type Client = (UserId, ClientId);

#[derive(Debug, Default)]
struct Told {
    week: i64,
    clients: HashSet<Client>,
}

/// Takes note of clients. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Activity {
    told: Arc<Mutex<Told>>,
    waiting: mpsc::Sender<Client>,
    clock: SharedClock,
}

impl Activity {
    /// The note taker, and what carries its notes for as long as it is polled.
    pub(crate) fn new(clock: SharedClock, users: Channel) -> (Self, impl Future<Output = ()> + Send) {
        let (waiting, arrivals) = mpsc::channel(MAX_WAITING);
        let activity = Self { told: Arc::default(), waiting, clock };
        let carrier = carry(activity.told.clone(), arrivals, users);
        (activity, carrier)
    }

    /// A client fetches its notifications.
    pub(crate) fn heard_of(&self, user: UserId, client: ClientId) {
        let week = self.clock.now().millis() / WEEK;
        let mut told = lock(&self.told);
        if told.week != week || told.clients.len() >= MAX_TOLD {
            *told = Told { week, clients: HashSet::new() };
        }
        let client = (user, client);
        if told.clients.insert(client) && self.waiting.try_send(client).is_err() {
            told.clients.remove(&client);
        }
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn carry(told: Arc<Mutex<Told>>, mut arrivals: mpsc::Receiver<Client>, users: Channel) {
    let mut batch = Vec::new();
    while arrivals.recv_many(&mut batch, MAX_IN_CALL).await > 0 {
        if !tell(&users, &batch).await {
            let mut told = lock(&told);
            for client in &batch {
                told.clients.remove(client);
            }
        }
        batch.clear();
    }
}

async fn tell(users: &Channel, clients: &[Client]) -> bool {
    let clients = clients
        .iter()
        .map(|(user, client)| note_active_request::Client { user: convert::bytes_of(*user), client: client.0 })
        .collect();
    let mut service = ClientsClient::new(users.clone());
    match tokio::time::timeout(DEADLINE, service.note_active(NoteActiveRequest { clients })).await {
        Ok(Ok(_)) => true,
        Ok(Err(status)) => {
            tracing::debug!(code = ?status.code(), "users was not told which clients are active");
            false
        }
        Err(_) => {
            tracing::debug!("users did not answer in time when it was told which clients are active");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use aldis_proto::{
        channel::InProcess,
        internal::v1::{
            ListClientsRequest, ListClientsResponse, NoteActiveResponse,
            clients_server::{Clients, ClientsServer},
        },
    };
    use aldis_runtime::ManualClock;
    use aldis_types::Timestamp;
    use tonic::{Request, Response, Status, service::Routes};

    use super::*;
    use crate::tests::{PATIENCE, user};

    /// What users was told; it answers every other call with a failure.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<(Vec<Client>, bool)>>);

    impl Recorder {
        async fn heard(&self, count: usize) -> Vec<Client> {
            let heard = async {
                loop {
                    let heard = self.0.lock().unwrap().0.clone();
                    if heard.len() >= count {
                        return heard;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(PATIENCE, heard).await.unwrap()
        }
    }

    #[tonic::async_trait]
    impl Clients for Recorder {
        async fn list_clients(&self, _: Request<ListClientsRequest>) -> Result<Response<ListClientsResponse>, Status> {
            Err(Status::unimplemented("not asked for"))
        }

        async fn note_active(
            &self,
            request: Request<NoteActiveRequest>,
        ) -> Result<Response<NoteActiveResponse>, Status> {
            let clients = request.into_inner().clients;
            assert!(clients.len() <= MAX_IN_CALL);
            let clients =
                clients.iter().map(|client| (convert::user_id(&client.user).unwrap(), ClientId(client.client)));
            let (heard, fails) = &mut *self.0.lock().unwrap();
            heard.extend(clients);
            if *fails { Err(Status::unavailable("later")) } else { Ok(Response::new(NoteActiveResponse {})) }
        }
    }

    #[tokio::test]
    async fn each_client_is_told_of_once_a_week() {
        let recorder = Recorder::default();
        let users = InProcess::new();
        users.serve(Routes::new(ClientsServer::new(recorder.clone())));
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(WEEK * 2000)));
        let (activity, carrier) = Activity::new(clock.clone(), users.channel());
        let carrier = tokio::spawn(carrier);
        for _ in 0..3 {
            for client in 1..=3 {
                activity.heard_of(user(1), ClientId(client));
            }
            activity.heard_of(user(2), ClientId(1));
        }
        recorder.heard(4).await;
        clock.advance(Duration::from_hours(24 * 7));
        activity.heard_of(user(2), ClientId(1));
        let heard = recorder.heard(5).await;
        assert_eq!((heard.len(), heard[4]), (5, (user(2), ClientId(1))));

        // What fails is tried again when the client comes again.
        recorder.0.lock().unwrap().1 = true;
        activity.heard_of(user(3), ClientId(1));
        recorder.heard(6).await;
        let again = async {
            while lock(&activity.told).clients.contains(&(user(3), ClientId(1))) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.unwrap();
        activity.heard_of(user(3), ClientId(1));
        recorder.heard(7).await;
        carrier.abort();
    }

    #[tokio::test]
    async fn memory_is_bounded_while_nobody_carries() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(WEEK * 2000)));
        let (activity, _carrier) = Activity::new(clock, InProcess::new().channel());
        for client in 0..(MAX_TOLD as u64 + 10) {
            activity.heard_of(user(1), ClientId(client));
        }
        assert_eq!(lock(&activity.told).clients.len(), MAX_WAITING);
    }
}

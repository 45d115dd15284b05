//! From a stored event to a woken app.

use std::{sync::Arc, time::Duration};

use aldis_types::{ClientId, UserId};
use backon::{ExponentialBuilder, Retryable as _};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Provider, PushToken, PushTokens, Wake, Woken};
use crate::sockets::Sockets;

/// Wakes that wait; more are left out, since the apps fetch everything whenever they are woken next.
const WAITING: usize = 10_000;
/// Users whose apps are woken at the same time.
const AT_ONCE: usize = 16;
/// Time for one attempt.
const DEADLINE: Duration = Duration::from_secs(10);
/// Attempts after the first for one push, with a pause before each that doubles.
const RETRIES: usize = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

type Waiting = (Wake, Option<ClientId>);

/// Takes wakes without waiting. Cheap to clone; does nothing without a provider.
#[derive(Clone, Default)]
pub(crate) struct Waker(Option<(PushTokens, mpsc::Sender<Waiting>)>);

impl Waker {
    /// Something was stored for a client of the user, or for all.
    pub(crate) fn wake(&self, wake: impl FnOnce() -> Wake, user: UserId, client: Option<ClientId>) {
        let Some((tokens, waiting)) = &self.0 else { return };
        if tokens.may_have(user) && waiting.try_send((wake(), client)).is_err() {
            count("left_out");
        }
    }
}

/// Wakes apps for as long as it runs.
pub(crate) struct Waking {
    tokens: PushTokens,
    sockets: Sockets,
    provider: Arc<dyn Provider>,
    waiting: mpsc::Receiver<Waiting>,
}

impl Waking {
    /// Both ends.
    pub(crate) fn new(tokens: PushTokens, sockets: Sockets, provider: Arc<dyn Provider>) -> (Waker, Self) {
        let (sender, waiting) = mpsc::channel(WAITING);
        (Waker(Some((tokens.clone(), sender))), Self { tokens, sockets, provider, waiting })
    }

    /// Runs until nothing can come any more.
    pub(crate) async fn run(self) {
        let Self { tokens, sockets, provider, waiting } = self;
        ReceiverStream::new(waiting)
            .for_each_concurrent(AT_ONCE, |(wake, client)| {
                let (tokens, sockets, provider) = (&tokens, &sockets, provider.as_ref());
                async move {
                    let list = match tokens.list(wake.user).await {
                        Ok(list) => list,
                        Err(error) => {
                            tracing::warn!(%error, "push tokens cannot be read");
                            return;
                        }
                    };
                    let aimed = list.into_iter().filter(|token| client.is_none_or(|client| token.client == client));
                    for token in aimed.filter(|token| !sockets.is_present(wake.user, token.client)) {
                        push(tokens, provider, &token, &wake).await;
                    }
                }
            })
            .await;
    }
}

async fn push(tokens: &PushTokens, provider: &dyn Provider, token: &PushToken, wake: &Wake) {
    let attempt = || async {
        match tokio::time::timeout(DEADLINE, provider.wake(token, wake)).await {
            Ok(Woken::Later) | Err(_) => Err(()),
            Ok(woken) => Ok(woken),
        }
    };
    let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_times(RETRIES).with_jitter();
    match attempt.retry(pauses).await.unwrap_or(Woken::Later) {
        Woken::Sent => count("sent"),
        Woken::Refused => count("refused"),
        Woken::TokenGone => {
            // Gone already is as good.
            let _ = tokens.remove(wake.user, token.token.clone()).await;
            count("token_gone");
        }
        Woken::Later => count("failed"),
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("aldis_notifications_wakes_total", "outcome" => outcome).increment(1);
}

//! One socket of a client that acknowledges.

use std::{borrow::Cow, future::poll_fn};

use aldis_api::read_json;
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use tokio_tungstenite::tungstenite::{Error, Message, protocol::frame::coding::CloseCode};

use super::{
    Consumer,
    frames::{self, Said},
};
use crate::{
    queues::{QueueError, store::Page},
    sockets::{Item, Registered, Stream, close, feed, must_end, part},
};

/// Why the exchange is over.
enum Over {
    /// The client has gone.
    Gone,
    /// The server ends the socket; why stands in its mailbox.
    Ended,
    /// The client said what it may not, or the store failed.
    Broken(CloseCode, Cow<'static, str>),
}

impl From<Error> for Over {
    fn from(_: Error) -> Self {
        Self::Gone
    }
}

impl From<QueueError> for Over {
    fn from(error: QueueError) -> Self {
        tracing::warn!(%error, "a consumer cannot go on");
        Self::Broken(CloseCode::Again, "try again".into())
    }
}

type Saving = BoxFuture<'static, Result<(), QueueError>>;

/// Serves a socket until either side ends it. `marker` comes back when everything from before was sent.
pub(super) async fn serve(mut stream: Stream, socket: Registered, mut consumer: Consumer, marker: Option<String>) {
    let mut saving = None;
    let over = tokio::select! {
        biased;
        () = must_end(&socket) => Over::Ended,
        over = exchange(&mut stream, &socket, &mut consumer, &mut saving, marker) => over,
    };
    // What was acknowledged last counts too, however the socket ended.
    for save in saving.into_iter().chain(consumer.save().map(FutureExt::boxed)) {
        if let Err(error) = save.await {
            tracing::warn!(%error, "acknowledgements are lost; the events will come again");
        }
    }
    match over {
        Over::Gone => (),
        Over::Ended => part(stream, socket).await,
        Over::Broken(code, reason) => {
            drop(socket);
            close(stream, code, reason).await;
        }
    }
}

async fn exchange(
    stream: &mut Stream,
    socket: &Registered,
    consumer: &mut Consumer,
    saving: &mut Option<Saving>,
    mut marker: Option<String>,
) -> Over {
    if consumer.missed
        && let Err(error) = stream.send(Message::Binary(Bytes::from_static(frames::MISSED))).await
    {
        return error.into();
    }
    loop {
        if saving.is_none() {
            *saving = consumer.save().map(FutureExt::boxed);
        }
        let step = tokio::select! {
            biased;
            message = stream.next() => match message {
                None => return Over::Gone,
                Some(Err(error)) => return error.into(),
                Some(Ok(message)) => hear(socket, consumer, message).await,
            },
            saved = async { match saving.as_mut() { Some(saving) => saving.await, None => Ok(()) } }, if saving.is_some() => {
                *saving = None;
                saved.map_err(Over::from)
            }
            item = poll_fn(|context| socket.mailbox().poll_next(context)) => match item {
                None => return Over::Ended,
                Some(item) => send_item(stream, socket, consumer, item).await.map_err(Over::from),
            },
            page = consumer.read(), if consumer.may_read() => match page {
                Ok(page) => send_page(stream, socket, consumer, page, &mut marker).await.map_err(Over::from),
                Err(error) => Err(error.into()),
            },
        };
        if let Err(over) = step {
            return over;
        }
    }
}

async fn hear(socket: &Registered, consumer: &mut Consumer, message: Message) -> Result<(), Over> {
    socket.hear();
    let said = match &message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
        _ => return Ok(()),
    };
    let Ok(said) = read_json(said) else {
        return Err(Over::Broken(CloseCode::Unsupported, "not a message of this socket".into()));
    };
    let unexpected = || Over::Broken(CloseCode::Unsupported, "unexpected-ack".into());
    match said {
        Said::AckFullSync if consumer.missed => Ok(consumer.knows().await?),
        Said::Ack { data } if !consumer.missed => {
            consumer.window.acknowledge(data.delivery_tag, data.multiple).map_err(|_| unexpected())
        }
        Said::AckFullSync | Said::Ack { .. } => Err(unexpected()),
    }
}

async fn send_item(stream: &mut Stream, socket: &Registered, consumer: &mut Consumer, item: Item) -> Result<(), Error> {
    match item {
        Item::News => {
            consumer.more = true;
            return Ok(());
        }
        Item::Ping => stream.feed(Message::Ping(Bytes::new())).await?,
        // What is only for the moment is not kept for a client that is busy.
        Item::Frame(_) if consumer.missed || consumer.window.room() == 0 => return Ok(()),
        Item::Frame(notification) => {
            let tag = consumer.window.send_transient();
            feed(stream, socket, frames::transient(&notification, tag)).await?;
        }
    }
    stream.flush().await
}

async fn send_page(
    stream: &mut Stream,
    socket: &Registered,
    consumer: &mut Consumer,
    page: Page,
    marker: &mut Option<String>,
) -> Result<(), Error> {
    consumer.more = page.has_more;
    let sent = u64::try_from(page.notifications.len()).unwrap_or(u64::MAX);
    for stored in &page.notifications {
        if let Some(tag) = stored.id.ticks().and_then(|tick| consumer.window.send(tick)) {
            feed(stream, socket, frames::event(stored, tag)).await?;
        }
    }
    metrics::counter!("aldis_notifications_consumed_total").increment(sent);
    if !page.has_more
        && let Some(marker) = marker.take()
    {
        let tag = consumer.window.send_transient();
        feed(stream, socket, frames::synchronization(&marker, tag)).await?;
    }
    stream.flush().await
}

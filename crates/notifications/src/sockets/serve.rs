//! One socket's task: sends what waits in its mailbox, answers pings.

use std::{borrow::Cow, future::poll_fn, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{
        CloseFrame,
        frame::{
            Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

use super::{
    Registered,
    handshake::Stream,
    mailbox::{Ending, Item},
};

/// Notifications longer than this go out in fragments of this size.
pub(super) const FRAGMENT_BYTES: usize = 16 << 10;
/// Time for sending what is left, and for the client to confirm the close.
const FAREWELL: Duration = Duration::from_secs(1);
/// Frames sent before the socket is flushed.
const BURST: usize = 64;

/// Serves a socket until either side ends it.
pub(super) async fn serve(mut stream: Stream, socket: Registered) {
    tokio::select! {
        biased;
        () = must_end(&socket) => (),
        result = exchange(&mut stream, &socket) => if result.is_err() { return },
    }
    part(stream, socket).await;
}

/// Ready once the socket ends for a reason that drops what waits, or sending the rest takes too long.
pub(crate) async fn must_end(socket: &Registered) {
    tokio::select! {
        _ = poll_fn(|context| socket.mailbox.poll_ending(context, |ending| !ending.drains())) => (),
        () = farewell_over(socket) => (),
    }
}

/// Leaves the register and tells the client why.
pub(crate) async fn part(stream: Stream, socket: Registered) {
    let Some(ending) = socket.mailbox.ending() else { return };
    // Gone for everybody who pushes; only the goodbye is left.
    drop(socket);
    if ending != Ending::Dead {
        let (code, reason) = goodbye(ending);
        close(stream, code, reason.into()).await;
    }
}

/// Ready some time after the socket began to end.
async fn farewell_over(socket: &Registered) {
    poll_fn(|context| socket.mailbox.poll_ending(context, |_| true)).await;
    tokio::time::sleep(FAREWELL).await;
}

/// Until the client closes (an error, or nothing left to do) or the mailbox ends.
async fn exchange(stream: &mut Stream, socket: &Registered) -> Result<(), Error> {
    loop {
        tokio::select! {
            biased;
            message = stream.next() => match message {
                None => return Err(Error::ConnectionClosed),
                Some(message) => hear(stream, socket, message?).await?,
            },
            item = poll_fn(|context| socket.mailbox.poll_next(context)) => match item {
                None => return Ok(()),
                Some(item) => send_waiting(stream, socket, item).await?,
            },
        }
    }
}

async fn hear(stream: &mut Stream, socket: &Registered, message: Message) -> Result<(), Error> {
    socket.hear();
    let ping = match &message {
        Message::Text(text) => text.as_str() == "ping",
        Message::Binary(bytes) => &bytes[..] == b"ping",
        _ => false,
    };
    if ping { stream.send(Message::Binary(Bytes::from_static(b"pong"))).await } else { Ok(()) }
}

/// Sends what waits, with one flush for a burst.
async fn send_waiting(stream: &mut Stream, socket: &Registered, first: Item) -> Result<(), Error> {
    let mut next = Some(first);
    let mut sent = 0;
    while let Some(item) = next {
        match item {
            Item::Frame(frame) => feed(stream, socket, frame).await?,
            Item::Ping => stream.feed(Message::Ping(Bytes::new())).await?,
            // Only for sockets that read the queue.
            Item::News => (),
        }
        sent += 1;
        next = if sent < BURST { socket.mailbox.try_next() } else { None };
    }
    stream.flush().await
}

/// Writes one binary message, in fragments if it is long.
pub(crate) async fn feed(stream: &mut Stream, socket: &Registered, mut message: Bytes) -> Result<(), Error> {
    if message.len() <= FRAGMENT_BYTES {
        return stream.feed(Message::Binary(message)).await;
    }
    let mut kind = Data::Binary;
    while !message.is_empty() {
        let part = message.split_to(message.len().min(FRAGMENT_BYTES));
        let frame = Frame::message(part, OpCode::Data(kind), message.is_empty());
        stream.feed(Message::Frame(frame)).await?;
        kind = Data::Continue;
        // A client on a slow line that is reading a long message is not silent.
        socket.hear();
    }
    Ok(())
}

/// Closes; nobody is left to tell when the goodbye cannot be said.
pub(crate) async fn close(mut stream: Stream, code: CloseCode, reason: Cow<'static, str>) {
    let _ = timeout(FAREWELL, say_goodbye(&mut stream, code, &reason)).await;
}

fn goodbye(ending: Ending) -> (CloseCode, &'static str) {
    match ending {
        Ending::Slow | Ending::Dead | Ending::Missed => (CloseCode::Again, "fetch what was missed"),
        Ending::Revoked => (CloseCode::Policy, "session revoked"),
        Ending::Removed => (CloseCode::Policy, "client removed"),
        Ending::Replaced => (CloseCode::Policy, "another socket of the client took over"),
        Ending::Stopping => (CloseCode::Away, "stopping"),
    }
}

async fn say_goodbye(stream: &mut Stream, code: CloseCode, reason: &str) -> Result<(), Error> {
    stream.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await?;
    // Until the client confirms: closing with unread data on the way could lose the frame.
    while let Some(message) = stream.next().await {
        message?;
    }
    Ok(())
}

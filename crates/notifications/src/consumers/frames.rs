//! The frames of `/events`: what the server sends, and what it reads.

use bytes::Bytes;
use serde::Deserialize;

use super::window::Tag;
use crate::queues::{http::write, store::Stored};

/// Bytes around an event.
const AROUND: usize = 160;

/// `{"type":"event","data":{"event":{"id":…,"payload":[…]},"delivery_tag":…}}`
pub(super) fn event(stored: &Stored, tag: Tag) -> Bytes {
    let mut frame = Vec::with_capacity(stored.event.len() + AROUND);
    frame.extend_from_slice(br#"{"type":"event","data":{"event":"#);
    write(&mut frame, stored);
    close(frame, tag)
}

/// The same for what is only for open sockets, which is a complete notification already.
pub(super) fn transient(notification: &[u8], tag: Tag) -> Bytes {
    let mut frame = Vec::with_capacity(notification.len() + AROUND);
    frame.extend_from_slice(br#"{"type":"event","data":{"event":"#);
    frame.extend_from_slice(notification);
    close(frame, tag)
}

fn close(mut frame: Vec<u8>, tag: Tag) -> Bytes {
    frame.extend_from_slice(format!(r#","delivery_tag":{tag}}}}}"#).as_bytes());
    frame.into()
}

/// `{"type":"notifications_missed"}`
pub(super) const MISSED: &[u8] = br#"{"type":"notifications_missed"}"#;

/// `{"type":"synchronization","data":{"marker_id":…,"delivery_tag":…}}`
pub(super) fn synchronization(marker: &str, tag: Tag) -> Bytes {
    let frame = serde_json::json!({
        "type": "synchronization",
        "data": { "marker_id": marker, "delivery_tag": tag },
    });
    frame.to_string().into()
}

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Said {
    /// It has an item, and with `multiple` all before it.
    Ack { data: Ack },
    /// It knows that it missed events.
    AckFullSync,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ack {
    pub delivery_tag: Tag,
    #[serde(default)]
    pub multiple: bool,
}

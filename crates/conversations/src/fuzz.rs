//! Fuzz targets: the body of a message, and where a list goes on.
//!
//! Run as tests with random input; `cargo bolero test -p aldis-conversations <name>` lets a fuzzing engine search for
//! longer.

use aldis_types::{ClientId, Qualified, UserId};
use bolero::{check, generator::TypeGenerator};

use crate::{
    groups::list::Cursor,
    messages::wire::{NewMessage, Recipient, Strategy, write, write_older},
};

#[derive(Debug, Clone, TypeGenerator)]
struct Fields {
    sender: u64,
    recipients: Vec<([u8; 16], bool, u64, Vec<u8>)>,
    blob: Option<Vec<u8>>,
    flags: [bool; 3],
    strategy: u8,
}

fn user(id: &[u8; 16], far: bool) -> Qualified<UserId> {
    let domain = if far { "beta.test" } else { "alpha.test" };
    Qualified::new(UserId::from_bytes(id).unwrap(), domain.parse().unwrap())
}

impl Fields {
    fn message(&self) -> NewMessage {
        let listed = || self.recipients.iter().map(|(id, far, ..)| user(id, *far)).collect();
        NewMessage {
            sender: ClientId(self.sender),
            recipients: self
                .recipients
                .iter()
                .map(|(id, far, client, text)| Recipient {
                    user: user(id, *far),
                    client: ClientId(*client),
                    text: text.clone().into(),
                })
                .collect(),
            blob: self.blob.clone().map(Into::into),
            native_push: self.flags[0],
            high_priority: self.flags[1],
            transient: self.flags[2],
            strategy: match self.strategy % 4 {
                0 => Strategy::ReportAll,
                1 => Strategy::IgnoreAll,
                2 => Strategy::ReportOnly(listed()),
                _ => Strategy::IgnoreOnly(listed()),
            },
        }
    }
}

/// What was written is read; cut or altered anywhere it is either read as something else or refused, never worse.
#[test]
fn message_bodies() {
    check!().with_type::<(Fields, u16, u8)>().for_each(|(fields, place, byte)| {
        let message = fields.message();
        let body = write(&message);
        assert_eq!(NewMessage::read(body.clone()), Ok(message.clone()));
        let place = usize::from(*place) % body.len();
        let _ = NewMessage::read(body.slice(..place));
        let mut altered = body.to_vec();
        altered[place] = *byte;
        let _ = NewMessage::read(altered.into());
        let own = user(&[0; 16], false).domain;
        let older = write_older(&message);
        let _ = NewMessage::read_older(older.slice(..place.min(older.len())), &own, Strategy::ReportAll);
    });
    check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let _ = NewMessage::read_older(bytes.clone().into(), &user(&[0; 16], false).domain, Strategy::ReportAll);
        if let Ok(message) = NewMessage::read(bytes.clone().into()) {
            assert_eq!(NewMessage::read(write(&message)), Ok(message));
        }
    });
}

/// What the counting pass takes for small is small once it is read: no body makes a list longer than its bound.
#[test]
fn nested_lists() {
    check!().with_type::<Vec<(u8, u8)>>().for_each(|parts| {
        let mut body = Vec::new();
        for (tag, length) in parts {
            let inner = body.split_off(body.len() - usize::from(*length).min(body.len()));
            body.push((tag % 12) << 3 | 2);
            prost::encoding::encode_varint(inner.len() as u64, &mut body);
            body.extend(inner);
        }
        let bytes = body.len();
        if let Ok(message) = NewMessage::read(body.into()) {
            assert!(message.recipients.len() <= bytes);
        }
    });
}

#[test]
fn list_cursors() {
    check!().with_type::<(String, Vec<u8>)>().for_each(|(text, bytes)| {
        use base64::{Engine, engine::general_purpose::URL_SAFE};
        for text in [text.clone(), URL_SAFE.encode(bytes)] {
            if let Some(cursor) = Cursor::from_text(&text) {
                assert_eq!(Cursor::from_text(&cursor.to_text()), Some(cursor));
            }
        }
    });
}

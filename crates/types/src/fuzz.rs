//! Fuzz targets: whatever text comes from outside, reading it ends, and what was read writes itself the same again.
//!
//! Run as tests with random input; `cargo bolero test -p aldis-types <name>` lets a fuzzing engine search for longer.

use std::{fmt::Display, str::FromStr};

use bolero::check;

use crate::{
    ClientId, ConnId, ConversationId, Domain, Email, Handle, Name, Qualified, RoleName, SearchPolicy, Timestamp, UserId,
};

/// Reads the same value from its own text.
fn settles<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert!(written.parse::<T>().is_ok_and(|again| again == value), "{text:?} became {written:?}");
    }
}

/// The JSON of a value is read as the same value, and as JSON from outside nothing else is accepted than as text.
fn settles_as_json<T>(text: &str)
where
    T: FromStr + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
{
    let json = serde_json::Value::from(text);
    match (text.parse::<T>(), serde_json::from_value::<T>(json)) {
        (Ok(value), Ok(read)) => {
            assert!(value == read);
            let written = serde_json::to_string(&value).unwrap();
            assert!(serde_json::from_str::<T>(&written).is_ok_and(|again| again == value));
        }
        (Err(_), Err(_)) => {}
        _ => panic!("text and JSON disagree about {text:?}"),
    }
}

#[test]
fn texts_from_outside() {
    check!().with_type::<String>().for_each(|text| {
        settles::<Domain>(text);
        settles::<UserId>(text);
        settles::<ConversationId>(text);
        settles::<ClientId>(text);
        settles::<ConnId>(text);
        settles::<SearchPolicy>(text);
        settles::<Timestamp>(text);
        settles_as_json::<Domain>(text);
        settles_as_json::<ClientId>(text);
        settles_as_json::<Email>(text);
        settles_as_json::<Handle>(text);
        settles_as_json::<Name>(text);
        settles_as_json::<RoleName>(text);
        settles_as_json::<Timestamp>(text);
    });
}

/// Text of the characters that the formats give a meaning to gets further than random text.
#[test]
fn texts_that_look_right() {
    const ALPHABET: &[u8] = b"abzAZ019.-_@:+T/ \xc3\xa9";
    check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let picked: Vec<u8> = bytes.iter().map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()]).collect();
        let text = String::from_utf8_lossy(&picked);
        settles::<Domain>(&text);
        settles::<ClientId>(&text);
        settles::<Timestamp>(&text);
        settles_as_json::<Email>(&text);
        settles_as_json::<Handle>(&text);
        if let Ok(domain) = text.parse::<Domain>() {
            assert!(domain.as_str().len() <= 253 && domain.as_str() == domain.as_str().to_ascii_lowercase());
        }
        if let Ok(email) = text.parse::<Email>() {
            assert!(!email.domain().is_empty() && email.key().parse::<Email>().is_ok());
        }
    });
}

#[test]
fn json_from_outside() {
    check!().with_type::<Vec<u8>>().for_each(|bytes| {
        if let Ok(id) = serde_json::from_slice::<Qualified<UserId>>(bytes) {
            let written = serde_json::to_vec(&id).unwrap();
            assert!(serde_json::from_slice::<Qualified<UserId>>(&written).is_ok_and(|again| again == id));
        }
        let _ = serde_json::from_slice::<crate::Prekey>(bytes);
        let _ = serde_json::from_slice::<crate::ProfileAsset>(bytes);
        let _ = serde_json::from_slice::<crate::Access>(bytes);
    });
}

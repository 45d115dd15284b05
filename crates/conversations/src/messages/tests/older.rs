//! The older form, without domains.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::message;
use crate::{
    messages::{
        older::read_json,
        wire::{MAX_ENTRIES, NewMessage, Strategy, write_older},
    },
    testing::{Backend, QualifiedUser, World, domain, user},
};

#[test]
fn both_forms_mean_the_same() {
    let (ann, ben) = (user(1, "alpha.test"), user(2, "alpha.test"));
    let own = domain("alpha.test");
    let mut sent = message(1, &[(&ann, 2), (&ben, 3)]);
    sent.blob = Some("shared".into());
    sent.strategy = Strategy::IgnoreAll;
    let read = |message: &NewMessage| NewMessage::read_older(write_older(message), &own, Strategy::IgnoreAll);
    assert_eq!(read(&sent), Ok(sent.clone()));
    let listed = NewMessage { strategy: Strategy::ReportOnly(vec![ben.clone()]), ..sent.clone() };
    assert_eq!(read(&listed), Ok(listed.clone()));
    let text = |client: u64| STANDARD.encode(format!("for {client:x}"));
    let mut body = json!({
        "sender": "1", "data": STANDARD.encode("shared"),
        "recipients": { ann.id.to_string(): { "2": text(2) }, ben.id.to_string(): { "3": text(3) } },
    });
    assert_eq!(read_json(body.to_string().as_bytes(), &own, Strategy::IgnoreAll), Ok(sent));
    body["report_missing"] = json!([ben.id]);
    assert_eq!(read_json(body.to_string().as_bytes(), &own, Strategy::IgnoreAll), Ok(listed));
}

#[test]
fn bodies_are_bounded_before_they_are_read() {
    let own = domain("alpha.test");
    let read = |body: Vec<u8>| NewMessage::read_older(body.into(), &own, Strategy::ReportAll).map(drop);
    // Empty entries, two bytes each: recipients, and listed users.
    for tag in [2_u8, 7] {
        let body: Vec<u8> = (0..=MAX_ENTRIES).flat_map(|_| [tag << 3 | 2, 0]).collect();
        assert_eq!(read(body).unwrap_err().0, "The message has too many recipients");
    }
    let mut clients = Vec::new();
    prost::encoding::encode_key(2, prost::encoding::WireType::LengthDelimited, &mut clients);
    prost::encoding::encode_varint(2 * (MAX_ENTRIES as u64 + 1), &mut clients);
    clients.extend((0..=MAX_ENTRIES).flat_map(|_| [2 << 3 | 2, 0]));
    assert_eq!(read(clients).unwrap_err().0, "The message has too many recipients");
    let json =
        format!("{{\"sender\":\"1\",\"recipients\":{{}},\"report_missing\":[{}]}}", "1,".repeat(3 * MAX_ENTRIES));
    let refused = read_json(json.as_bytes(), &own, Strategy::ReportAll).unwrap_err();
    assert_eq!(refused.0, "The message has too many recipients");
    for bad in ["", "[]", "{}", r#"{"sender":"1"}"#, r#"{"sender":"1","recipients":{"x":{}}}"#] {
        assert!(read_json(bad.as_bytes(), &own, Strategy::ReportAll).is_err(), "{bad}");
    }
}

async fn post(backend: &Backend, who: &QualifiedUser, path: &str, body: Value) -> (StatusCode, Value) {
    backend.send(who, Method::POST, path, "application/json", body.to_string().into(), 10).await
}

#[tokio::test]
async fn a_message_of_the_older_form_goes_to_users_of_one_backend() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "beta.test"));
    world.connect(&[&ann, &ben, &cleo]);
    world.set_clients(&ann, &[1, 2]);
    world.set_clients(&ben, &[3]);
    let body = json!({ "name": "x", "users": [ben.id] });
    let (_, group) = alpha.post(&ann, "/conversations", body).await;
    let id = group["qualified_id"]["id"].as_str().unwrap().to_owned();
    let path = format!("/conversations/{id}/otr/messages");
    let text = STANDARD.encode("hello");
    let message = json!({ "sender": "1", "recipients": { ben.id.to_string(): { "3": text, "9": text } } });

    let (status, missing) = post(&alpha, &ann, &path, message.clone()).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(missing["missing"], json!({ ann.id.to_string(): ["2"] }));
    assert_eq!(missing["deleted"], json!({ ben.id.to_string(): ["9"] }));
    assert_eq!(missing.as_object().unwrap().len(), 4, "{missing}");
    let only_ben = format!("{path}?report_missing={}", ben.id);
    let (status, sent) = post(&alpha, &ann, &only_ben, message.clone()).await;
    assert_eq!((status, &sent["missing"]), (StatusCode::CREATED, &json!({})));
    let got = alpha.wait_for(&ben, "conversation.otr-message-add", 1).await.remove(0).event;
    assert_eq!(got["data"], json!({ "sender": "1", "recipient": "3", "text": text }));
    assert_eq!(got["time"], sent["time"]);
    // What the body says comes first, then what is ignored.
    for (query, listed, expected) in [
        ("?ignore_missing=true", Some(&ann), StatusCode::PRECONDITION_FAILED),
        ("?ignore_missing=true&report_missing=true", None, StatusCode::CREATED),
        ("?report_missing=false", None, StatusCode::CREATED),
        ("?ignore_missing=false", None, StatusCode::PRECONDITION_FAILED),
    ] {
        let mut message = message.clone();
        message["data"] = json!(STANDARD.encode(query));
        if let Some(user) = listed {
            message["report_missing"] = json!([user.id]);
        }
        assert_eq!(post(&alpha, &ann, &format!("{path}{query}"), message).await.0, expected, "{query}");
    }
    for (path, who, body, code, label) in [
        (format!("{path}?report_missing=x"), &ann, message.clone(), 400, "bad-request"),
        (path.clone(), &ann, json!({ "sender": "1" }), 400, "bad-request"),
        (path.clone(), &ben, message.clone(), 403, "unknown-client"),
        (path.clone(), &user(9, "alpha.test"), message.clone(), 404, "no-conversation"),
    ] {
        let (status, answer) = post(&alpha, who, &path, body).await;
        assert_eq!((status.as_u16(), &answer["label"]), (code, &json!(label)), "{path}");
    }
    let text = alpha.send(&ann, Method::POST, &path, "text/plain", "x".into(), 10).await;
    assert_eq!(text.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let wire = super::message(1, &[(&ann, 2), (&ben, 3)]);
    let sent = alpha.send(&ann, Method::POST, &path, "application/x-protobuf", write_older(&wire), 10).await;
    assert_eq!(sent.0, StatusCode::CREATED, "{}", sent.1);
    alpha.wait_for(&ann, "conversation.otr-message-add", 1).await;

    // There is no place for users of other backends.
    let body = json!({ "qualified_users": [{ "domain": "beta.test", "id": cleo.id }] });
    assert_eq!(alpha.post(&ann, &format!("/conversations/alpha.test/{id}/members"), body).await.0, StatusCode::OK);
    beta.wait_for(&cleo, "conversation.member-join", 1).await;
    let (status, refused) = post(&alpha, &ann, &path, message).await;
    assert_eq!((status.as_u16(), &refused["label"]), (422, &json!("federation-not-implemented")));
    for path in ["/broadcast/otr/messages", "/broadcast/proteus/messages"] {
        let (status, refused) = post(&alpha, &ann, path, json!({})).await;
        assert_eq!((status.as_u16(), &refused["label"]), (404, &json!("non-binding-team")));
    }
}

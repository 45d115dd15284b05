//! Our JSON against samples of the client API's types; see `aldis-golden`.

use aldis_golden::{Golden, Part, read, same};
use aldis_types::{NotificationId, Timestamp};
use serde_json::{Value, json};

use super::{
    http::{render, render_page},
    store::{Page, Stored},
};
use crate::{
    Config,
    push_tokens::{PushToken, Transport},
    tests::Running,
};

/// What we store: each event of a sample as a notification of its own.
fn stored(sample: &Value) -> Vec<Stored> {
    let id: NotificationId = read(&sample["id"]);
    let events = sample["payload"].as_array().unwrap();
    events.iter().map(|event| Stored { id, event: event.to_string().into() }).collect()
}

fn written(body: Vec<u8>) -> Value {
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn golden_types_are_written() {
    let mut golden = Golden::of(Part::Notifications);
    golden.check("QueuedNotification_user", |sample| {
        let payloads: Vec<_> = stored(sample)
            .iter()
            .map(|stored| {
                let ours = written(render(stored));
                same(&ours, &json!({ "id": sample["id"], "payload": ours["payload"] }));
                ours["payload"][0].clone()
            })
            .collect();
        same(payloads, &sample["payload"]);
    });
    let now = Timestamp::from_millis(1_750_000_000_000);
    golden.check("QueuedNotificationList_user", |sample| {
        let notifications = sample["notifications"].as_array().unwrap().iter().flat_map(stored).collect();
        let page = Page { notifications, has_more: read(&sample["has_more"]) };
        let mut sample = sample.clone();
        sample["time"] = json!(now);
        same(written(render_page(&page, now)), &sample);
    });
    golden.round_trips::<PushToken>("PushToken_user");
    golden.round_trips::<PushToken>("Token");
    golden.round_trips::<Transport>("Push_2eToken_2eTransport_user");
    golden.round_trips::<String>("Token_user");
    let (_, tokens) = Running::start(Config::default()).await.get("/push/tokens").await;
    golden.has_shape("PushTokenList_user", &[("", &tokens)]);
    golden.finish();
}

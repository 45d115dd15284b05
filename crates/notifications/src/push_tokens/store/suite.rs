//! What every engine must pass.

use aldis_types::{ClientId, UserId};

use super::{PushToken, PushTokenStore};
use crate::push_tokens::Transport;

fn user(number: u8) -> UserId {
    UserId::from_bytes(&[number; 16]).unwrap()
}

fn token(text: &str, client: u64, app: &str) -> PushToken {
    PushToken { transport: Transport::Gcm, app: app.to_owned(), token: text.to_owned(), client: ClientId(client) }
}

async fn texts(store: &dyn PushTokenStore, number: u8) -> Vec<String> {
    store.list(user(number)).await.unwrap().into_iter().map(|token| token.token).collect()
}

/// A device has one token for an app, and belongs to the user who gave its token last.
pub(crate) async fn tokens_replace_each_other(store: &dyn PushTokenStore) {
    let add = async |owner, token| store.add(user(owner), token, 3).await.unwrap();
    add(1, token("a", 1, "app")).await;
    add(1, token("b", 1, "app")).await;
    add(1, token("c", 1, "other")).await;
    assert_eq!(texts(store, 1).await, ["b", "c"]);
    add(2, token("b", 9, "app")).await;
    assert_eq!((texts(store, 1).await, texts(store, 2).await), (vec!["c".to_owned()], vec!["b".to_owned()]));
    add(1, token("d", 2, "app")).await;
    add(1, token("e", 3, "app")).await;
    add(1, token("f", 4, "app")).await;
    assert_eq!(texts(store, 1).await, ["d", "e", "f"], "the oldest goes");
    assert_eq!(store.list(user(1)).await.unwrap()[0], token("d", 2, "app"));
    let mut users = store.users().await.unwrap();
    users.sort();
    assert_eq!(users, [user(1), user(2)]);
}

/// What is removed is gone, and nothing else.
pub(crate) async fn removal(store: &dyn PushTokenStore) {
    for (text, client) in [("a", 1), ("b", 2), ("c", u64::MAX)] {
        store.add(user(1), token(text, client, "app"), 10).await.unwrap();
    }
    assert!(!store.remove(user(2), "a".to_owned()).await.unwrap());
    assert!(store.remove(user(1), "a".to_owned()).await.unwrap());
    assert!(!store.remove(user(1), "a".to_owned()).await.unwrap());
    store.forget(user(1), Some(ClientId(u64::MAX))).await.unwrap();
    assert_eq!(texts(store, 1).await, ["b"]);
    store.forget(user(1), None).await.unwrap();
    assert!(store.users().await.unwrap().is_empty());
}

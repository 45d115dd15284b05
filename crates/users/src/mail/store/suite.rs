//! What every engine must do. The engine's own `enqueue` writes the mails beforehand: four of them, at the times 1 to
//! 4 seconds.

use std::time::Duration;

use aldis_types::Timestamp;

use super::MailStore;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

pub(crate) async fn mails_leave_in_order_and_failed_ones_come_again(store: &dyn MailStore) {
    assert_eq!(store.next_due().await.unwrap(), Some(at(1)));
    let due = store.due(at(3), 10).await.unwrap();
    let created: Vec<_> = due.iter().map(|mail| mail.created).collect();
    assert_eq!(created, [at(1), at(2), at(3)]);
    assert_eq!(store.due(at(3), 2).await.unwrap().len(), 2);
    store.remove(due[0].id).await.unwrap();
    store.retry(due[1].id, at(3).plus(Duration::from_secs(60))).await.unwrap();
    let due = store.due(at(3), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    let later = store.due(at(100), 10).await.unwrap();
    assert_eq!(later.iter().map(|mail| mail.attempts).collect::<Vec<_>>(), [1, 0, 0]);
    for mail in later {
        store.remove(mail.id).await.unwrap();
    }
    assert_eq!(store.next_due().await.unwrap(), None);
}

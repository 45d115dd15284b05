use std::{path::Path, sync::Arc};

use aldis_runtime::{Clock as _, ManualClock};
use aldis_storage::Db;
use aldis_types::Timestamp;
use tokio::sync::Notify;

use super::*;
use crate::{
    mail::store::{SqliteMail, enqueue, suite},
    testing,
};

fn mail(expires: Timestamp) -> NewMail {
    NewMail {
        recipient: "ann@example.com".parse().unwrap(),
        purpose: Purpose::Verification,
        key: "the-key".to_owned(),
        code: "123456".to_owned(),
        expires,
    }
}

async fn put(db: &Db, now: Timestamp, expires: Timestamp) {
    db.write(move |tx| Ok(enqueue(tx, &mail(expires), now)?)).await.unwrap();
}

fn mailer(db: &Db, folder: &Path, clock: Arc<ManualClock>) -> Mailer {
    let config = config::Mail { folder: Some(folder.to_owned()), ..config::Mail::default() };
    let domain = "alpha.test".parse().unwrap();
    let store = Arc::new(SqliteMail::new(db.clone()));
    Mailer::new(&config, &domain, store, clock, Arc::new(Notify::new())).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db) = testing::database().await;
    for second in 1..=4 {
        let now = Timestamp::from_millis(second * 1000);
        put(&db, now, now.plus(Duration::from_secs(1000))).await;
    }
    suite::mails_leave_in_order_and_failed_ones_come_again(&SqliteMail::new(db)).await;
}

#[tokio::test]
async fn a_mail_becomes_one_complete_file_with_the_headers_that_apps_expect() {
    let (folder, db) = testing::database().await;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_750_000_000_000)));
    let target = folder.path().join("mail");
    let mailer = mailer(&db, &target, clock.clone());
    for _ in 0..2 {
        put(&db, clock.now(), clock.now().plus(Duration::from_secs(60))).await;
        clock.advance(Duration::from_millis(1));
    }
    assert_eq!(mailer.send_due().await.unwrap(), 2);
    let names = files(&target);
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.split('.').nth(1) == Some("eml")));
    assert!(names[0].starts_with("01750000000000-") && names[1].starts_with("01750000000001-"));
    let text = std::fs::read_to_string(target.join(&names[0])).unwrap();
    for line in ["To: ann@example.com", "X-Zeta-Purpose: Verification", "X-Zeta-Key: the-key", "X-Zeta-Code: 123456"] {
        assert!(text.lines().any(|found| found.trim_end() == line), "{line} is missing in {text}");
    }
    assert_eq!(mailer.send_due().await.unwrap(), 0);
}

#[tokio::test]
async fn a_mail_that_fails_is_tried_again_and_dropped_when_it_expires() {
    let (folder, db) = testing::database().await;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_750_000_000_000)));
    let target = folder.path().join("mail");
    let mailer = mailer(&db, &target, clock.clone());
    std::fs::remove_dir(&target).unwrap();
    put(&db, clock.now(), clock.now().plus(Duration::from_secs(600))).await;
    assert_eq!(mailer.send_due().await.unwrap(), 1);
    assert_eq!(mailer.send_due().await.unwrap(), 0, "a retry waits");
    clock.advance(Duration::from_secs(6));
    std::fs::create_dir(&target).unwrap();
    assert_eq!(mailer.send_due().await.unwrap(), 1);
    assert_eq!(files(&target).len(), 1);

    std::fs::remove_dir_all(&target).unwrap();
    put(&db, clock.now(), clock.now().plus(Duration::from_secs(60))).await;
    assert_eq!(mailer.send_due().await.unwrap(), 1);
    clock.advance(Duration::from_secs(61));
    assert_eq!(mailer.send_due().await.unwrap(), 1);
    assert_eq!(mailer.store.next_due().await.unwrap(), None);
}

#[test]
fn pauses_grow_to_a_limit() {
    assert_eq!(pause_after(0), Duration::from_secs(5));
    assert_eq!(pause_after(3), Duration::from_secs(40));
    assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
}

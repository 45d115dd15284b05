//! What every place for bytes must do.

use std::{io, ops::Range};

use bytes::Bytes;
use futures::TryStreamExt;
use uuid::Uuid;

use super::{BlobStore, directory::Directory};

async fn put(store: &dyn BlobStore, id: Uuid, chunks: &[Bytes]) {
    let mut writer = store.create(id).await.unwrap();
    for chunk in chunks {
        writer.write(chunk.clone()).await.unwrap();
    }
    writer.finish().await.unwrap();
}

async fn get(store: &dyn BlobStore, id: Uuid, range: Range<u64>) -> Option<io::Result<Vec<u8>>> {
    let stream = store.open(id, range).await.unwrap()?;
    Some(
        stream
            .try_fold(Vec::new(), |mut all, part| async move {
                all.extend_from_slice(&part);
                Ok(all)
            })
            .await,
    )
}

/// Every case. `large` is a size that the store treats as large.
pub(crate) async fn run(store: &dyn BlobStore, large: usize) {
    what_is_finished_can_be_read_in_parts(store).await;
    large_files_are_whole(store, large).await;
    what_is_not_finished_is_not_there(store).await;
    what_is_deleted_is_gone(store).await;
    a_range_past_the_end_is_an_error(store).await;
}

async fn what_is_finished_can_be_read_in_parts(store: &dyn BlobStore) {
    let id = Uuid::new_v4();
    put(store, id, &[Bytes::from_static(b"hello "), Bytes::from_static(b"world")]).await;
    for (range, expected) in [(0..11, "hello world"), (0..1, "h"), (6..11, "world"), (10..11, "d")] {
        assert_eq!(get(store, id, range).await.unwrap().unwrap(), expected.as_bytes());
    }
    assert!(get(store, Uuid::new_v4(), 0..1).await.is_none());
}

async fn large_files_are_whole(store: &dyn BlobStore, large: usize) {
    let id = Uuid::new_v4();
    let bytes: Bytes = (0..large).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>().into();
    let chunks: Vec<Bytes> = bytes.chunks(100_003).map(|chunk| bytes.slice_ref(chunk)).collect();
    put(store, id, &chunks).await;
    assert!(get(store, id, 0..large as u64).await.unwrap().unwrap() == bytes, "whole");
    let (from, to) = (large / 2, large / 2 + 1000);
    assert!(get(store, id, from as u64..to as u64).await.unwrap().unwrap() == bytes[from..to], "a part");
}

async fn what_is_not_finished_is_not_there(store: &dyn BlobStore) {
    let (aborted, dropped) = (Uuid::new_v4(), Uuid::new_v4());
    let mut writer = store.create(aborted).await.unwrap();
    writer.write(Bytes::from_static(b"half")).await.unwrap();
    assert!(get(store, aborted, 0..4).await.is_none());
    writer.abort().await;
    assert!(get(store, aborted, 0..4).await.is_none());
    drop(store.create(dropped).await.unwrap());
    store.sweep().await.unwrap();
    assert!(get(store, dropped, 0..1).await.is_none());
    // The name can be used after all.
    put(store, dropped, &[Bytes::from_static(b"again")]).await;
    assert_eq!(get(store, dropped, 0..5).await.unwrap().unwrap(), b"again");
}

async fn what_is_deleted_is_gone(store: &dyn BlobStore) {
    let id = Uuid::new_v4();
    put(store, id, &[Bytes::from_static(b"x")]).await;
    store.delete(id).await.unwrap();
    assert!(get(store, id, 0..1).await.is_none());
    store.delete(id).await.unwrap();
}

async fn a_range_past_the_end_is_an_error(store: &dyn BlobStore) {
    let id = Uuid::new_v4();
    put(store, id, &[Bytes::from_static(b"short")]).await;
    assert!(get(store, id, 0..6).await.unwrap().is_err(), "truncation must not look like success");
}

#[tokio::test]
async fn a_directory() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("files");
    let store = Directory::open(&root).await.unwrap();
    run(&store, 3 << 20).await;
    assert_eq!(std::fs::read_dir(root.join("incoming")).unwrap().count(), 0);
    assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
}

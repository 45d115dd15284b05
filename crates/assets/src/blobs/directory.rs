//! Files in a directory: `objects/ab/cd/<uuid>`, and `incoming/<uuid>` until they are whole.

use std::{
    io::{self, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufWriter},
};
use uuid::Uuid;

use super::{BlobStore, BlobWriter, ByteStream};

/// Bytes read at once.
pub(crate) const READ_BYTES: usize = 128 * 1024;
const WRITE_BYTES: usize = 256 * 1024;

/// A directory with files.
pub(crate) struct Directory {
    objects: PathBuf,
    incoming: PathBuf,
}

/// Makes a folder, and those above it, that only this user can enter.
pub(crate) async fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).await
}

/// Makes what happened to the names in a folder survive a loss of power.
async fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path).await?.sync_all().await
}

fn not_found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new file that only this user can read, also while it is written.
pub(crate) async fn create_private(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(path).await
}

/// Removes a file; one that is not there is no error.
pub(crate) async fn remove(path: &Path) -> io::Result<()> {
    not_found(fs::remove_file(path).await).map(|_| ())
}

/// Removes the plain files of a folder that `keep` does not want.
pub(crate) async fn clear(folder: &Path, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut entries = fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let wanted = entry.file_name().to_str().is_some_and(&keep);
        if !wanted && entry.file_type().await?.is_file() {
            remove(&entry.path()).await?;
        }
    }
    Ok(())
}

/// The bytes of `range` of an open file; an error when it ends before.
pub(crate) async fn read(mut file: File, range: Range<u64>) -> io::Result<ByteStream> {
    file.seek(SeekFrom::Start(range.start)).await?;
    let left = range.end.saturating_sub(range.start);
    let parts = stream::try_unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let bytes = read_some(&mut file, left).await?;
        let left = left.saturating_sub(bytes.len() as u64);
        Ok(Some((bytes, (file, left))))
    });
    Ok(parts.boxed())
}

/// Between one byte and [`READ_BYTES`], but no more than `most`; an error at the end of the file.
pub(crate) async fn read_some(file: &mut File, most: u64) -> io::Result<Bytes> {
    let size = usize::try_from(most).unwrap_or(usize::MAX).min(READ_BYTES);
    let mut buffer = BytesMut::with_capacity(size);
    let read = file.take(size as u64).read_buf(&mut buffer).await?;
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(buffer.freeze()) }
}

impl Directory {
    /// Opens the directory, making it if needed.
    pub(crate) async fn open(root: &Path) -> io::Result<Self> {
        let directory = Self { objects: root.join("objects"), incoming: root.join("incoming") };
        make_folder(&directory.objects).await?;
        make_folder(&directory.incoming).await?;
        Ok(directory)
    }

    fn path(&self, id: Uuid) -> PathBuf {
        let name = id.to_string();
        self.objects.join(&name[..2]).join(&name[2..4]).join(name)
    }
}

#[async_trait]
impl BlobStore for Directory {
    async fn create(&self, id: Uuid) -> io::Result<Box<dyn BlobWriter>> {
        let temporary = self.incoming.join(id.to_string());
        let file = BufWriter::with_capacity(WRITE_BYTES, create_private(&temporary).await?);
        Ok(Box::new(Incoming { file, temporary, target: self.path(id), objects: self.objects.clone() }))
    }

    async fn open(&self, id: Uuid, range: Range<u64>) -> io::Result<Option<ByteStream>> {
        match not_found(File::open(self.path(id)).await)? {
            Some(file) => read(file, range).await.map(Some),
            None => Ok(None),
        }
    }

    async fn delete(&self, id: Uuid) -> io::Result<()> {
        remove(&self.path(id)).await
    }

    async fn sweep(&self) -> io::Result<()> {
        clear(&self.incoming, |_| false).await
    }

    async fn link(&self, _: Uuid, _: &str) -> io::Result<Option<String>> {
        Ok(None)
    }
}

struct Incoming {
    file: BufWriter<File>,
    temporary: PathBuf,
    target: PathBuf,
    objects: PathBuf,
}

#[async_trait]
impl BlobWriter for Incoming {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.file.write_all(&bytes).await
    }

    async fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.file.flush().await?;
        self.file.get_ref().sync_all().await?;
        // `objects/ab/cd/<uuid>`: both folders may be new.
        let folders = [self.target.parent(), self.target.parent().and_then(Path::parent), Some(self.objects.as_path())];
        if let Some(folder) = folders[0] {
            make_folder(folder).await?;
        }
        fs::rename(&self.temporary, &self.target).await?;
        for folder in folders.into_iter().flatten() {
            sync_folder(folder).await?;
        }
        Ok(())
    }

    async fn abort(self: Box<Self>) {
        if let Err(error) = remove(&self.temporary).await {
            tracing::warn!(%error, "what is left of an upload cannot be removed");
        }
    }
}

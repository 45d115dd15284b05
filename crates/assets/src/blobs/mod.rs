//! Where the bytes of files are kept: a directory, or an object store. What they are, whose, and who may read them is
//! not known here.

pub(crate) mod directory;
#[cfg(feature = "s3")]
pub(crate) mod s3;
#[cfg(test)]
pub(crate) mod suite;

use std::{io, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use uuid::Uuid;

/// Bytes on their way. An error ends the stream; a stream that ends without one was whole.
pub(crate) type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Keeps the bytes of files.
#[async_trait]
pub(crate) trait BlobStore: Send + Sync {
    /// Begins a file. Nothing is visible before [`BlobWriter::finish`], and nothing stays when the writer is dropped
    /// before, but for what [`BlobStore::sweep`] finds.
    async fn create(&self, id: Uuid) -> io::Result<Box<dyn BlobWriter>>;

    /// The bytes of `range`, which lies within the file. `None` when there is no such file. A file that ends early is an
    /// error in the stream.
    async fn open(&self, id: Uuid, range: Range<u64>) -> io::Result<Option<ByteStream>>;

    /// Removes a file; one that is not there is no error. Streams that are open may go on or break.
    async fn delete(&self, id: Uuid) -> io::Result<()>;

    /// Removes what writers that were never finished have left. Called at the start, when there are no writers.
    async fn sweep(&self) -> io::Result<()>;

    /// A URL at which the bytes can be had for some minutes without us, if there is such a thing.
    async fn link(&self, id: Uuid, media_type: &str) -> io::Result<Option<String>>;
}

/// A file on its way in.
#[async_trait]
pub(crate) trait BlobWriter: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> io::Result<()>;

    /// Makes the file durable and visible.
    async fn finish(self: Box<Self>) -> io::Result<()>;

    /// Removes what was written.
    async fn abort(self: Box<Self>);
}

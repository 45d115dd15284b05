//! The files of the app, as they were when this crate was built.

use std::{borrow::Cow, collections::BTreeMap};

use rust_embed::{EmbeddedFile, RustEmbed};

/// What the build of the app wrote; nothing when there was none.
#[derive(RustEmbed)]
#[folder = "app/dist/"]
#[allow_missing = true]
struct Built;

/// The page that is the app.
pub(crate) const INDEX: &str = "index.html";
/// The build writes the compressed form of a file beside it.
const COMPRESSED: &str = ".gz";

/// One file as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) bytes: Cow<'static, [u8]>,
    /// The same, compressed with gzip, where that is smaller.
    pub(crate) gzip: Option<Cow<'static, [u8]>>,
    pub(crate) media_type: String,
    /// Another one for other bytes.
    pub(crate) digest: String,
}

/// Files by their path below `/app/`.
#[derive(Debug, Default)]
pub(crate) struct Files(BTreeMap<String, File>);

impl Files {
    /// Those that are in this binary.
    pub(crate) fn built() -> Self {
        Self::of(Built::iter().filter_map(|name| {
            let file = Built::get(&name)?;
            Some((name.into_owned(), file))
        }))
    }

    /// Puts every file together with its compressed form.
    pub(crate) fn of(found: impl IntoIterator<Item = (String, EmbeddedFile)>) -> Self {
        let (compressed, plain): (BTreeMap<_, _>, BTreeMap<_, _>) =
            found.into_iter().partition(|(name, _): &(String, _)| name.ends_with(COMPRESSED));
        let files = plain.into_iter().map(|(name, file)| {
            let gzip = compressed.get(&format!("{name}{COMPRESSED}")).map(|file| file.data.clone());
            let digest = hex::encode(file.metadata.sha256_hash());
            let media_type = match file.metadata.mimetype() {
                text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
                other => other.to_owned(),
            };
            (name, File { bytes: file.data, gzip, media_type, digest })
        });
        Self(files.collect())
    }

    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.0.get(path)
    }
}

pub(crate) fn is_built() -> bool {
    Built::get(INDEX).is_some()
}

//! Backend domains: the identity of an installation, fixed for life.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Local, Locality, Qualified, Remote};

/// A backend domain in lower case: at least two labels (or `localhost`), labels of 1–63 letters, digits and hyphens
/// that neither start nor end with a hyphen, the last one not starting with a digit, at most 253 bytes in all.
///
/// Parsing lower-cases and drops one trailing dot, so that two spellings of one domain are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

/// The text is not a backend domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a domain: two or more labels of letters, digits and hyphens are expected, the last one starting with a letter"
)]
pub struct InvalidDomain;

const MAX_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

impl Domain {
    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Places a qualified value: ours, or another backend's.
    pub fn locate<T>(&self, value: Qualified<T>) -> Locality<T> {
        if value.domain == *self { Locality::Local(Local::new(value)) } else { Locality::Remote(Remote::new(value)) }
    }

    /// Qualifies a bare value with this domain, which must be our own.
    pub fn own<T>(&self, id: T) -> Local<T> {
        Local::new(Qualified { id, domain: self.clone() })
    }
}

fn valid_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl FromStr for Domain {
    type Err = InvalidDomain;

    fn from_str(text: &str) -> Result<Self, InvalidDomain> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > MAX_BYTES || !text.split('.').all(valid_label) {
            return Err(InvalidDomain);
        }
        let text = text.to_ascii_lowercase();
        let last = text.rsplit('.').next().unwrap_or_default();
        let labels = text.split('.').count();
        if (labels < 2 && text != "localhost") || last.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(InvalidDomain);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

//! Files that users exchange.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::{InvalidId, Timestamp};

/// For how long an asset is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retention {
    /// Until it is deleted.
    Eternal,
    /// Until it is deleted; what apps that name no class get.
    #[default]
    Persistent,
    /// 28 days.
    Volatile,
    /// Until it is deleted, and it is seldom read.
    #[serde(rename = "eternal-infrequent_access")]
    EternalInfrequentAccess,
    /// 365 days.
    Expiring,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Retention {
    /// Every class.
    pub const ALL: [Self; 5] =
        [Self::Eternal, Self::Persistent, Self::Volatile, Self::EternalInfrequentAccess, Self::Expiring];

    /// The number that stands in keys.
    pub const fn number(self) -> u8 {
        match self {
            Self::Eternal => 1,
            Self::Persistent => 2,
            Self::Volatile => 3,
            Self::EternalInfrequentAccess => 4,
            Self::Expiring => 5,
        }
    }

    /// The class with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }

    /// When an asset that is stored `now` ends; `None`: it never does by itself.
    pub fn expires(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Volatile => Some(now.plus(DAY * 28)),
            Self::Expiring => Some(now.plus(DAY * 365)),
            Self::Eternal | Self::Persistent | Self::EternalInfrequentAccess => None,
        }
    }
}

/// Names an asset on its backend: `3-<number of the retention class>-<uuid>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetKey {
    /// For how long the asset is kept.
    pub retention: Retention,
    /// Unique on its backend.
    pub id: Uuid,
}

impl fmt::Display for AssetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3-{}-{}", self.retention.number(), self.id)
    }
}

impl fmt::Debug for AssetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AssetKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (class, id) = text.strip_prefix("3-").and_then(|rest| rest.split_once('-')).ok_or(InvalidId)?;
        let (&[digit @ b'0'..=b'9'], 36) = (class.as_bytes(), id.len()) else { return Err(InvalidId) };
        let retention = Retention::from_number(digit - b'0').ok_or(InvalidId)?;
        Ok(Self { retention, id: Uuid::try_parse(id).map_err(|_| InvalidId)? })
    }
}

impl Serialize for AssetKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AssetKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The media type of an asset as its uploader states it: `type/subtype` in lower case, without parameters, at most
/// 128 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaType(String);

const MAX_MEDIA_TYPE: usize = 128;

impl MediaType {
    /// Bytes of which nothing is known, as encrypted ones.
    pub fn octet_stream() -> Self {
        Self("application/octet-stream".to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a browser that opens it runs nothing: pictures, sound and film, but no vector graphics.
    pub fn is_inert(&self) -> bool {
        let (kind, subtype) = self.0.split_once('/').unwrap_or_default();
        matches!(kind, "image" | "audio" | "video") && !subtype.starts_with("svg") && !subtype.ends_with("xml")
    }

    /// Whether a pattern names it: `image/png`, `image/*` or `*/*`.
    pub fn matches(&self, pattern: &str) -> bool {
        match pattern.strip_suffix("/*") {
            Some("*") => true,
            Some(kind) => self.0.split_once('/').is_some_and(|(it, _)| it.eq_ignore_ascii_case(kind)),
            None => self.0.eq_ignore_ascii_case(pattern),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MediaType {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        match essence.split_once('/') {
            Some((kind, subtype)) if essence.len() <= MAX_MEDIA_TYPE && token(kind) && token(subtype) => {
                Ok(Self(essence.to_ascii_lowercase()))
            }
            _ => Err(InvalidId),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_strictly_and_written_as_they_were() {
        for text in ["3-1-47de4580-ae51-4650-acbb-d10c028cb0ac", "3-5-47de4580-ae51-4650-acbb-d10c028cb0ac"] {
            assert_eq!(text.parse::<AssetKey>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "3-2",
            "3-0-47de4580-ae51-4650-acbb-d10c028cb0ac",
            "3-6-47de4580-ae51-4650-acbb-d10c028cb0ac",
            "2-2-47de4580-ae51-4650-acbb-d10c028cb0ac",
            "3-22-47de4580-ae51-4650-acbb-d10c028cb0ac",
            "3-2-47de4580ae514650acbbd10c028cb0ac",
            "3-2-47de4580-ae51-4650-acbb-d10c028cb0ag",
        ] {
            assert!(text.parse::<AssetKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_volatile_and_expiring_assets_end() {
        let now = Timestamp::from_millis(1000);
        let ends: Vec<_> =
            Retention::ALL.iter().map(|class| class.expires(now).map(|it| it.since(now) / 86_400)).collect();
        let second = Duration::from_secs(1);
        assert_eq!(ends, [None, None, Some(second * 28), None, Some(second * 365)]);
        let names: Vec<_> = Retention::ALL.iter().map(|class| serde_json::to_value(class).unwrap()).collect();
        assert_eq!(names, ["eternal", "persistent", "volatile", "eternal-infrequent_access", "expiring"]);
    }

    #[test]
    fn media_types_lose_case_and_parameters() {
        let html: MediaType = "Text/HTML; charset=utf-8".parse().unwrap();
        assert_eq!(html.as_str(), "text/html");
        assert!(!html.is_inert() && html.matches("text/*") && html.matches("*/*") && !html.matches("image/*"));
        assert!("image/png".parse::<MediaType>().unwrap().is_inert());
        assert!(!"image/svg+xml".parse::<MediaType>().unwrap().is_inert());
        for text in ["", "text", "text/", "/html", "te xt/html", "text/html\r\nx: y"] {
            assert!(text.parse::<MediaType>().is_err(), "{text:?}");
        }
    }
}

//! Ids together with the domain that owns them, and their placement relative to our own domain.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Domain;

/// An id and its owning domain; JSON `{"domain": …, "id": …}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Qualified<T> {
    /// The domain that owns the object.
    pub domain: Domain,
    /// The bare id.
    pub id: T,
}

impl<T> Qualified<T> {
    /// Joins an id and its domain.
    pub fn new(id: T, domain: Domain) -> Self {
        Self { domain, id }
    }
}

impl<T: fmt::Display> fmt::Display for Qualified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.domain)
    }
}

/// A qualified value of our own domain. Made by [`Domain::own`] and [`Domain::locate`] only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Local<T>(Qualified<T>);

/// A qualified value of another domain. Made by [`Domain::locate`] only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote<T>(Qualified<T>);

/// Where a qualified value lives, seen from our own domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locality<T> {
    /// It is ours.
    Local(Local<T>),
    /// It is another backend's.
    Remote(Remote<T>),
}

macro_rules! placed {
    ($name:ident) => {
        impl<T> $name<T> {
            pub(crate) fn new(value: Qualified<T>) -> Self {
                Self(value)
            }

            /// The bare id.
            pub fn id(&self) -> &T {
                &self.0.id
            }

            /// The owning domain.
            pub fn domain(&self) -> &Domain {
                &self.0.domain
            }

            /// The value without its placement.
            pub fn as_qualified(&self) -> &Qualified<T> {
                &self.0
            }

            /// The value without its placement.
            pub fn into_qualified(self) -> Qualified<T> {
                self.0
            }
        }
    };
}

placed!(Local);
placed!(Remote);

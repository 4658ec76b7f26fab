//! Identifiers. Text identifiers are what users see; keys are the integers under which rows are stored.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest dag_id or task_id in bytes: a file name must hold it.
pub const MAX_ID_BYTES: usize = 200;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<Arc<str>> for $name {
            fn from(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_id!(
    /// Identifies a DAG: `^[\w.-]+$`, at most [`MAX_ID_BYTES`].
    DagId
);
text_id!(
    /// Identifies a run within its DAG, e.g. `scheduled__2026-11-21T00:00:00+00:00`.
    RunId
);
text_id!(
    /// Names an asset: a name of `[assets]`, or a uri.
    AssetName
);
text_id!(
    /// Identifies a task within its DAG: `^[\w.-]+$`, at most [`MAX_ID_BYTES`].
    TaskId
);
text_id!(
    /// Identifies a pool.
    PoolName
);

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

key!(
    /// The row of a run. The scheduler assigns it, so that intent can name it before it is committed.
    RunKey
);
key!(
    /// The row of a task instance: one (run, task, map_index) over all its tries.
    InstanceKey
);
key!(
    /// The row of one distinct definition of a DAG (`dag_version`).
    VersionKey
);

key!(
    /// The row of a callback: positive.
    CallbackKey
);

key!(
    /// The row of a deadline.
    DeadlineKey
);

key!(
    /// The row of an asset or an alias.
    AssetKey
);

key!(
    /// The row of a backfill, and the number by which users name it.
    BackfillId
);

/// Identifies one try of one task instance. Nothing is ever run twice for the same `TryKey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TryKey {
    pub instance: InstanceKey,
    /// 1 for the first try.
    pub try_number: u32,
}

impl fmt::Display for TryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instance, self.try_number)
    }
}

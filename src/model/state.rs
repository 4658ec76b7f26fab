//! States and rules under Airflow's names (SEMANTICS 1, 3, 10).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares an enum whose variants have a fixed text, for the database, JSON and messages alike.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every variant, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::model::state::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::model::state::UnknownName(text.to_owned())),
                }
            }
        }
    };
}

pub(super) use named;

/// A text that names no variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName(pub String);

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown name `{}`", self.0)
    }
}

impl std::error::Error for UnknownName {}

named!(
    /// The state of a task instance. Airflow's null state is [`TaskState::None`]; JSON and the database show it as null.
    TaskState {
        /// Created with its run, or cleared; waits for its dependencies.
        None = "none",
        Scheduled = "scheduled",
        Queued = "queued",
        Running = "running",
        Success = "success",
        Restarting = "restarting",
        Failed = "failed",
        UpForRetry = "up_for_retry",
        UpForReschedule = "up_for_reschedule",
        UpstreamFailed = "upstream_failed",
        Skipped = "skipped",
        Deferred = "deferred",
        AwaitingInput = "awaiting_input",
        Removed = "removed",
    }
);

impl TaskState {
    /// Null for [`TaskState::None`], as Airflow's API and database show it.
    pub fn as_nullable(self) -> Option<&'static str> {
        (self != Self::None).then(|| self.as_str())
    }

    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Skipped | Self::UpstreamFailed | Self::Removed)
    }

    /// `success` or `skipped`.
    pub const fn is_success_like(self) -> bool {
        matches!(self, Self::Success | Self::Skipped)
    }

    /// `failed` or `upstream_failed`.
    pub const fn is_failed_like(self) -> bool {
        matches!(self, Self::Failed | Self::UpstreamFailed)
    }

    /// Null, `up_for_retry` or `up_for_reschedule`: a scheduling pass may move it on.
    pub const fn is_schedulable(self) -> bool {
        matches!(self, Self::None | Self::UpForRetry | Self::UpForReschedule)
    }

    /// `queued` or `running`: holds slots.
    pub const fn is_executing(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

named!(
    /// The state of a DAG run.
    RunState {
        Queued = "queued",
        Running = "running",
        Success = "success",
        Failed = "failed",
    }
);

impl RunState {
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

named!(
    /// How a run came to be. The text is also the prefix of its run_id.
    RunType {
        Scheduled = "scheduled",
        Manual = "manual",
        Backfill = "backfill",
        AssetTriggered = "asset_triggered",
        OperatorTriggered = "operator_triggered",
        AssetMaterialization = "asset_materialization",
    }
);

named!(
    /// Which existing runs a backfill does over again (SEMANTICS 8).
    Reprocess {
        None = "none",
        Failed = "failed",
        /// Those that have ended, however.
        Completed = "completed",
    }
);

named!(
    /// Why a date of a backfill gets no run (Airflow: `exception_reason`).
    SkipReason {
        /// Its run is queued or running, or a process of it still lives.
        InFlight = "in flight",
        AlreadyExists = "already exists",
        /// The backfill was cancelled before it came to this date.
        Cancelled = "cancelled",
    }
);

named!(
    /// When a task runs, given the states of its upstream tasks (SEMANTICS 3).
    TriggerRule {
        AllSuccess = "all_success",
        AllFailed = "all_failed",
        AllDone = "all_done",
        AllDoneMinOneSuccess = "all_done_min_one_success",
        AllDoneSetupSuccess = "all_done_setup_success",
        AllSkipped = "all_skipped",
        Always = "always",
        NoneFailed = "none_failed",
        NoneFailedMinOneSuccess = "none_failed_min_one_success",
        NoneSkipped = "none_skipped",
        OneDone = "one_done",
        OneFailed = "one_failed",
        OneSuccess = "one_success",
    }
);

named!(
    /// How the effective priority follows from the weights of a task and its relatives (SEMANTICS 10).
    WeightRule {
        Downstream = "downstream",
        Upstream = "upstream",
        Absolute = "absolute",
        CriticalPath = "critical_path",
    }
);

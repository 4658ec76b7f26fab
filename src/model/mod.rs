//! Plain data that every layer shares: identifiers, states, DAG definitions, runs, task instances.
//!
//! Knows no file, no thread, no clock and no database. Everything above may use it.

pub mod admission;
pub mod asset;
pub mod backfill;
pub mod branching;
pub mod callback;
pub mod cost;
pub mod dag;
pub mod deadline;
pub mod decider;
pub mod docker;
pub mod graph;
pub mod ids;
pub mod instance;
pub mod limits;
pub mod mapping;
pub mod needs;
pub mod pool;
pub mod retry;
pub mod run;
pub mod sensor;
pub mod sql;
pub mod state;
pub mod tool;
pub mod trigger_dag;
pub mod wait;

pub use admission::{AdmissionRules, ParallelismRange, Thresholds};
pub use asset::{Asset, AssetDefinition, AssetEvent, AssetExpression, EventSource, OutletEvent, SettledFile, Stamp};
pub use backfill::{Backfill, BackfillPlace, DateFate};
pub use branching::SkipDecision;
pub use callback::{Callback, CallbackRow, CallbackState, Hook, Occasion, TaskCallbacks, When};
pub use cost::Cost;
pub use dag::{Bash, Catchup, Crons, Dag, Every, Intervals, KillTree, Operator, Output, Period, Python, Requirements};
pub use dag::{RunAs, RunImmediately, Schedule, Script, Task, Template, Venv};
pub use decider::{Bound, Branch, Choice, Condition, Question, ShortCircuit};
pub use docker::{AutoRemove, Mount, MountKind, Pull};
pub use graph::{Graph, Node, Role, TaskIx};
pub use ids::{AssetKey, AssetName};
pub use ids::{
    BackfillId, CallbackKey, DagId, DeadlineKey, InstanceKey, PoolName, RunId, RunKey, TaskId, TryKey, VersionKey,
};
pub use instance::{Instance, ProcessIdentity, Usage};
pub use limits::{Enforce, Exceeded, IoPriority, Limits};
pub use mapping::{Form, Group, GroupIx, Input, Mapping, MappingIx, XcomInput};
pub use needs::{NeededMemory, Needs, Reservable};
pub use pool::Pool;
pub use retry::{EndedBy, RetryRule};
pub use run::{DagRun, DataInterval, NextRun};
pub use sensor::{Pace, Sensor, SensorKind, SensorMode};
pub use sql::{Sql, SqlDatabase, SqlOutput, SqlScript};
pub use state::{Reprocess, RunState, RunType, SkipReason, TaskState, TriggerRule, WeightRule};
pub use tool::{Tool, ToolField, ToolKind};
pub use trigger_dag::{AskedDate, AwaitedStates, Existing, ExternalTaskMarker, RunRequest, TriggerDag};
pub use wait::{Awaited, Wait};

//! What a simulated sensor waits for. It holds its slots for one look, as the real one does, and none while it waits: what it waits for
//! comes when its try has lasted as long as it is expected to, unless its `timeout` is over before.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Awaited, Operator, Sensor, SensorMode, Task, Wait};

/// How long a look takes, in microseconds: as good as nothing.
pub(super) const LOOK: i64 = 1;

/// The task is a sensor, and not one that looks once only.
pub(super) fn waits(task: &Task) -> bool {
    waiting(task).is_some()
}

fn waiting(task: &Task) -> Option<&Sensor> {
    match &task.operator {
        Operator::Sensor(sensor) if !sensor.timeout.is_zero() => Some(sensor),
        _ => None,
    }
}

/// What a try waits for that begins now, if its task waits; `earlier` is what it waited for in the try before.
pub(super) fn wait(task: &Task, earlier: Option<&Wait>, now: Timestamp) -> Option<Wait> {
    let sensor = waiting(task)?;
    Some(Wait {
        // Of all that may be awaited a file is what nothing brings but news of it.
        awaited: Awaited::File { pattern: "".into(), settle: Duration::ZERO, shown: None },
        mode: sensor.mode,
        since: earlier.map_or(now, |earlier| earlier.since),
        timeout: Some(sensor.timeout),
        execution_timeout: task.execution_timeout.filter(|_| sensor.mode == SensorMode::Poke),
        soft_fail: sensor.soft_fail,
        pace: sensor.pace,
    })
}

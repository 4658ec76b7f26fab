//! What a waiting sensor holds of memory in the world: bytes that are taken and not given back, counted and not estimated.

use super::*;
use crate::model::{Awaited, Pace, SensorMode};
use crate::scheduler::world::{Action, Now, World};
use crate::supervisor::sys::counted;

const SENSORS: usize = 1_000;
const MINUTE: Duration = Duration::from_secs(60);

/// A DAG of so many sensors. Their ids are as long as a user's, mostly.
fn dag() -> String {
    let sensor = |number| format!("[tasks.wait_for_{number:04}]\nsensor = {{ time_delta = \"5d\" }}\n");
    format!("max_active_tasks = {SENSORS}\n{}", (0..SENSORS).map(sensor).collect::<String>())
}

fn wait(awaited: Awaited, since: Timestamp) -> Wait {
    Wait {
        awaited,
        mode: SensorMode::Poke,
        since,
        timeout: Some(MINUTE * 60 * 24 * 7),
        execution_timeout: None,
        soft_fail: false,
        pace: Pace { poke_interval: MINUTE, is_exponential: false, max_wait: None },
    }
}

/// All that a run of sensors takes from its trigger on, for each of them, once all wait.
fn bytes_of_one(awaited: impl Fn(usize, Timestamp) -> Awaited) -> isize {
    let mut world: World = world_of(&[("d.toml", &dag())]);
    let now = Now { wall: "2026-11-21T12:30:00Z".parse().unwrap(), boot: BootInstant(Duration::from_secs(1_000)) };
    let mut store = MemoryStore::default();
    let before = counted::live();
    let command = super::tests::trigger("d");
    world.apply(Event::Command { command, reply: ReplyTo::new(|_| ()) }, now, &mut store);
    let mut waiting = 0;
    while waiting < SENSORS {
        world.decide(now, &mut store).unwrap();
        let (_, actions) = world.take_turn();
        for action in actions {
            let Action::Start(work) = action else { continue };
            let outcome = Outcome::Deferred(Box::new(wait(awaited(waiting, now.wall), now.wall)));
            let end = TryEnd { started_at: Some(now.wall), ..TryEnd::new(work.key, outcome, now.wall) };
            world.apply(Event::Ended(Box::new(end)), now, &mut store);
            waiting += 1;
        }
    }
    world.decide(now, &mut store).unwrap();
    drop(world.take_turn());
    (counted::live() - before) / SENSORS as isize
}

#[test]
fn what_the_world_holds_for_a_waiting_sensor_is_within_its_bound() {
    let time = bytes_of_one(|_, now| Awaited::Instant(now + 60 * MINUTE));
    let file = |number: usize, _| {
        let pattern = format!("/srv/landing/partner_{number:04}/*.csv").into();
        Awaited::File { pattern, settle: Duration::from_secs(2), shown: None }
    };
    let file = bytes_of_one(file);
    let service = bytes_of_one(|_, from| Awaited::Service { from, after: MINUTE });
    // With what `settled` holds for it, which has a bound of its own, a file's sensor is within 1,024 bytes.
    assert!(time <= 784 && service <= 784 && file <= 752, "time {time}, service {service}, file {file}");
}

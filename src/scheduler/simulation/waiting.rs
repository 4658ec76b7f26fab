//! Property: whatever restarts come between, each sensor ends once, and its clock runs from its first start.

use std::collections::BTreeMap;

use super::random::Dice;
use super::tests::trigger;
use super::*;
use crate::model::{Awaited, Instance, Pace, SensorMode, Wait};
use crate::scheduler::sensor::{Next, after_look, wait_is_over};

const SENSORS: usize = 16;
const POKE: Duration = Duration::from_secs(60);

/// By what a sensor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Instant,
    File,
    /// A worker looks.
    Script,
    Service,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Instant, "time_delta = \"1h\""),
    (Kind::File, "file = \"/in/x\""),
    (Kind::Script, "bash = \"x\""),
    (Kind::Service, "http = { url = \"http://h/\" }"),
];

#[derive(Clone, Copy, Debug)]
struct Sensor {
    kind: Kind,
    mode: SensorMode,
    comes_at: Timestamp,
    timeout: Duration,
}

struct Crowd {
    simulation: Simulation,
    dice: Dice,
    sensors: Vec<Sensor>,
    /// By task: start_date and the beginning of its clock.
    begun: BTreeMap<String, (Option<Timestamp>, Timestamp)>,
    ended: BTreeMap<String, Instance>,
    told: Vec<String>,
}

impl Crowd {
    fn gather(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let (mut text, mut ids, mut plans) = (String::new(), Vec::new(), Vec::new());
        for number in 0..SENSORS {
            let (kind, key) = KINDS[dice.below(KINDS.len())];
            let mode = if dice.one_in(2) { SensorMode::Poke } else { SensorMode::Reschedule };
            let mode_key = if mode == SensorMode::Poke { "poke" } else { "reschedule" };
            text += &format!(
                "[tasks.s{number}]\nsensor = {{ {key}, mode = \"{mode_key}\" }}\nretries = 2\nretry_delay = 0\n"
            );
            ids.push(format!("\"s{number}\""));
            plans.push((kind, mode, dice.below(1_500) as u64, 200 + dice.below(1_000) as u64));
        }
        text +=
            &format!("[tasks.after]\nbash = \"x\"\ndepends_on = [{}]\ntrigger_rule = \"all_done\"\n", ids.join(", "));
        let mut simulation = Simulation::with(&[("d.toml", &text)]);
        let now = simulation.clock.now();
        let sensors = plans.into_iter().map(|(kind, mode, comes, timeout)| Sensor {
            kind,
            mode,
            comes_at: now + Duration::from_secs(comes),
            timeout: Duration::from_secs(timeout),
        });
        let sensors = sensors.collect();
        simulation.command(trigger("d"));
        Self { simulation, dice, sensors, begun: BTreeMap::new(), ended: BTreeMap::new(), told: Vec::new() }
    }

    fn rows(&self) -> impl Iterator<Item = (Sensor, Instance)> {
        let rows = self.simulation.store.instances().into_iter();
        let sensors = self.sensors.clone();
        rows.filter_map(move |row| Some((sensors[row.task_id.strip_prefix('s')?.parse::<usize>().ok()?], row)))
    }

    /// What a worker, or who looks for it, says at this moment.
    fn said(&self, sensor: Sensor, row: &Instance) -> Outcome {
        let now = self.simulation.clock.now();
        let since = row.deferral.as_ref().map_or(now, |wait| wait.since);
        let wait = |awaited| Wait {
            awaited,
            mode: sensor.mode,
            since,
            timeout: Some(sensor.timeout),
            execution_timeout: None,
            soft_fail: false,
            pace: Pace { poke_interval: POKE, is_exponential: false, max_wait: None },
        };
        let waits = matches!(row.state, TaskState::Deferred | TaskState::UpForReschedule);
        match sensor.kind {
            Kind::Instant => Outcome::Deferred(Box::new(wait(Awaited::Instant(sensor.comes_at)))),
            Kind::File => {
                let awaited = Awaited::File { pattern: "/in/x".into(), settle: Duration::ZERO, shown: None };
                Outcome::Deferred(Box::new(wait(awaited)))
            }
            Kind::Service if !waits => {
                Outcome::Deferred(Box::new(wait(Awaited::Service { from: now, after: Duration::ZERO })))
            }
            Kind::Script | Kind::Service if sensor.comes_at <= now => Outcome::Exited(0),
            Kind::Script | Kind::Service => {
                let awaited = |after| match sensor.kind {
                    Kind::Script => Awaited::Look { from: now, after },
                    _ => Awaited::Service { from: now, after },
                };
                match after_look(&wait(awaited(POKE)), "d", &row.task_id, now) {
                    Next::After(after) => Outcome::Deferred(Box::new(wait(awaited(after)))),
                    Next::GiveUp => wait_is_over(&wait(awaited(POKE)), "it is not there"),
                }
            }
        }
    }

    /// Those that have something to say do so, some of them.
    fn report(&mut self) {
        let now = self.simulation.clock.now();
        let rows: Vec<(Sensor, Instance)> = self.rows().collect();
        for (sensor, row) in rows {
            if self.dice.one_in(3) {
                continue;
            }
            let key = row.try_key();
            let (is_held, is_looked_for, is_watched) = {
                let calls = self.simulation.calls.0.lock();
                (calls.names.contains_key(&key), calls.looks.contains(&key), calls.watched.contains(&key))
            };
            if is_held {
                let is_stray = self.told.iter().rev().find(|line| line.ends_with(&format!("d.{} try 1", row.task_id)));
                let is_stray = is_stray.is_some_and(|line| line.starts_with("reclaim"));
                let outcome = if is_stray { Outcome::Lost } else { self.said(sensor, &row) };
                let end = TryEnd { started_at: Some(now), ..TryEnd::new(key, outcome, now) };
                self.simulation.turn(Event::Ended(Box::new(end)));
            } else if is_looked_for {
                self.simulation.calls.0.lock().looks.remove(&key);
                let end = TryEnd::new(key, self.said(sensor, &row), now);
                self.simulation.turn(Event::Looked(vec![end]));
            } else if is_watched && sensor.comes_at <= now {
                self.simulation.calls.0.lock().watched.remove(&key);
                self.simulation.turn(Event::Fired { key, verdict: Verdict::There(serde_json::json!(["/in/x"])) });
            }
            let told = self.simulation.trace();
            self.told.extend(told);
        }
    }

    fn step(&mut self) {
        match self.dice.below(8) {
            0 => {
                let told = self.simulation.trace();
                self.told.extend(told);
                let (clock, store) = (self.simulation.clock.clone(), self.simulation.store.clone());
                let (settings, files) = (self.simulation.settings.clone(), self.simulation.files.clone());
                self.simulation = Simulation::start(clock, store, settings, files);
                self.simulation.rescan();
            }
            1 | 2 => self.simulation.advance(Duration::from_secs(1 + self.dice.below(40) as u64)),
            _ => self.report(),
        }
        let told = self.simulation.trace();
        self.told.extend(told);
        self.check();
    }

    fn check(&mut self) {
        let rows: Vec<(Sensor, Instance)> = self.rows().collect();
        for (sensor, row) in rows {
            let task = row.task_id.to_string();
            assert_eq!(row.try_number.max(1), 1, "{task} {sensor:?}: {row:?}");
            if let Some(wait) = &row.deferral {
                let begun = *self.begun.entry(task.clone()).or_insert((row.start_date, wait.since));
                assert_eq!(begun, (row.start_date, wait.since), "{task} {sensor:?}");
            }
            if !row.state.is_finished() {
                assert!(!self.ended.contains_key(&task), "{task} {sensor:?} has ended and is {}", row.state);
                continue;
            }
            if let Some(ended) = self.ended.get(&task) {
                assert_eq!(*ended, row, "{task} {sensor:?} ends once");
                continue;
            }
            let end = row.end_date.unwrap();
            let (start, since) = self.begun.get(&task).copied().unwrap_or((row.start_date, end));
            assert_eq!(row.start_date, start, "{task} {sensor:?}");
            let over = since + sensor.timeout;
            match row.state {
                TaskState::Success => assert!(end >= sensor.comes_at, "{task} {sensor:?}: {end}"),
                TaskState::Failed if matches!(sensor.kind, Kind::Instant | Kind::File) => assert_eq!(end, over),
                TaskState::Failed => assert!(end >= over, "{task} {sensor:?}: {end} before {over}"),
                other => panic!("{task} {sensor:?} is {other}"),
            }
            self.ended.insert(task, row);
        }
    }
}

#[test]
fn no_sensor_is_lost_or_doubled_over_restarts_and_each_keeps_its_clock() {
    let (mut successes, mut failures, mut restarts) = (0, 0, 0);
    for seed in 0..20 {
        let mut crowd = Crowd::gather(seed);
        let mut steps = 0;
        while crowd.ended.len() < SENSORS {
            crowd.step();
            steps += 1;
            assert!(steps < 5_000, "seed {seed}: lost are all but {:?}", crowd.ended.keys());
        }
        let begins = crowd.told.iter().filter(|line| *line == "start d.after try 1").count();
        assert_eq!(begins, 1, "seed {seed}: {:?}", crowd.told);
        successes += crowd.ended.values().filter(|row| row.state == TaskState::Success).count();
        failures += crowd.ended.values().filter(|row| row.state == TaskState::Failed).count();
        restarts += crowd.told.iter().filter(|line| line.starts_with("reclaim") || line.starts_with("watch")).count();
    }
    // It has done its work.
    assert!(successes > 60 && failures > 60 && restarts > 60, "{successes} {failures} {restarts}");
}

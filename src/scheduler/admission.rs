//! Whether the host lets anything new start, and how many task instances it bears at once.
//!
//! Pure: is told of the host by readings, and says when it wants another. A reading is wanted only while something waits for a slot, so
//! that an idle minflow looks at nothing.

use std::time::Duration;

use crate::clock::BootInstant;
use crate::keytable::rough_size;
use crate::model::{AdmissionRules, ParallelismRange, Thresholds};

/// For how long a reading says how the host is.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// The key of the database's reserve, as all that is said of it names it.
pub(super) const RESERVE: &str = "database.min_free";

/// The host at one instant; None where it could not be read, or does not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostReading {
    pub cores: u32,
    pub load1: Option<f64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    pub memory_available: Option<u64>,
    /// Of the fullest of the folders' file systems.
    pub disk_free: Option<u64>,
    /// Where the database lies.
    pub database_free: Option<u64>,
    /// Percent, `some avg10`.
    pub cpu_pressure: Option<f64>,
    pub memory_pressure: Option<f64>,
    pub io_pressure: Option<f64>,
    pub is_on_battery: Option<bool>,
}

impl HostReading {
    fn memory_share(&self) -> Option<f64> {
        Some(self.memory_available? as f64 / self.memory_total.filter(|&total| total > 0)? as f64)
    }
}

/// Whether something may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    /// Open as well, while another reading is asked for.
    Stale,
    /// It takes a reading to know.
    Unknown,
    /// Until a later reading says otherwise.
    Shut,
}

/// What is known of the host.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    rules: AdmissionRules,
    read_at: Option<BootInstant>,
    /// A reading is on its way.
    is_asked: bool,
    /// Why nothing starts, in words.
    shut: Vec<String>,
}

impl Admission {
    pub fn new(rules: AdmissionRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Why nothing starts; empty while something may.
    pub fn shut(&self) -> &[String] {
        &self.shut
    }

    pub fn door(&self, now: BootInstant) -> Door {
        if self.rules.thresholds.is_off() {
            return Door::Open;
        }
        match self.read_at {
            Some(at) if now.since(at) < FRESH && self.shut.is_empty() => Door::Open,
            Some(at) if now.since(at) < FRESH => Door::Shut,
            _ if self.shut.is_empty() && self.rules.thresholds.is_reserve_alone() => Door::Stale,
            _ => Door::Unknown,
        }
    }

    /// Why the database's reserve keeps all from starting, in words.
    pub fn reserve(&self) -> Option<&str> {
        self.shut.iter().map(String::as_str).find(|why| why.contains(RESERVE))
    }

    /// When another reading is wanted while something waits; None: never.
    pub fn next_look(&self, now: BootInstant) -> Option<BootInstant> {
        (!self.rules.thresholds.is_off() || self.rules.parallelism.is_some())
            .then(|| self.read_at.map_or(now, |at| at.after(FRESH)))
    }

    /// Whether a reading is to be asked for: none is on its way. From now on one is.
    pub fn ask(&mut self) -> bool {
        !std::mem::replace(&mut self.is_asked, true)
    }

    /// The keys whose figures the host does not tell; told with the first reading alone.
    pub fn unread(&self, reading: &HostReading) -> Vec<&'static str> {
        let rules = &self.rules.thresholds;
        let pairs = [
            ("min_memory", rules.min_memory.is_some() && reading.memory_available.is_none()),
            ("min_disk", rules.min_disk.is_some() && reading.disk_free.is_none()),
            (RESERVE, rules.min_free.is_some() && reading.database_free.is_none()),
            ("max_load", rules.max_load.is_some() && reading.load1.is_none()),
            ("max_cpu_pressure", rules.max_cpu_pressure.is_some() && reading.cpu_pressure.is_none()),
            ("max_memory_pressure", rules.max_memory_pressure.is_some() && reading.memory_pressure.is_none()),
            ("max_io_pressure", rules.max_io_pressure.is_some() && reading.io_pressure.is_none()),
        ];
        let unread = pairs.into_iter().filter(|(_, is_unread)| *is_unread && self.read_at.is_none());
        unread.map(|(key, _)| key).collect()
    }

    /// Takes in a reading. True: what may start has changed.
    pub fn read(&mut self, reading: &HostReading, now: BootInstant) -> bool {
        self.is_asked = false;
        self.read_at = Some(now);
        let shut = broken(&self.rules.thresholds, reading);
        let was_shut = !self.shut.is_empty();
        self.shut = shut;
        was_shut == self.shut.is_empty()
    }

    /// How many instances may be under way, and why, if that is to change. `is_wanted`: as many are as may be, and more wait.
    pub fn parallelism(&self, reading: &HostReading, now: u32, is_wanted: bool) -> Option<(u32, String)> {
        let ParallelismRange { floor, ceiling } = self.rules.parallelism?;
        if let Some(strain) = strain(reading) {
            let less = (now - now.div_ceil(4)).max(floor);
            return (less < now).then_some((less, strain));
        }
        let more = (now + (now / 4).max(1)).min(ceiling);
        let ease = ease(reading).filter(|_| is_wanted && more > now)?;
        Some((more, ease))
    }

    /// With which number a start begins: two for each core.
    pub fn first_parallelism(range: ParallelismRange, cores: u32) -> u32 {
        (cores * 2).clamp(range.floor, range.ceiling)
    }
}

/// What of the reading lies beyond a threshold, in words. What could not be read keeps nobody.
fn broken(thresholds: &Thresholds, reading: &HostReading) -> Vec<String> {
    let mut broken = Vec::new();
    let mut least = |what: &str, key: &str, is: Option<u64>, least: Option<u64>| {
        if let Some((is, least)) = is.zip(least).filter(|(is, least)| is < least) {
            broken.push(format!("{what}: {} of the {} that `{key}` asks for", rough_size(is), rough_size(least)));
        }
    };
    least("memory available", "min_memory", reading.memory_available, thresholds.min_memory);
    least("disk free", "min_disk", reading.disk_free, thresholds.min_disk);
    least("disk free for the database", RESERVE, reading.database_free, thresholds.min_free);
    let mut most = |what: &str, key: &str, is: Option<f64>, most: Option<f64>, unit: &str| {
        if let Some((is, most)) = is.zip(most).filter(|(is, most)| is > most) {
            broken.push(format!("{what}: {is:.1}{unit}, more than the {most}{unit} of `{key}`"));
        }
    };
    most("load", "max_load", reading.load1, thresholds.max_load, "");
    most("CPU pressure", "max_cpu_pressure", reading.cpu_pressure, thresholds.max_cpu_pressure, " %");
    most("memory pressure", "max_memory_pressure", reading.memory_pressure, thresholds.max_memory_pressure, " %");
    most("I/O pressure", "max_io_pressure", reading.io_pressure, thresholds.max_io_pressure, " %");
    if thresholds.waits_on_battery && reading.is_on_battery == Some(true) {
        broken.push("the host runs on battery".to_owned());
    }
    broken
}

/// Too much is under way: by what, in words.
fn strain(reading: &HostReading) -> Option<String> {
    let share = reading.memory_share().filter(|&share| share < 0.10);
    let of_memory = share.map(|share| format!("{:.0} % of the memory is available", share * 100.0));
    let pressed = |what: &str, is: Option<f64>, most: f64| {
        is.filter(|&is| is > most).map(|is| format!("{what} pressure is {is:.0} %"))
    };
    let load = reading.load1.filter(|&load| load > f64::from(reading.cores) * 4.0);
    of_memory
        .or_else(|| pressed("memory", reading.memory_pressure, 20.0))
        .or_else(|| pressed("CPU", reading.cpu_pressure, 80.0))
        .or_else(|| pressed("I/O", reading.io_pressure, 80.0))
        .or_else(|| load.map(|load| format!("the load is {load:.1} on {} cores", reading.cores)))
}

/// More may be under way: by what, in words.
fn ease(reading: &HostReading) -> Option<String> {
    let is_calm = |is: Option<f64>, most: f64| is.is_none_or(|is| is < most);
    let is_easy = reading.memory_share().is_none_or(|share| share > 0.25)
        && (is_calm(reading.memory_pressure, 5.0) && is_calm(reading.io_pressure, 40.0))
        && is_calm(reading.cpu_pressure, 40.0)
        && is_calm(reading.load1, f64::from(reading.cores) * 1.5);
    is_easy.then(|| {
        let share = reading.memory_share().map(|share| format!(", {:.0} % of the memory is available", share * 100.0));
        let load = reading.load1.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.1}"));
        format!("tasks wait, the load is {load} on {} cores{}", reading.cores, share.unwrap_or_default())
    })
}

/// In the largest unit of which there is one.
#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant(Duration::from_secs(seconds))
    }

    fn calm() -> HostReading {
        HostReading {
            cores: 4,
            load1: Some(1.0),
            memory_total: Some(8_000_000_000),
            memory_available: Some(6_000_000_000),
            disk_free: Some(50_000_000_000),
            database_free: Some(50_000_000_000),
            cpu_pressure: Some(1.0),
            memory_pressure: Some(0.0),
            io_pressure: Some(0.0),
            is_on_battery: Some(false),
        }
    }

    #[test]
    fn without_thresholds_nothing_is_asked_and_the_door_is_open() {
        let admission = Admission::new(AdmissionRules::default());
        assert_eq!((admission.door(at(5)), admission.next_look(at(5))), (Door::Open, None));
    }

    #[test]
    fn a_reading_opens_or_shuts_the_door_for_a_second() {
        let mut admission = Admission::new(AdmissionRules {
            thresholds: Thresholds { min_memory: Some(1_000_000_000), ..Thresholds::default() },
            ..AdmissionRules::default()
        });
        assert_eq!(admission.door(at(5)), Door::Unknown);
        assert!(admission.ask() && !admission.ask(), "one reading is asked for at a time");
        assert!(!admission.read(&calm(), at(5)));
        assert_eq!((admission.door(at(5)), admission.door(at(6))), (Door::Open, Door::Unknown));
        assert!(admission.ask());
        assert!(admission.read(&HostReading { memory_available: Some(300_000_000), ..calm() }, at(6)));
        assert_eq!(admission.door(at(6)), Door::Shut);
        assert_eq!(admission.shut(), ["memory available: 300.0 MB of the 1.0 GB that `min_memory` asks for"]);
        assert_eq!(admission.next_look(at(6)), Some(at(7)));
        assert!(admission.read(&calm(), at(7)));
        assert_eq!(admission.door(at(7)), Door::Open);
    }

    #[test]
    fn a_reserve_alone_makes_no_start_wait_for_a_reading_until_one_shows_that_it_is_used_up() {
        let mut admission = Admission::new(AdmissionRules {
            thresholds: Thresholds { min_free: Some(1_000_000), ..Thresholds::default() },
            ..AdmissionRules::default()
        });
        assert_eq!(admission.door(at(5)), Door::Stale);
        assert!(!admission.read(&calm(), at(5)));
        assert_eq!(
            (admission.door(at(5)), admission.door(at(6)), admission.reserve()),
            (Door::Open, Door::Stale, None)
        );
        assert!(admission.read(&HostReading { database_free: Some(999_999), ..calm() }, at(6)));
        assert_eq!((admission.door(at(6)), admission.door(at(7))), (Door::Shut, Door::Unknown));
        let why = "disk free for the database: 1000.0 kB of the 1.0 MB that `database.min_free` asks for";
        assert_eq!(admission.reserve(), Some(why));
        assert!(admission.read(&calm(), at(8)));
        assert_eq!((admission.door(at(8)), admission.reserve()), (Door::Open, None));
    }

    #[test]
    fn each_threshold_shuts_by_itself_and_what_cannot_be_read_shuts_nothing() {
        let thresholds = Thresholds {
            min_memory: Some(1),
            min_disk: Some(60_000_000_000),
            min_free: Some(70_000_000_000),
            max_load: Some(0.5),
            max_cpu_pressure: Some(0.5),
            max_memory_pressure: Some(10.0),
            max_io_pressure: Some(10.0),
            waits_on_battery: true,
        };
        let reading = HostReading { memory_pressure: Some(50.0), is_on_battery: Some(true), ..calm() };
        assert_eq!(
            broken(&thresholds, &reading),
            [
                "disk free: 50.0 GB of the 60.0 GB that `min_disk` asks for",
                "disk free for the database: 50.0 GB of the 70.0 GB that `database.min_free` asks for",
                "load: 1.0, more than the 0.5 of `max_load`",
                "CPU pressure: 1.0 %, more than the 0.5 % of `max_cpu_pressure`",
                "memory pressure: 50.0 %, more than the 10 % of `max_memory_pressure`",
                "the host runs on battery",
            ]
        );
        assert_eq!(broken(&thresholds, &HostReading::default()), [""; 0]);
    }

    #[test]
    fn parallelism_grows_while_tasks_wait_on_a_calm_host_and_shrinks_under_strain_within_its_bounds() {
        let range = ParallelismRange { floor: 2, ceiling: 10 };
        let admission = Admission::new(AdmissionRules { parallelism: Some(range), ..AdmissionRules::default() });
        assert_eq!([1, 4, 64].map(|cores| Admission::first_parallelism(range, cores)), [2, 8, 10]);
        let grown = |now| admission.parallelism(&calm(), now, true).map(|(parallelism, _)| parallelism);
        assert_eq!([2, 8, 9, 10].map(grown), [Some(3), Some(10), Some(10), None]);
        assert_eq!(admission.parallelism(&calm(), 4, false), None, "nobody waits");
        let strained = HostReading { memory_available: Some(400_000_000), ..calm() };
        let shrunk = |now| admission.parallelism(&strained, now, true);
        assert_eq!(shrunk(10), Some((7, "5 % of the memory is available".to_owned())));
        assert_eq!([3, 2].map(|now| shrunk(now).map(|(parallelism, _)| parallelism)), [Some(2), None]);
        let busy = HostReading { load1: Some(7.0), ..calm() };
        assert_eq!(admission.parallelism(&busy, 4, true), None, "neither strained nor at ease");
    }
}

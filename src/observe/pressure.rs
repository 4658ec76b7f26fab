//! The host at one instant, as admission needs it: read by a thread of its own when the loop asks, since a dead mount may never answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::observe::host::HostProbe;
use crate::scheduler::admission::HostReading;
use crate::scheduler::event::{Event, EventSender};
use crate::scheduler::port::HostWatch;

/// Reads the host for the loop. The thread is started with the first asking, and sleeps between two.
pub struct LocalHost {
    folders: Vec<PathBuf>,
    /// In which the database lies.
    database: PathBuf,
    events: EventSender,
    asked: Option<Sender<()>>,
}

impl LocalHost {
    /// `folders`: home and logs, whose file systems must not fill up.
    pub fn new(folders: Vec<PathBuf>, database: PathBuf, events: EventSender) -> Self {
        Self { folders, database, events, asked: None }
    }

    fn start(&self) -> Option<Sender<()>> {
        let (sender, asked) = channel();
        let (probe, events) = (HostProbe::new(self.folders.clone()), self.events.clone());
        let database = HostProbe::new(vec![self.database.clone()]);
        let work = move || {
            while asked.recv().is_ok() {
                if events.send(Event::Host(Box::new(read(&probe, &database, Path::new("/"))))).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("host".to_owned()).stack_size(128 * 1024).spawn(work).ok().map(|_| sender)
    }
}

impl HostWatch for LocalHost {
    fn ask(&mut self) {
        if self.asked.is_none() {
            self.asked = self.start();
        }
        let is_asked = self.asked.as_ref().is_some_and(|asked| asked.send(()).is_ok());
        if !is_asked {
            // No thread could be started: what is not known keeps nobody, and the next asking tries again.
            self.asked = None;
            let _ = self.events.send(Event::Host(Box::default()));
        }
    }
}

/// `root` stands for `/`.
fn read(probe: &HostProbe, database: &HostProbe, root: &Path) -> HostReading {
    let sample = probe.sample();
    let pressure = |name: &str| {
        let text = fs::read_to_string(root.join("proc/pressure").join(name)).ok()?;
        some_avg10(&text)
    };
    HostReading {
        cores: thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        load1: sample.load1,
        memory_total: sample.memory_total,
        memory_available: sample.memory_available,
        disk_free: sample.least_free,
        database_free: database.least_free(),
        cpu_pressure: pressure("cpu"),
        memory_pressure: pressure("memory"),
        io_pressure: pressure("io"),
        is_on_battery: is_on_battery(&root.join("sys/class/power_supply")),
    }
}

/// `some avg10=1.53 avg60=0.87 avg300=0.73 total=22000`, as `/proc/pressure/*` has it.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

/// Some battery is being emptied and nothing feeds the host. None: it has no battery.
fn is_on_battery(supplies: &Path) -> Option<bool> {
    let read = |folder: &Path, name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let (mut has_battery, mut is_emptied, mut is_fed) = (false, false, false);
    for supply in fs::read_dir(supplies).ok()?.flatten() {
        let folder = supply.path();
        // Of a mouse or a pen: says nothing of the host.
        if read(&folder, "scope").as_deref() == Some("Device") {
            continue;
        }
        match read(&folder, "type").as_deref() {
            Some("Battery") => {
                has_battery = true;
                is_emptied |= read(&folder, "status").as_deref() == Some("Discharging");
            }
            Some(_) => is_fed |= read(&folder, "online").as_deref() == Some("1"),
            None => {}
        }
    }
    has_battery.then_some(is_emptied && !is_fed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_share_of_the_last_ten_seconds_in_which_some_waited() {
        let text = "some avg10=12.50 avg60=0.87 avg300=0.73 total=22000\nfull avg10=3.00 avg60=0 avg300=0 total=1\n";
        assert_eq!(some_avg10(text), Some(12.5));
        assert_eq!(some_avg10("full avg10=3.00"), None);
        assert_eq!(some_avg10(""), None);
    }

    #[test]
    fn a_host_is_on_battery_when_one_is_emptied_and_nothing_feeds_it() {
        let root = tempfile::tempdir().unwrap();
        let write = |supply: &str, name: &str, text: &str| {
            let folder = root.path().join(supply);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), text).unwrap();
        };
        assert_eq!(is_on_battery(root.path()), None);
        write("mouse", "type", "Battery\n");
        write("mouse", "scope", "Device\n");
        write("mouse", "status", "Discharging\n");
        assert_eq!(is_on_battery(root.path()), None);
        write("BAT0", "type", "Battery\n");
        write("BAT0", "status", "Discharging\n");
        assert_eq!(is_on_battery(root.path()), Some(true));
        write("AC", "type", "Mains\n");
        write("AC", "online", "1\n");
        assert_eq!(is_on_battery(root.path()), Some(false));
        write("AC", "online", "0\n");
        write("BAT0", "status", "Full\n");
        assert_eq!(is_on_battery(root.path()), Some(false));
    }

    #[test]
    fn this_host_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let probe = HostProbe::new(vec![folder.path().to_owned()]);
        let reading = read(&probe, &probe, Path::new("/"));
        assert!(reading.cores > 0 && reading.memory_available < reading.memory_total, "{reading:?}");
        assert!(
            reading.load1.is_some() && reading.disk_free.is_some() && reading.database_free.is_some(),
            "{reading:?}"
        );
    }
}

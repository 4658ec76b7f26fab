//! From the limits of a try to what its process does to itself, what its cgroup is told, and what is watched; and what of it this host
//! does not enforce.
//!
//! Knows which means enforces what. How a process is started is `launch`'s, what happens while it runs `guard`'s.

use std::time::Duration;

use rustix::process::{Resource, getpriority_process, getrlimit};

use crate::model::{Enforce, IoPriority, Limits, TryKey};
use crate::supervisor::cgroup::{Base, Controller, Group};
use crate::supervisor::guard::{Guard, Watched};
use crate::supervisor::launch::NotStarted;
use crate::supervisor::protocol::{Refusal, User};
use crate::supervisor::sys::{self, Ids, Settings, Step};

/// Between the signal that says that the CPU time is over and SIGKILL.
const CPU_GRACE: u64 = 5;
/// `IOPRIO_CLASS_BE` and `IOPRIO_CLASS_IDLE`, where `ioprio_set` wants them.
const BEST_EFFORT: u32 = 2 << 13;
const IDLE: u32 = 3 << 13;

/// How the limits of a try are kept.
#[derive(Debug, Default)]
pub struct Plan {
    pub settings: Option<Box<Settings>>,
    pub guard: Option<Box<Guard>>,
    /// For the log: what is not as it was asked for.
    pub notes: Vec<String>,
}

/// What stands in for a limit that is not enforced as it was asked for.
struct Lack {
    key: &'static str,
    instead: String,
}

/// `base`: where there are cgroups, or why there are none.
///
/// # Errors
/// What must be enforced cannot be, or the host lacks something just now.
pub fn plan(
    key: TryKey,
    limits: Option<&Limits>,
    user: Option<&User>,
    base: Result<&Base, &str>,
) -> Result<Plan, NotStarted> {
    let ids = user.map(|user| Ids { uid: user.uid, gid: user.gid, groups: user.groups.clone() });
    let Some(limits) = limits else {
        let settings = ids.map(|user| Box::new(Settings { user: Some(user), ..Settings::default() }));
        return Ok(Plan { settings, ..Plan::default() });
    };
    let mut lacks = Vec::new();
    let (group, why) = group(key, limits, base);
    let has = |controller| group.is_some() && base.is_ok_and(|base| base.has(controller));
    let mut settings = Settings { user: ids, is_strict: limits.enforce == Enforce::Require, ..Settings::default() };
    let mut watched = Watched { cpu_time: limits.cpu_time, ..Watched::default() };
    if let Some(bytes) = limits.memory.filter(|_| !has(Controller::Memory)) {
        settings.rlimits.push((libc::RLIMIT_DATA, [bytes, bytes]));
        watched.memory = Some(bytes);
        lack(
            &mut lacks,
            "memory",
            "each of its processes is held to it, and their sum is looked at four times a second",
        );
    }
    if let Some(millicpus) = limits.millicpus.filter(|_| !has(Controller::Cpu)) {
        let (mask, instead) = processors(millicpus, key);
        settings.processors = mask;
        lack(&mut lacks, "cpus", instead);
    }
    if let Some(count) = limits.processes.filter(|_| !has(Controller::Pids)) {
        watched.processes = Some(count);
        lack(&mut lacks, "processes", "they are counted four times a second");
    }
    if let Some(time) = limits.cpu_time {
        let seconds = time.as_secs();
        settings.rlimits.push((libc::RLIMIT_CPU, [seconds, seconds.saturating_add(CPU_GRACE)]));
    }
    if let Some(bytes) = limits.file_size {
        settings.rlimits.push((libc::RLIMIT_FSIZE, [bytes, bytes]));
    }
    let is_root = rustix::process::geteuid().is_root();
    if let Some(wanted) = limits.open_files.map(u64::from) {
        let most = getrlimit(Resource::Nofile).maximum.filter(|&most| !is_root && most < wanted);
        let count = most.unwrap_or(wanted);
        settings.rlimits.push((libc::RLIMIT_NOFILE, [count, count]));
        if let Some(most) = most {
            lacks.push(Lack {
                key: "open_files",
                instead: format!("minflow itself may have {most} at most, which holds"),
            });
        }
    }
    settings.ionice = limits.ionice.map(|priority| match priority {
        IoPriority::Idle => IDLE,
        IoPriority::BestEffort(level) => BEST_EFFORT | u32::from(level),
    });
    settings.umask = limits.umask;
    settings.nice = limits.nice;
    if let (Some(wanted), Ok(own)) = (limits.nice, getpriority_process(None))
        && wanted < own
        && !is_root
        && getrlimit(Resource::Nice).current.is_some_and(|most| (20 - wanted) as u64 > most)
    {
        settings.nice = None;
        lack(&mut lacks, "nice", "only root may raise a priority, and it stays as it is");
    }
    let mut notes: Vec<String> = notes(&lacks, why.as_deref());
    if limits.enforce == Enforce::Require && !lacks.is_empty() {
        if let Some(group) = group {
            group.remove();
        }
        return Err(NotStarted { kind: Refusal::Permanent, message: refusal(&lacks, why.as_deref()) });
    }
    notes.extend(more_than_there_are(limits));
    let needs_watch = watched != Watched::default();
    let keeps = group.is_some() || needs_watch || limits.file_size.is_some();
    let guard = keeps.then(|| Box::new(Guard::new(group, limits.clone(), watched)));
    Ok(Plan { settings: Some(Box::new(settings)), guard, notes })
}

/// The cgroup of a try that needs one; else why it has none, or one that lacks a controller.
fn group(key: TryKey, limits: &Limits, base: Result<&Base, &str>) -> (Option<Group>, Option<String>) {
    let wanted = [
        (limits.memory.is_some(), Controller::Memory),
        (limits.millicpus.is_some(), Controller::Cpu),
        (limits.processes.is_some(), Controller::Pids),
    ];
    if !wanted.iter().any(|(is_set, _)| *is_set) {
        return (None, None);
    }
    let base = match base {
        Ok(base) => base,
        Err(why) => return (None, Some(why.to_owned())),
    };
    let made = base.make(key).and_then(|group| match group.limit(base, limits) {
        Ok(()) => Ok(group),
        Err(error) => {
            group.remove();
            Err(error)
        }
    });
    match made {
        Err(error) => (None, Some(format!("below `{}` it cannot be made: {error}", base.folder().display()))),
        Ok(group) => {
            let is_whole = wanted.iter().all(|(is_set, controller)| !is_set || base.has(*controller));
            let why = format!("`{}` has no controller for it", base.folder().display());
            (Some(group), (!is_whole).then_some(why))
        }
    }
}

/// As many of the processors that this process may use as make up `millicpus`, and what to say of it. No two tries begin at the same.
fn processors(millicpus: u32, key: TryKey) -> (Option<Vec<u64>>, String) {
    let allowed = sys::processors();
    let count = millicpus.div_ceil(1_000) as usize;
    if allowed.is_empty() || count >= allowed.len() {
        return (None, format!("its processes have the {} that minflow has", processors_in_words(allowed.len())));
    }
    let from = key.instance.0.unsigned_abs() as usize * count;
    let mut mask = vec![0_u64; allowed.iter().max().map_or(0, |last| last / 64 + 1)];
    for at in from..from + count {
        let processor = allowed[at % allowed.len()];
        mask[processor / 64] |= 1 << (processor % 64);
    }
    (Some(mask), format!("its processes are kept on {}", processors_in_words(count)))
}

fn processors_in_words(count: usize) -> String {
    if count == 1 { "one processor".to_owned() } else { format!("{count} processors") }
}

fn lack(lacks: &mut Vec<Lack>, key: &'static str, instead: impl Into<String>) {
    lacks.push(Lack { key, instead: instead.into() });
}

fn needs_group(lack: &Lack) -> bool {
    ["memory", "cpus", "processes"].contains(&lack.key)
}

fn notes(lacks: &[Lack], why: Option<&str>) -> Vec<String> {
    let of = |lack: &Lack| match why.filter(|_| needs_group(lack)) {
        Some(why) => format!("limits.{} is not enforced by a cgroup ({why}): {}", lack.key, lack.instead),
        None => format!("limits.{} is not as it was asked for: {}", lack.key, lack.instead),
    };
    lacks.iter().map(of).collect()
}

fn refusal(lacks: &[Lack], why: Option<&str>) -> String {
    let keys: Vec<String> = lacks.iter().map(|lack| format!("`{}`", lack.key)).collect();
    let why = why.filter(|_| lacks.iter().any(needs_group)).map(|why| format!("no cgroup: {why}"));
    let others = lacks.iter().filter(|lack| !needs_group(lack)).map(|lack| format!("{}: {}", lack.key, lack.instead));
    let reasons: Vec<String> = why.into_iter().chain(others).collect();
    format!(
        "its limits say `enforce = \"require\"`, and this host does not enforce {} ({}): give minflow what it needs, or write \
         `enforce = \"prefer\"`",
        keys.join(", "),
        reasons.join("; ")
    )
}

/// Limits that are larger than the host do nothing, which may be a slip of the pen.
fn more_than_there_are(limits: &Limits) -> Option<String> {
    let count = sys::processors().len();
    let wanted = limits.millicpus.filter(|&millicpus| count > 0 && u64::from(millicpus) > count as u64 * 1_000)?;
    let has = processors_in_words(count);
    Some(format!("limits.cpus is {}, and minflow has {has}: it limits nothing", f64::from(wanted) / 1_000.0))
}

/// What was refused only when the process tried it, for the log.
pub fn refused(step: Step) -> Option<&'static str> {
    Some(match step {
        Step::Rlimit => {
            "the host refused one of its limits (open_files, file_size, cpu_time or memory), which does not hold"
        }
        Step::Nice => "the host refused limits.nice, and its priority is minflow's",
        Step::Ionice => "the host refused limits.ionice, and its priority for disks is minflow's",
        Step::Processors => "the host refused to keep it on some processors only: limits.cpus does not hold",
        _ => return None,
    })
}

/// What a process that must have its limits has stopped at.
pub fn stopped(step: Step) -> Option<&'static str> {
    Some(match step {
        Step::Group => "it could not enter its cgroup",
        Step::Rlimit => "the host refused one of its limits (open_files, file_size, cpu_time or memory)",
        Step::Nice => "the host refused limits.nice",
        Step::Ionice => "the host refused limits.ionice",
        Step::Processors => "the host refused limits.cpus",
        _ => return None,
    })
}

/// As long as it has been found to be possible that a limit of CPU time is not exceeded yet.
pub fn earliest_end(left: Duration) -> Duration {
    left / sys::processors().len().max(1) as u32
}

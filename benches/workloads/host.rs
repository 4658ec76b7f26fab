//! What the kernel tells of the host and of minflow's processes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Whether the host is quiet: its load, and how many `/bin/true` one thread starts in a second.
pub fn weather() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let began = Instant::now();
    for _ in 0..300 {
        let status = Command::new("/bin/true").stdin(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "`/bin/true` runs");
    }
    let rate = 300.0 / began.elapsed().as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores, load {load}, one thread starts {rate:.0} /bin/true a second")
}

/// All processes of the minflow of a home: they show it on their command line.
pub fn processes(home: &Path) -> Vec<i32> {
    let home = home.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("Linux has /proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let shown = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if shown.split(|&byte| byte == 0).any(|argument| argument.ends_with(home)) {
            found.push(pid);
        }
    }
    found
}

/// The supervisor of the minflow that runs on a home.
pub fn supervisor(home: &Path) -> i32 {
    let named = fs::read_to_string(home.join("minflow.supervisor")).expect("the home names its supervisor");
    named.trim().parse().expect("a process has a number")
}

/// The memory of processes in MB, what they share counted in parts.
pub fn pss_megabytes(pids: &[i32]) -> f64 {
    kilobytes(pids, "Pss:") * 1024.0 / 1e6
}

/// The memory of processes that no file stands for, in kB of 1,024 bytes: what they have written to.
pub fn anonymous_kilobytes(pids: &[i32]) -> f64 {
    kilobytes(pids, "Anonymous:")
}

fn kilobytes(pids: &[i32], line: &str) -> f64 {
    let of = |pid: &i32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        rollup.lines().find_map(|said| said.strip_prefix(line)?.strip_suffix("kB")?.trim().parse::<f64>().ok())
    };
    pids.iter().filter_map(of).sum()
}

/// User and system time that processes have taken so far, in seconds, to a tick of the kernel; with that of threads that have ended.
pub fn cpu_seconds_of_all(pids: &[i32]) -> f64 {
    let of = |pid: &i32| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    pids.iter().filter_map(of).sum::<f64>() / minflow::supervisor::sys::ticks_per_second() as f64
}

/// User and system time that processes have taken so far, in seconds, to a nanosecond: the tick of `stat` is too coarse for what
/// an idle process takes.
pub fn cpu_seconds(pids: &[i32]) -> f64 {
    let of_thread = |path: &Path| -> Option<f64> {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    let mut nanoseconds = 0.0;
    for pid in pids {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        nanoseconds += threads.filter_map(|thread| of_thread(&thread.path())).sum::<f64>();
    }
    nanoseconds / 1e9
}

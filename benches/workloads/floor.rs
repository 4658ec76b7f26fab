//! What this host allows: the same processes, started by a bare loop without a scheduler, a database or a supervisor.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::ground;

/// As a task of a workload runs: `bash -c true` with a log file of its own.
fn one(logs: &Path, number: usize) {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(logs.join(format!("{number}.log")));
    let log = log.expect("a new folder takes new files");
    let errors = log.try_clone().expect("one more descriptor is to be had");
    let status = Command::new("bash").args(["-c", "true"]).stdin(Stdio::null()).stdout(log).stderr(errors).status();
    assert!(status.is_ok_and(|status| status.success()), "`bash -c true` runs");
}

/// Tasks a second on `threads` threads.
pub fn wide(count: usize, threads: usize) -> f64 {
    let began = Instant::now();
    burst(count, threads);
    count as f64 / began.elapsed().as_secs_f64()
}

/// Milliseconds for each of `count` tasks in a row.
pub fn chain(count: usize) -> f64 {
    let logs = ground::folder();
    let began = Instant::now();
    for number in 0..count {
        one(&logs, number);
    }
    began.elapsed().as_secs_f64() * 1e3 / count as f64
}

/// When each of `count` tasks that come at once was begun, in milliseconds.
pub fn burst(count: usize, threads: usize) -> Vec<f64> {
    let logs = ground::folder();
    let (next, begun) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(count)));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    begun.lock().push(began.elapsed().as_secs_f64() * 1e3);
                    one(&logs, number);
                }
            });
        }
    });
    begun.into_inner()
}

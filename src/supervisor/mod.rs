//! The small process that starts, limits, kills and reaps tasks, and the client by which the scheduler's process speaks to it.
//!
//! It is the same binary, executed as the hidden command `minflow supervise --home PATH` before any thread, socket or lock
//! exists, and is connected by a socket that it finds as its standard input. It knows processes and tries, and no DAG.

pub mod adopter;
pub mod adoption;
pub mod cgroup;
pub mod client;
#[cfg(test)]
pub mod fake;
mod guard;
pub mod heap;
mod launch;
mod limits;
mod lock;
mod log_cap;
mod orphans;
pub mod procfs;
pub mod protocol;
mod record;
mod server;
pub mod sys;
mod tree;
mod wire;

use std::path::Path;
use std::process::ExitCode;

pub use client::{Gone, Notice, Origin, Refusal, Supervise, SupervisorClient, SupervisorHandle, Tasks, spawn};

/// The environment variable that marks every process of a try, so that what an earlier minflow left behind can be found.
pub const MARK: &str = "MINFLOW_TRY";

/// Runs the supervisor: what `minflow supervise` does. Returns when its scheduler is gone, and its last process has ended and been told
/// of.
pub fn main(home: &Path) -> ExitCode {
    match serve(home) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "minflow: the supervisor failed: {error}; it is started by `minflow run`, and is of no use alone"
            );
            ExitCode::FAILURE
        }
    }
}

fn serve(home: &Path) -> std::io::Result<()> {
    sys::keep_heaps_small();
    let socket = sys::take_stdin()?;
    sys::close_all_on_exec();
    sys::ignore_requests_to_end();
    // In a session of its own no terminal sends it signals. It fails for a group's leader, which it is only in a debugger.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let server = server::Server::new(home, socket)?;
    // It must not keep a file system busy; all paths that it gets are absolute.
    let _ = std::env::set_current_dir("/");
    sys::forget_start();
    server.serve()
}

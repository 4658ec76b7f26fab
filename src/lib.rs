//! minflow: Airflow's scheduling model in one binary for one host.
//!
//! `docs/design.md` tells how the pieces fit. Modules depend only on those that stand below them in its list.

#[cfg(not(target_os = "linux"))]
compile_error!("minflow runs on Linux only (5.10 or newer; WSL2 counts): it needs timerfd, subreapers and /proc.");

pub mod api;
pub mod builtin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crontab;
pub mod daemon;
pub mod dagfile;
pub mod diagnostic;
pub mod executor;
pub mod health;
pub mod home_socket;
pub mod jinja;
pub mod journal;
pub mod keep;
pub mod keytable;
pub mod lack;
pub mod mapping;
pub mod model;
pub mod observe;
pub mod operators;
pub mod params;
pub mod pattern;
pub mod scheduler;
pub mod secrets;
pub mod settled;
pub mod simulate;
pub mod store;
pub mod supervisor;
pub mod template;
pub mod timer;
pub mod timetable;
pub mod triggerer;
pub mod ui;
pub mod watch;

//! minflow as a person runs it: the real binary, in homes of its own, with real tasks, real files and real signals.

#![allow(clippy::unwrap_used)] // a test that cannot go on is a failed test

mod acts;
mod assets;
mod backfill;
mod callbacks;
mod crash;
mod cron;
mod crontab;
mod deciders;
mod docker;
mod email;
mod environment;
mod format;
mod harness;
mod http;
mod input;
mod inventory;
mod limits;
mod mapped;
mod params;
mod path;
mod plugins;
mod reload;
mod retries;
mod secrets;
mod sensors;
mod simulate;
mod smtp;
mod sql;
mod trial;
mod unprivileged;
mod venv;
mod xcoms;

//! minflow as a person runs it: the real binary, in homes of its own, with real tasks, real files and real signals.

#![allow(clippy::unwrap_used)] // a test that cannot go on is a failed test

mod acts;
mod adoption;
mod assets;
mod backfill;
mod callbacks;
mod costs;
mod crash;
mod cron;
mod crontab;
mod database;
mod deciders;
mod docker;
mod email;
mod environment;
mod explain;
mod format;
mod hangup;
mod harness;
mod http;
mod input;
mod inventory;
mod limits;
mod manager;
mod mapped;
mod params;
mod path;
mod patience;
mod plugins;
mod pools;
mod reload;
mod retention;
mod retries;
mod secrets;
mod sensors;
mod simulate;
mod smtp;
mod sql;
mod stop;
mod trees;
mod trial;
mod unprivileged;
mod venv;
mod xcoms;

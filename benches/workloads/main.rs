//! The release binary under load, beside what this host allows at that moment.
//!
//! `cargo bench --bench workloads [-- W1 W2 W3 W4 W5 W6 W7 W8 W9 W10] [--quick]`, or `-- hours`, or `-- simulation`, or `-- soak [--minutes N]`. Every figure of ours that a host's
//! speed decides is taken in turns with its floor (floor, ours, floor, ours, …) and shown with their ratio, as medians: hosts
//! drift by more than minflow does. Homes are temporary, on port 0, with `synchronous = "full"`; what is started is ended.

mod files;
mod floor;
mod ground;
mod history;
mod home;
mod host;
mod map;
mod measure;
mod rows;
mod sensors;
mod simulation;
#[path = "../stage/mod.rs"]
#[allow(dead_code, reason = "it has parts for other benches")]
mod stage;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use table::Table;

/// What was asked for.
struct Asked {
    workloads: Vec<String>,
    effort: measure::Effort,
    minutes: u64,
}

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        eprintln!("error: this build is not optimised\nhelp: run `cargo bench --bench workloads`");
        return ExitCode::FAILURE;
    }
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(message) => {
            eprintln!(
                "error: {message}\nhelp: `cargo bench --bench workloads -- [W1 W2 W3 W4 W5 W6 W7 W8 W9 W10 hours simulation soak] [--quick] [--minutes N]`"
            );
            return ExitCode::from(2);
        }
    };
    let _ground = ground::Ground;
    let mut table = Table::default();
    println!("before: {}", host::weather());
    for workload in &asked.workloads {
        eprintln!("{workload} …");
        match workload.as_str() {
            "W1" => measure::wide(&mut table, asked.effort),
            "W2" => measure::chain(&mut table, asked.effort),
            "W3" => measure::many(&mut table, asked.effort),
            "W4" => measure::start(&mut table, asked.effort),
            "W5" => measure::lag(&mut table, asked.effort),
            "W6" => map::map(&mut table, asked.effort),
            "W7" => files::files(&mut table, asked.effort),
            "W8" => sensors::sensors(&mut table, asked.effort),
            "W9" => history::history(&mut table, asked.effort),
            "W10" => history::crash(&mut table, asked.effort),
            "hours" => measure::hours(&mut table, asked.effort),
            "simulation" => simulation::simulation(&mut table, asked.effort),
            _ => measure::soak(&mut table, Duration::from_secs(60 * asked.minutes)),
        }
    }
    println!("after:  {}\n", host::weather());
    print!("{table}");
    ExitCode::SUCCESS
}

fn asked(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked { workloads: Vec::new(), effort: measure::Effort::Full, minutes: 10 };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--quick" => asked.effort = measure::Effort::Quick,
            "--minutes" => {
                let minutes = arguments.next().and_then(|minutes| minutes.parse().ok());
                asked.minutes = minutes.filter(|&minutes| minutes > 2).ok_or("--minutes wants a number above 2")?;
            }
            "W1" | "W2" | "W3" | "W4" | "W5" | "W6" | "W7" | "W8" | "W9" | "W10" | "hours" | "simulation" | "soak" => {
                asked.workloads.push(argument)
            }
            other => return Err(format!("`{other}` is no workload")),
        }
    }
    if asked.workloads.is_empty() {
        asked.workloads = ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W9", "W10"].map(str::to_owned).to_vec();
    }
    Ok(asked)
}

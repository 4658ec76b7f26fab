//! `minflow simulate`: what would run from one instant to another. Reads the home and changes nothing in it.

mod expect;
mod show;

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::cli::failure::eprint;
use crate::cli::home::{Definition, Home};
use crate::cli::output::{Format, Output};
use crate::cli::{Failure, Globals, Outcome};
use crate::clock::{Clock, SystemClock};
use crate::keytable::parse_duration;
use crate::model::Pool;
use crate::simulate::{Choosing, Part, Plan, simulate_with};

#[derive(Debug, Args)]
#[command(
    after_help = "Runs the scheduler's own decisions on a virtual clock, as if minflow had run until --from without a gap. A task \
    takes as long as its successful tries took (the median of the newest runs), unless --duration says otherwise, or 10s if \
    nothing is known. Nothing is started and nothing is written; it works beside a running minflow. DAGs that are paused are left \
    out unless --dag names them. The same home and options give the same answer.\n\nExamples:\n  \
    minflow simulate --until 7d\n  \
    minflow simulate --from 2026-10-24 --until 2026-10-26 --dag host_report\n  \
    minflow simulate --until 30d --duration report=20m --fail 0.05 --pool db=2 --parallelism 8\n  \
    minflow simulate --until 1d -o svg > tomorrow.svg"
)]
pub struct Arguments {
    /// Where to begin; without an offset in core.default_timezone [default: now]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Where to end: a date, or a time after the beginning such as 7d or 12h
    #[arg(long, value_name = "DATE|TIME")]
    until: String,
    /// Only this DAG; may be given several times [default: all that are not paused]
    #[arg(long = "dag", visible_alias = "dag-id", value_name = "DAG_ID")]
    dags: Vec<String>,
    /// How long tries take: TIME for all that have no history, TASK=TIME or DAG.TASK=TIME for one; may be given several times
    #[arg(long, value_name = "[TASK=]TIME")]
    duration: Vec<String>,
    /// With which probability a try fails: P for all, TASK=P or DAG.TASK=P for one; may be given several times
    #[arg(long, value_name = "[TASK=]P")]
    fail: Vec<String>,
    /// Which tries fail is drawn from this number and their names
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// What if core.parallelism were N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    parallelism: Option<u32>,
    /// What if this pool had N slots, -1 for no limit; may be given several times
    #[arg(long = "pool", value_name = "NAME=N")]
    pools: Vec<String>,
}

/// A century is beyond every plan, and a slip of the pen.
const MAX_SPAN: SignedDuration = SignedDuration::from_hours(100 * 366 * 24);
/// Beyond so many, threads wait for each other and for memory.
const MAX_THREADS: usize = 8;
/// How often a long simulation says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let (from, until) = span(&home, arguments)?;
    let definitions = definitions(&home, &arguments.dags)?;
    let subjects = expect::subjects(&home, &definitions, &arguments.duration, &arguments.fail)?;
    let scheduler = &home.config.scheduler;
    let plan = Plan {
        from,
        until,
        subjects,
        parallelism: arguments.parallelism.unwrap_or(home.config.core.parallelism),
        pools: pools(&home, &arguments.pools)?,
        choosing: Choosing { rows: None, fair_share: scheduler.fair_share, ageing: scheduler.priority_ageing },
        seed: arguments.seed,
        is_drawn: output.format == Format::Svg,
    };
    let mut told = Instant::now();
    let report = simulate_with(&plan, &on_all_processors, &mut |at| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let share = at.duration_since(from).as_secs_f64() / until.duration_since(from).as_secs_f64();
            eprint(&format!("simulated until {at}, {:.0} % of the time\n", share * 100.0));
        }
        true
    });
    show::show(&report, output)
}

/// Shares the parts out among threads, one at a time to whoever is free.
fn on_all_processors(parts: &mut [Part<'_>]) {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    let left = Mutex::new(parts.iter_mut());
    let next = || left.lock().expect("nobody panics while it takes a part").next();
    let work = || {
        while let Some(part) = next() {
            part.go_on();
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
}

/// # Errors
/// No dates, or dates that do not follow each other or lie outside what DAG files may name.
fn span(home: &Home, arguments: &Arguments) -> Result<(Timestamp, Timestamp), Failure> {
    let from = match &arguments.from {
        Some(text) => home.instant(text)?,
        None => SystemClock.now(),
    };
    let until = match parse_duration(&arguments.until) {
        Some(length) => from.checked_add(length).map_err(|_| out_of_range(&arguments.until))?,
        None => home.instant(&arguments.until).map_err(|_| no_end(&arguments.until))?,
    };
    let first: Timestamp = Timestamp::UNIX_EPOCH;
    let last: Timestamp = "2100-01-01T00:00:00Z".parse().expect("it is an instant");
    if until <= from {
        return Err(Failure::Usage {
            message: format!("--until ({until}) is not after --from ({from})"),
            help: "name a later date, or a time after the beginning such as --until 7d".to_owned(),
        });
    }
    if from < first || until > last || until.duration_since(from) > MAX_SPAN {
        return Err(out_of_range(&format!("{from} to {until}")));
    }
    Ok((from, until))
}

fn no_end(text: &str) -> Failure {
    Failure::Usage {
        message: format!("--until `{text}` is neither a date nor a time after the beginning"),
        help: "write a date, e.g. 2026-12-24 or 2026-12-24T06:00, or a time such as 12h, 7d or 52w".to_owned(),
    }
}

fn out_of_range(text: &str) -> Failure {
    Failure::Usage {
        message: format!("`{text}` lies outside the years 1970 to 2099"),
        help: "name dates of these years, or a shorter time, e.g. --until 365d".to_owned(),
    }
}

/// What is simulated: the DAGs named, else all that have a sound file and are not paused.
fn definitions(home: &Home, named: &[String]) -> Result<Vec<Definition>, Failure> {
    if !named.is_empty() {
        let mut found: Vec<Definition> =
            named.iter().map(|dag_id| home.definition(dag_id)).collect::<Result<_, _>>()?;
        found.sort_by(|a, b| a.dag.dag_id.cmp(&b.dag.dag_id));
        found.dedup_by(|a, b| a.dag.dag_id == b.dag.dag_id);
        return Ok(found);
    }
    let (mut found, broken) = home.sound_definitions()?;
    if broken > 0 {
        let files = if broken == 1 { "1 DAG file is".to_owned() } else { format!("{broken} DAG files are") };
        eprint(&format!("{files} broken and left out: `minflow validate` shows what is wrong\n"));
    }
    let all = found.len();
    found.retain(|definition| {
        let noted = definition.record.as_ref().map(|record| record.is_paused);
        !noted.unwrap_or(definition.dag.is_paused_upon_creation)
    });
    if found.len() < all {
        let paused = all - found.len();
        let dags = if paused == 1 { "1 DAG is".to_owned() } else { format!("{paused} DAGs are") };
        eprint(&format!("{dags} paused and left out; --dag DAG_ID takes one in\n"));
    }
    if found.is_empty() {
        let folder = home.config.core.dags_folder.display();
        let help = "name a paused DAG with --dag, or `minflow validate` the files";
        return Err(Failure::refused(format!("no DAG of `{folder}` is to be run"), help));
    }
    Ok(found)
}

/// The pools of the home, with what --pool says of them.
fn pools(home: &Home, given: &[String]) -> Result<Vec<Pool>, Failure> {
    let mut pools: Vec<Pool> = home.pools()?.into_values().collect();
    for text in given {
        let read = text.split_once('=').and_then(|(name, slots)| Some((name, slots.parse::<i64>().ok()?)));
        let Some((name, slots)) = read.filter(|(_, slots)| *slots >= -1) else {
            return Err(Failure::Usage {
                message: format!("--pool `{text}` does not say how many slots"),
                help: "write it as --pool NAME=4, or NAME=-1 for no limit".to_owned(),
            });
        };
        match pools.iter_mut().find(|pool| &*pool.name == name) {
            Some(pool) => pool.slots = slots,
            None => {
                let known = pools.iter().map(|pool| pool.name.as_str());
                return Err(Failure::unknown("pool", name, known, "minflow pools list"));
            }
        }
    }
    Ok(pools)
}

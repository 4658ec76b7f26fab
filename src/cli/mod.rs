//! The command line: one file per command. Each reads its arguments, asks the store or the running minflow, and prints.
//!
//! Knows every layer below and is known by `main` alone. Data goes to standard output, talk to standard error. It decides
//! nothing about scheduling: what changes something is a [`Command`](crate::scheduler::Command) that [`engine`] hands over.

mod acts;
mod assets;
mod audit;
mod backfill;
mod completions;
mod config;
mod connections;
mod cron;
mod dags;
mod db;
mod du;
pub mod engine;
mod explain;
mod failure;
mod files;
mod home;
mod import;
mod init;
mod instants;
mod operator;
mod output;
mod patience;
mod plan;
mod pools;
mod record;
mod run;
mod service;
mod settings;
mod shape;
mod simulate;
mod status;
mod stop;
mod supervise;
mod tasks;
mod validate;
mod variables;
mod version;
mod yaml;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use failure::Failure;
pub use output::Format;
use output::Output;

/// What a command comes to: done, or the failure to tell.
type Outcome = Result<(), Failure>;

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed, unknown or refused; 2 usage; 3 invalid DAG or configuration;
4 no minflow is running.

Examples:
  minflow init my-home                    a new home with a commented example
  minflow --home my-home run              the scheduler and its page on http://localhost:8080
  minflow cron \"0 6 * * mon-fri\" --tz Europe/London
  minflow dags trigger host_report --wait
  minflow tasks logs host_report report";

/// Airflow's scheduling model in one binary for one host.
#[derive(Debug, Parser)]
#[command(name = "minflow", version, about, after_help = AFTER_HELP, max_term_width = 120, subcommand_required = true,
    arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options that stand before or after the command.
#[derive(Clone, Debug, Args)]
pub struct Globals {
    /// The home: airflow.toml, dags/, logs/, minflow.db [default: $MINFLOW_HOME, else the current folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The configuration file [default: airflow.toml in the home]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The [profiles.NAME] of the configuration to apply [default: $MINFLOW_PROFILE, else `profile` in the file]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// How to answer
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new home: a commented airflow.toml and an example DAG
    Init(init::Arguments),
    /// Run the scheduler in the foreground, until Ctrl-C or SIGTERM
    Run(run::Arguments),
    /// Show what the running minflow is doing
    Status(status::Arguments),
    /// Stop the running minflow, and wait until it has ended
    Stop(stop::Arguments),
    /// Say why a run or a task waits, or how it came to its state
    Explain(explain::Arguments),
    /// Check DAG files and airflow.toml, and show every fault at once
    Validate(validate::Arguments),
    /// Show when a cron expression fires, in words and as a list
    Cron(cron::Arguments),
    /// Look ahead: what would run, overlap and wait, from one instant to another
    Simulate(simulate::Arguments),
    /// Make DAG files from a crontab
    #[command(subcommand)]
    Import(import::Command),
    /// Run minflow as a service of systemd
    #[command(subcommand)]
    Service(service::Command),
    /// Print the version
    Version,
    /// Print a script that has a shell complete minflow's commands
    Completions(completions::Arguments),
    /// See and steer DAGs
    #[command(subcommand)]
    Dags(dags::Command),
    /// Make up for past dates
    #[command(subcommand)]
    Backfill(backfill::Command),
    /// See and try tasks
    #[command(subcommand)]
    Tasks(tasks::Command),
    /// See assets, and have them made
    #[command(subcommand)]
    Assets(assets::Command),
    /// See and change pools
    #[command(subcommand)]
    Pools(pools::Command),
    /// See variables, as templates read them
    #[command(subcommand)]
    Variables(variables::Command),
    /// See connections, as templates read them
    #[command(subcommand)]
    Connections(connections::Command),
    /// See the settled configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Look after the database
    #[command(subcommand)]
    Db(db::Command),
    /// Show what takes how much of the disk, by DAG
    Du(du::Arguments),
    /// List who asked for what, newest first
    Audit(audit::Arguments),
    /// A built-in operator; minflow starts it by itself
    #[command(hide = true)]
    Operator(operator::Arguments),
    /// The process that runs tasks; minflow starts it by itself
    #[command(hide = true)]
    Supervise(supervise::Arguments),
}

/// The whole program: reads the command line, does what it says, tells what went wrong, gives the exit code.
pub fn main() -> ExitCode {
    let words = || std::env::args_os().skip(1);
    if let Some(code) = operator::run_at_once(words()).or_else(|| supervise::run_at_once(words())) {
        return code;
    }
    crate::supervisor::sys::outlive_file_size_limit();
    let cli = Cli::parse();
    let mut output = Output::new(cli.globals.output);
    let done = dispatch(&cli.globals, cli.command, &mut output);
    let flushed = std::io::Write::flush(&mut output).map_err(Failure::from);
    match done.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn dispatch(globals: &Globals, command: Command, output: &mut Output) -> Outcome {
    if output.format == Format::Svg && !matches!(command, Command::Simulate(_)) {
        return Err(Failure::Usage {
            message: "only `minflow simulate` draws a picture".to_owned(),
            help: "ask for -o table, json, yaml or plain".to_owned(),
        });
    }
    match command {
        Command::Init(arguments) => init::run(globals, &arguments),
        Command::Run(arguments) => run::run(globals, &arguments),
        Command::Status(arguments) => status::run(globals, &arguments, output),
        Command::Explain(arguments) => explain::run(globals, &arguments, output),
        Command::Stop(arguments) => stop::run(globals, &arguments),
        Command::Validate(arguments) => validate::run(globals, &arguments, output),
        Command::Cron(arguments) => cron::run(globals, &arguments, output),
        Command::Simulate(arguments) => simulate::run(globals, &arguments, output),
        Command::Import(command) => import::run(globals, command, output),
        Command::Service(command) => service::run(globals, command, output),
        Command::Version => version::run(output),
        Command::Completions(arguments) => {
            completions::run(&arguments, <Cli as clap::CommandFactory>::command(), output)
        }
        Command::Dags(command) => dags::run(globals, command, output),
        Command::Backfill(command) => backfill::run(globals, command, output),
        Command::Tasks(command) => tasks::run(globals, command, output),
        Command::Assets(command) => assets::run(globals, &command, output),
        Command::Pools(command) => pools::run(globals, command, output),
        Command::Variables(command) => variables::run(globals, &command, output),
        Command::Connections(command) => connections::run(globals, &command, output),
        Command::Config(command) => config::run(globals, &command, output),
        Command::Db(command) => db::run(globals, &command, output),
        Command::Du(arguments) => du::run(globals, &arguments, output),
        Command::Audit(arguments) => audit::run(globals, &arguments, output),
        Command::Operator(arguments) => operator::run(&arguments),
        Command::Supervise(arguments) => supervise::run(globals, &arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_commands_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_in_one_line_what_it_does() {
        fn walk(command: &clap::Command) {
            for sub in command.get_subcommands() {
                let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
                assert!(!about.is_empty() && !about.contains('\n'), "{}: {about:?}", sub.get_name());
                walk(sub);
            }
        }
        walk(&Cli::command());
    }
}

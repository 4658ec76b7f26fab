//! `minflow completions`

use std::io::Write;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::cli::Outcome;
use crate::cli::output::Output;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minflow completions bash > ~/.local/share/bash-completion/completions/minflow\n  \
    minflow completions zsh > ~/.zfunc/_minflow\n  minflow completions fish > ~/.config/fish/completions/minflow.fish"
)]
pub struct Arguments {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Writes a script for a shell, which then completes `command`'s words.
pub fn run(arguments: &Arguments, command: Command, output: &mut Output) -> Outcome {
    let mut command = without_hidden(command);
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "minflow", &mut script);
    Ok(output.write_all(&script)?)
}

/// What help does not show is not offered either: minflow starts it by itself.
fn without_hidden(command: Command) -> Command {
    let shown: Vec<Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned().collect();
    let mut kept = Command::new("minflow").args(command.get_arguments().cloned()).disable_help_subcommand(true);
    kept = kept.subcommands(shown.into_iter().map(without_subhelp));
    kept
}

fn without_subhelp(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_subhelp)
}

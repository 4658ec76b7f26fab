//! A dag_id for a command: the name of the program that does the work, made a name that a file and a DAG may have.

use std::collections::BTreeSet;

/// Longer names are cut: they are read in lists.
const MAX_BYTES: usize = 60;

/// Programs that only start another one, and shells and interpreters whose argument says more than they do.
const WRAPPERS: [&str; 32] = [
    "env",
    "exec",
    "nice",
    "ionice",
    "nohup",
    "setsid",
    "timeout",
    "flock",
    "chronic",
    "sudo",
    "doas",
    "su",
    "time",
    "stdbuf",
    "chrt",
    "taskset",
    "systemd-cat",
    "command",
    "eval",
    "bash",
    "sh",
    "dash",
    "zsh",
    "ksh",
    "fish",
    "python",
    "python2",
    "python3",
    "perl",
    "ruby",
    "php",
    "node",
];
/// Commands that prepare the one that counts.
const PREPARATIONS: [&str; 16] = [
    "cd", "test", "[", "[[", "export", "source", ".", "set", "umask", "ulimit", "sleep", "true", ":", "if", "then",
    "mkdir",
];

/// Names that have been given.
#[derive(Debug, Default)]
pub(super) struct Names {
    given: BTreeSet<String>,
}

impl Names {
    /// A name for `command` that no line before has: its program's; then with its first plain argument; then with a number.
    pub(super) fn give(&mut self, command: &str, prefix: &str) -> String {
        let (program, argument) = program(command);
        let base = format!("{prefix}{}", clean(&program).unwrap_or_else(|| "job".to_owned()));
        let longer = argument.and_then(|argument| clean(&argument)).map(|argument| format!("{base}_{argument}"));
        let longer = longer.filter(|longer| longer.len() <= prefix.len() + MAX_BYTES);
        let numbered = (2..).map(|n| format!("{base}_{n}"));
        let mut wanted = std::iter::once(base.clone()).chain(longer).chain(numbered);
        let name = wanted.find(|name| !self.given.contains(name)).expect("there are more numbers than lines");
        self.given.insert(name.clone());
        name
    }
}

/// The program of a command that does its work, and its first argument that is no option.
fn program(command: &str) -> (String, Option<String>) {
    let mut fallback = None;
    for part in parts(command) {
        let words = words(part);
        let mut words = words.iter().map(String::as_str).peekable();
        let mut last_wrapper = None;
        while let Some(word) = words.next() {
            let name = base_name(word);
            if is_assignment(word) || word == "!" || word == "{" || word == "(" {
                continue;
            }
            if last_wrapper.is_some() && (word.starts_with('-') || word.starts_with(|c: char| c.is_ascii_digit())) {
                // `-n 10`, `-c2`, `10m`: what belongs to the wrapper.
                let takes_one = ["-n", "-u", "-c", "-k", "-s", "-w", "-t", "-g"].contains(&word);
                let is_script =
                    word == "-c" && ["sh", "bash", "dash", "zsh", "su"].contains(&last_wrapper.unwrap_or(""));
                let is_module = word == "-m";
                if is_script && let Some(script) = words.next() {
                    return program(script);
                }
                let is_value =
                    |next: &&str| next.starts_with(|c: char| c.is_ascii_digit()) || word == "-u" || word == "-g";
                if takes_one && !is_module {
                    words.next_if(is_value);
                }
                continue;
            }
            if last_wrapper == Some("flock")
                && (word.contains('/') || word.ends_with(".lock"))
                && words.peek().is_some()
            {
                last_wrapper = Some("");
                continue;
            }
            if WRAPPERS.contains(&name) && words.peek().is_some() {
                last_wrapper = Some(name);
                continue;
            }
            if PREPARATIONS.contains(&name) {
                fallback.get_or_insert((name.to_owned(), None));
                break;
            }
            let argument =
                words.find(|word| clean(base_name(word)).is_some() && !word.starts_with(['-', '>', '<', '&', '2']));
            return (name.to_owned(), argument.map(|argument| base_name(argument).to_owned()));
        }
    }
    fallback.unwrap_or_default()
}

/// The simple commands of a line, roughly: quotes are not looked at, since a name is all that is wanted.
fn parts(command: &str) -> impl Iterator<Item = &str> {
    command.split(['|', ';', '\n']).flat_map(|part| part.split("&&")).map(str::trim).filter(|part| !part.is_empty())
}

/// Words, with what stands in quotes as one.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, _) if c.is_whitespace() => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()))
            }
            _ => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// Without its folders and the ending of a script.
fn base_name(word: &str) -> &str {
    let name = word.trim_end_matches('/').rsplit('/').next().unwrap_or(word);
    let endings = [".sh", ".bash", ".py", ".pl", ".rb", ".php", ".js", ".zsh"];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Letters, digits, `_`, `-` and `.`, without such signs at its ends. None: nothing is left.
fn clean(text: &str) -> Option<String> {
    let replaced: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    let mut cleaned = replaced.trim_matches(['_', '-', '.']).to_owned();
    cleaned.truncate(MAX_BYTES);
    let cleaned = cleaned.trim_end_matches(['_', '-', '.']);
    (!cleaned.is_empty()).then(|| cleaned.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_called_by_the_program_that_does_its_work() {
        for (command, name) in [
            ("/usr/local/bin/backup.sh --full", "backup"),
            ("certbot -q renew", "certbot"),
            ("cd /srv/app && php artisan schedule:run >> /dev/null 2>&1", "artisan"),
            ("cd / && run-parts --report /etc/cron.hourly", "run-parts"),
            ("test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }", "run-parts"),
            ("[ -x /usr/lib/php/sessionclean ] && /usr/lib/php/sessionclean", "sessionclean"),
            ("nice -n 19 ionice -c2 -n7 /opt/report.py", "report"),
            ("flock -n /tmp/x.lock /opt/sync", "sync"),
            ("timeout 10m /opt/sync", "sync"),
            ("sudo -u www-data /opt/sync", "sync"),
            ("bash -c '/opt/x.sh && y'", "x"),
            ("/usr/bin/env A=b python3 -m http.server", "http.server"),
            ("A=b /opt/sync", "sync"),
            ("sleep 30", "sleep"),
            ("bash", "bash"),
            ("'/opt/my scripts/do it.sh'", "do_it"),
            ("$HOME/bin/x", "x"),
            ("!!!", "job"),
            ("äöü", "job"),
            ("", "job"),
        ] {
            assert_eq!(Names::default().give(command, ""), name, "{command}");
        }
    }

    #[test]
    fn no_two_lines_have_one_name() {
        let mut names = Names::default();
        let given =
            ["backup daily", "backup weekly", "backup weekly", "backup -v", "backup"].map(|c| names.give(c, "vm_"));
        assert_eq!(given, ["vm_backup", "vm_backup_weekly", "vm_backup_2", "vm_backup_3", "vm_backup_4"]);
    }

    #[test]
    fn the_same_crontab_gives_the_same_names_again() {
        let give = || {
            let mut names = Names::default();
            ["a x", "a y", "a", "b"].map(|command| names.give(command, ""))
        };
        assert_eq!(give(), give());
    }
}

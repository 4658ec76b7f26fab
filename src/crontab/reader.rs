//! The lines of a crontab in their order: assignments hold for the lines below them, and each entry is a job, a remark or a fault.

use std::collections::BTreeMap;
use std::ops::Range;

use super::command::Command;
use super::fires::Clocks;
use super::line::{Entry, Line, Time};
use super::name::Names;
use super::when::{When, WhenFault};
use super::{Crontab, Form, Given, Job, MAX_JOBS, Mail, Reboot};
use crate::diagnostic::Diagnostic;
use crate::keytable;

/// What cron gives to a job whose crontab says nothing else.
const DEFAULT_PATH: &str = "/usr/bin:/bin";
const DEFAULT_SHELL: &str = "/bin/sh";
/// A longer comment is no description of a job.
const MAX_COMMENT_LINES: usize = 3;

/// A fault of a line: its bytes, what it is, and what to do.
struct Refusal {
    range: Range<usize>,
    code: &'static str,
    message: String,
    help: String,
}

impl Refusal {
    fn new(range: Range<usize>, code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { range, code, message: message.into(), help: help.into() }
    }
}

impl From<WhenFault> for Refusal {
    fn from(fault: WhenFault) -> Self {
        Self::new(fault.range, "bad-time", fault.message, fault.help)
    }
}

/// What an entry comes to.
enum Read {
    Job(Box<Job>),
    Reboot(String),
}

/// What the lines above have set up.
struct Reader<'g> {
    given: &'g Given<'g>,
    names: Names,
    env: BTreeMap<String, String>,
    /// The line that set `RANDOM_DELAY`, and to what.
    delay: Option<(u32, String)>,
    /// The comments right above.
    comments: Vec<&'g str>,
}

pub(super) fn read(given: &Given<'_>) -> Crontab {
    let mut found = Crontab::default();
    if let Some(fault) = anacrontab(given) {
        found.refused.push(fault);
        return found;
    }
    let mut reader = Reader { given, names: Names::default(), env: BTreeMap::new(), delay: None, comments: Vec::new() };
    let mut at = 0;
    for (number, whole) in (1..).zip(given.text.split_inclusive('\n')) {
        let line = whole.strip_suffix('\n').unwrap_or(whole);
        if found.jobs.len() + found.refused.len() >= MAX_JOBS {
            let message = format!("the crontab has more than {MAX_JOBS} lines to import");
            found.refused.push(Diagnostic::of_file(given.path, "too-many-lines", message, "import it in parts"));
            break;
        }
        match reader.line(line, number, whole.len() > line.len()) {
            Ok(None) => {}
            Ok(Some(Read::Job(job))) => found.jobs.push(*job),
            Ok(Some(Read::Reboot(command))) => found.reboots.push(Reboot { line: number, command }),
            Err(Refusal { range, code, message, help }) => {
                let span = at + range.start..at + range.end.min(line.len()).max(range.start);
                found.refused.push(Diagnostic::at(given.path, given.text, span, code, message, help));
            }
        }
        at += whole.len();
    }
    found
}

/// `/etc/anacrontab` has another grammar and another idea: days that have passed, on hosts that are not always up.
fn anacrontab(given: &Given<'_>) -> Option<Diagnostic> {
    let is_named = given.path.file_name().is_some_and(|name| name == "anacrontab");
    let is_line = |line: &str| line.trim_start().starts_with("START_HOURS_RANGE");
    if !is_named && !given.text.lines().any(is_line) {
        return None;
    }
    let message = "this is a crontab of anacron, whose lines name a period in days and no time";
    let help = "write a DAG for each line, with `schedule = \"@daily\"` or another preset; what was missed while the host was off is \
                made up for when minflow starts";
    Some(Diagnostic::of_file(given.path, "anacrontab", message, help))
}

impl<'g> Reader<'g> {
    fn line(&mut self, text: &'g str, number: u32, has_end: bool) -> Result<Option<Read>, Refusal> {
        let line = Line::read(text);
        if let (Line::Assignment { .. } | Line::Entry(_), Some(refusal)) = (&line, unreadable(text)) {
            return Err(refusal);
        }
        match line {
            Line::Empty => self.comments.clear(),
            Line::Comment(comment) => self.comments.push(comment.trim()),
            Line::Assignment { name, value } => {
                self.comments.clear();
                self.assign(text, name, value, number)?;
            }
            Line::Entry(entry) => {
                let comments = std::mem::take(&mut self.comments);
                let mut read = self.entry(&entry, text, number)?;
                if let Read::Job(job) = &mut read {
                    job.comment = description(&comments);
                    if !has_end {
                        let remark = "cron passes over a last line without an end of line: it has not run this one";
                        job.remarks.push(remark.to_owned());
                    }
                }
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    fn assign(&mut self, text: &str, name: String, value: String, number: u32) -> Result<(), Refusal> {
        let whole = text.len() - text.trim_start().len()..text.trim_end().len();
        if name.is_empty() {
            return Err(Refusal::new(whole, "bad-variable", "a variable has no name", "write `NAME=value`"));
        }
        // What is refused here is so for the lines below, too: they must not run with something else.
        if name == "CRON_TZ" && !value.is_empty() && keytable::zone(&value).is_err() {
            self.env.insert(name, value.clone());
            return Err(Refusal::new(
                whole,
                "unknown-time-zone",
                format!("unknown time zone `{value}`: cron would take it for UTC"),
                keytable::zone_help(&value),
            ));
        }
        if name == "HOME" && !value.starts_with('/') {
            let help = "write the whole path: cron does not expand `~` or `$`";
            self.env.insert(name, value.clone());
            return Err(Refusal::new(
                whole,
                "relative-home",
                format!("`HOME` is `{value}`, not a path from `/`"),
                help,
            ));
        }
        if name == "RANDOM_DELAY" {
            let is_none = value.trim().parse::<i64>().unwrap_or(0) <= 0;
            self.delay = if is_none { None } else { Some((number, value.clone())) };
        }
        self.env.insert(name, value);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>, text: &str, number: u32) -> Result<Read, Refusal> {
        let (written, time_at) = written(entry, text);
        let nickname = match &entry.time {
            Time::Incomplete(range) => return Err(incomplete(range.clone(), text)),
            Time::Nickname(name, _) => Some(*name),
            Time::Fields(_) => None,
        };
        let when = match &entry.time {
            Time::Nickname("@reboot", _) => None,
            Time::Nickname(name, at) => Some(When::of_nickname(name).map_err(|fault| moved(fault, *at))?),
            Time::Fields(fields) => Some(When::of_fields(*fields)?),
            Time::Incomplete(_) => None,
        };
        let (user, (command, command_at)) = match self.given.form {
            Form::User => (None, (entry.rest, entry.rest_at)),
            Form::System => {
                let (user, command) = entry.user_and_command();
                (Some(user), command)
            }
        };
        if command.trim().is_empty() {
            return Err(no_command(time_at.clone(), user.is_some()));
        }
        if nickname.is_none() {
            refuse_sixth_field(user.unwrap_or((command, command_at)))?;
        }
        if let Some(user) = user {
            self.check_user(user)?;
        }
        let Some(when) = when else { return Ok(Read::Reboot(command.trim_end().to_owned())) };
        if let Some((line, delay)) = &self.delay {
            let message =
                format!("cron starts this line up to {delay} minutes late, by chance (RANDOM_DELAY in line {line})");
            let help = "take RANDOM_DELAY out of the crontab and give the lines other minutes; minflow starts a run when it is due";
            return Err(Refusal::new(time_at, "random-delay", message, help));
        }
        let Some(schedule) = when.expression(&written) else { return Err(both_days(time_at, &written)) };
        self.job(entry, when, schedule, (command, command_at), number, text).map(|job| Read::Job(Box::new(job)))
    }

    fn check_user(&self, (user, at): (&str, usize)) -> Result<(), Refusal> {
        let range = at..at + user.len();
        if user.is_empty() || !user.chars().all(|c| c.is_alphanumeric() || "_-.$@".contains(c)) {
            let help = "in /etc/crontab and /etc/cron.d the user stands between the time and the command; a user's own crontab has \
                        none, and is read without --system";
            return Err(Refusal::new(range, "bad-user", format!("`{user}` is no user"), help));
        }
        if user != self.given.user {
            let message =
                format!("this line runs as `{user}`, and minflow runs its tasks as the user that it was started as");
            let help = format!(
                "as `{user}`, import it into a home of that user with --skip-refused, and run a minflow there; to import it as \
                 `{}`, change the line",
                self.given.user
            );
            return Err(Refusal::new(range, "other-user", message, help));
        }
        Ok(())
    }

    fn job(
        &mut self,
        entry: &Entry<'_>,
        when: When,
        schedule: super::Expression,
        (written, at): (&str, usize),
        number: u32,
        text: &str,
    ) -> Result<Job, Refusal> {
        let command = Command::read(written);
        let (env, defaults) = self.environment();
        let shell = &env["SHELL"];
        self.check_command(&command, (shell, &env["HOME"]), at..text.trim_end().len())?;
        let mut remarks = Vec::new();
        if schedule.is_rewritten {
            remarks.push(
                "minflow reads the fields of the line differently, so they are written in another way".to_owned(),
            );
        }
        if command.input.is_some() {
            remarks.push("what stands behind `%` is the command's standard input, one line for each `%`".to_owned());
        }
        if entry.is_unlogged {
            remarks.push(
                "`-` before the time keeps a line out of the system's log, which minflow does not write to".to_owned(),
            );
        }
        let own = self.env.get("CRON_TZ").filter(|name| !name.is_empty());
        if let Some(name) = own {
            remarks.push(format!(
                "the fields are read in {name} (CRON_TZ), as cronie does; Debian's cron takes no notice of CRON_TZ"
            ));
        }
        let named = |zone: &String| keytable::zone(zone);
        let own_zone = own.map(named).transpose().map_err(|_| unknown_zone(own, at..text.trim_end().len()))?;
        let mail = match self.env.get("MAILTO").map(|to| to.trim()) {
            None => Mail::User,
            Some("") => Mail::Nowhere,
            Some(to) => Mail::To(to.to_owned()),
        };
        Ok(Job {
            line: number,
            source: text.trim().to_owned(),
            comment: None,
            dag_id: self.names.give(&command.text, self.given.prefix),
            when,
            clocks: Clocks { host: self.given.zone.1.clone(), own: own_zone },
            timezone: own.cloned().unwrap_or_else(|| self.given.zone.0.to_owned()),
            schedule,
            command,
            env,
            defaults,
            mail,
            remarks,
        })
    }

    /// The variables that cron gives to a job, and which of them are its own.
    fn environment(&self) -> (BTreeMap<String, String>, Vec<&'static str>) {
        let mut env = self.env.clone();
        // cron sets these itself, whatever the crontab says; minflow's tasks have them from its own environment.
        env.remove("LOGNAME");
        env.remove("USER");
        let home = self.given.home.unwrap_or("/");
        let mut defaults = Vec::new();
        for (name, value) in [("HOME", home), ("PATH", DEFAULT_PATH), ("SHELL", DEFAULT_SHELL)] {
            env.entry(name.to_owned()).or_insert_with(|| {
                defaults.push(name);
                value.to_owned()
            });
        }
        (env, defaults)
    }

    fn check_command(
        &self,
        command: &Command,
        (shell, home): (&str, &str),
        range: Range<usize>,
    ) -> Result<(), Refusal> {
        if !shell.starts_with('/') {
            let message = format!("`SHELL` is `{shell}`, not a path from `/`: cron cannot start it");
            return Err(Refusal::new(range, "bad-shell", message, "write its whole path, such as `SHELL=/bin/bash`"));
        }
        if !home.starts_with('/') {
            let message = format!("`HOME` is `{home}` for this line: cron does not find that folder");
            return Err(Refusal::new(range, "relative-home", message, "write its whole path above the line"));
        }
        if command.background().is_some() {
            let message =
                "a `&` leaves something running behind the command's end: cron lets it go on, minflow ends it";
            let help = "take the `&` out: neither keeps other jobs waiting for a long one; what shall run all the time is a service \
                        of systemd";
            return Err(Refusal::new(range, "background", message, help));
        }
        if command.doubtful_redirection(shell).is_some() {
            let message = "`&>` is bash's: as `sh`, which runs this line, dash starts the command in the background";
            let help = "write `> FILE 2>&1`, or `SHELL=/bin/bash` above the line";
            return Err(Refusal::new(range, "doubtful-redirection", message, help));
        }
        Ok(())
    }
}

/// The text of the time, and its place.
fn written<'a>(entry: &Entry<'a>, text: &'a str) -> (String, Range<usize>) {
    match &entry.time {
        Time::Nickname(name, at) => ((*name).to_owned(), *at..at + name.len()),
        Time::Incomplete(range) => (text[range.clone()].to_owned(), range.clone()),
        Time::Fields(fields) => {
            let (last, at) = fields[4];
            let range = fields[0].1..at + last.len();
            (text[range.clone()].to_owned(), range)
        }
    }
}

fn moved(mut fault: WhenFault, at: usize) -> WhenFault {
    fault.range = fault.range.start + at..fault.range.end + at;
    fault
}

/// What no line of a crontab that works holds, and a DAG file cannot.
fn unreadable(text: &str) -> Option<Refusal> {
    if let Some(at) = text.find('\r') {
        let message = "the line holds a carriage return, which cron hands to the command";
        let help = "if the file comes from Windows, `tr -d '\\r' < FILE` gives it the ends of line that cron wants";
        return Some(Refusal::new(at..at + 1, "carriage-return", message, help));
    }
    if let Some(at) = text.find(['\0', char::REPLACEMENT_CHARACTER]) {
        let message = "the line is not UTF-8, which DAG files are";
        let help = "write it as UTF-8 (`iconv -f latin1 -t utf8 FILE`), or put the command into a script and call that";
        return Some(Refusal::new(at..at + 1, "not-utf-8", message, help));
    }
    None
}

fn incomplete(range: Range<usize>, text: &str) -> Refusal {
    let has_sign = text.contains('=');
    let help = match has_sign {
        true => {
            "an assignment is `NAME=value`, with nothing behind quotes that are closed; a line is `minute hour day-of-month month \
                 day-of-week command`"
        }
        false => {
            "write `minute hour day-of-month month day-of-week command`, e.g. `0 6 * * 1-5 backup.sh`, or `@daily backup.sh`"
        }
    };
    Refusal::new(range, "no-command", "the line has no five fields and a command behind them", help)
}

fn no_command(range: Range<usize>, wants_user: bool) -> Refusal {
    let help = match wants_user {
        true => {
            "in a system's crontab the user and the command stand behind the time; read a user's own crontab without --system"
        }
        false => "write the command behind the time; a crontab of the system is read with --system",
    };
    Refusal::new(range, "no-command", "there is no command behind the time", help)
}

/// `0 0 12 * * * cmd`: schedulers with seconds write six fields, and cron takes the sixth for the command.
fn refuse_sixth_field((text, at): (&str, usize)) -> Result<(), Refusal> {
    let word = text.split([' ', '\t']).next().unwrap_or_default();
    let is_field = word.chars().all(|c| c.is_ascii_digit() || "*/,-?".contains(c)) && word != "/";
    if word.is_empty() || !is_field {
        return Ok(());
    }
    let message = format!("`{word}` looks like a sixth field, and cron has five: it would run `{word}` as the command");
    let help =
        "leave out the field of seconds; minflow itself takes one, as the sixth (`minflow cron \"0 6 * * * 30\"`)";
    Err(Refusal::new(at..at + word.len(), "six-fields", message, help))
}

fn both_days(range: Range<usize>, written: &str) -> Refusal {
    let message = format!(
        "`{written}`: a day field begins with `*`, so that cron runs this only on days that suit both; minflow, as Airflow, would \
         take a day that suits either"
    );
    let help =
        "write `*` in one of the two, and let the command ask for it, e.g. `[ $(date +\\%u) = 1 ] && …` for Mondays";
    Refusal::new(range, "both-days", message, help)
}

fn unknown_zone(name: Option<&String>, range: Range<usize>) -> Refusal {
    let name = name.map(String::as_str).unwrap_or_default();
    let message = format!("the line's time zone `{name}` (CRON_TZ) is unknown");
    Refusal::new(range, "unknown-time-zone", message, keytable::zone_help(name))
}

/// A few lines of comment right above, if they are words and no line that was switched off.
fn description(comments: &[&str]) -> Option<String> {
    let is_switched_off = |comment: &&str| match Line::read(comment) {
        Line::Entry(Entry { time: Time::Fields(fields), .. }) => When::of_fields(fields).is_ok(),
        Line::Entry(Entry { time: Time::Nickname(..), .. }) | Line::Assignment { .. } => true,
        _ => false,
    };
    let is_header = |comment: &&str| comment.split_whitespace().any(|word| word == "dom" || word == "dow");
    let is_words = !comments.is_empty()
        && comments.len() <= MAX_COMMENT_LINES
        && !comments.iter().any(|comment| is_switched_off(comment) || is_header(comment));
    let joined = comments.join(" ");
    let joined = joined.trim_matches(|c: char| c.is_whitespace() || "#-=*".contains(c)).to_owned();
    let is_readable = !joined.is_empty() && !joined.contains([char::REPLACEMENT_CHARACTER, '\r', '\0']);
    (is_words && is_readable).then_some(joined)
}

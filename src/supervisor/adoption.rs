//! What a supervisor whose scheduler is gone and the next scheduler say to each other, and in which form ends are written down.
//!
//! One JSON value a line. The form is frozen: a newer minflow adopts from an older supervisor, so fields may be added (with a
//! default) and none may change. Whoever does not understand the other's [`VERSION`] says so ([`Told::Refused`]) and goes.
//! Knows neither how tries are run nor what becomes of them.

use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{Exceeded, InstanceKey, ProcessIdentity, TryKey, Usage};
use crate::supervisor::protocol::{Cause, End, Exit, Refusal};

/// Raised when a message is no longer understood by the version before.
pub const VERSION: u32 = 1;

/// What the names of a supervisor's files in the home begin with.
const PREFIX: &str = "minflow.supervisor.";
/// Where it listens.
pub const SOCKET_SUFFIX: &str = ".sock";
/// Where it writes ends that nobody hears.
pub const RECORDS_SUFFIX: &str = ".ends";
/// What it leaves when it goes and no scheduler has come: that it has lived to its end, and how many ends it has written down.
pub const PAST_SUFFIX: &str = ".past";

/// What the name of its files is made of: when it was greeted, in microseconds, and its pid. No two supervisors of a home share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub greeted_at: i64,
    pub pid: i32,
}

impl Name {
    pub fn socket(self) -> String {
        format!("{PREFIX}{}-{}{SOCKET_SUFFIX}", self.greeted_at, self.pid)
    }

    pub fn records(self) -> String {
        format!("{PREFIX}{}-{}{RECORDS_SUFFIX}", self.greeted_at, self.pid)
    }

    pub fn past(self) -> String {
        format!("{PREFIX}{}-{}{PAST_SUFFIX}", self.greeted_at, self.pid)
    }

    /// Of a file's name that ends in `suffix`.
    pub fn of(file: &str, suffix: &str) -> Option<Self> {
        let (greeted_at, pid) = file.strip_prefix(PREFIX)?.strip_suffix(suffix)?.split_once('-')?;
        Some(Self { greeted_at: greeted_at.parse().ok()?, pid: pid.parse().ok()? })
    }
}

/// A try: its instance and its number.
pub type Key = (i64, u32);

/// What the scheduler says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// First.
    Adopt {
        version: u32,
    },
    Kill {
        key: Key,
        reason: String,
        /// SIGKILL at once, without the kill signal.
        immediate: bool,
    },
    Pause {
        key: Key,
    },
    Resume {
        key: Key,
    },
    /// The ends of these tries are recorded and need not be remembered.
    Acknowledge {
        keys: Vec<Key>,
    },
}

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// First: what it has follows, up to `Listed`.
    Hello {
        version: u32,
        pid: i32,
    },
    Refused {
        message: String,
    },
    /// Of the list: a try that is not over.
    Runs(Runs),
    Listed,
    /// The process of a try that was being made runs its program.
    Started {
        key: Key,
        process: Identity,
        started_at: i64,
    },
    /// Of the list, or as it comes: a try that is over, and not acknowledged.
    Ended(Box<Ended>),
}

/// A try that is not over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    pub key: Key,
    /// None: it is being made, or its leader has just ended.
    pub process: Option<Identity>,
    /// In microseconds since 1970.
    pub started_at: i64,
    pub is_paused: bool,
    pub kept: Kept,
}

/// What its scheduler gave the supervisor to keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub output_from: u64,
    pub memo: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    pub start_ticks: u64,
    pub boot_id: String,
}

impl From<ProcessIdentity> for Identity {
    fn from(ProcessIdentity { pid, start_ticks, boot_id }: ProcessIdentity) -> Self {
        Self { pid, start_ticks, boot_id }
    }
}

impl From<Identity> for ProcessIdentity {
    fn from(Identity { pid, start_ticks, boot_id }: Identity) -> Self {
        Self { pid, start_ticks, boot_id }
    }
}

/// A try that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub key: Key,
    pub kept: Kept,
    pub fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Over(Box<Over>),
    /// It had no process.
    NotStarted {
        is_transient: bool,
        message: String,
    },
}

/// How a process ended. Instants and durations in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Over {
    /// One of the two is given.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub cause: Reason,
    pub started_at: i64,
    pub ended_at: i64,
    pub user_cpu: u64,
    pub system_cpu: u64,
    pub max_rss: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
    pub log_bytes_dropped: u64,
    pub output_to: u64,
    pub tail: Option<String>,
    pub noted_bytes: u64,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Itself,
    TimedOut,
    /// The word for the limit, as [`Exceeded::reason`] gives it.
    Exceeded {
        limit: String,
    },
    Killed {
        reason: String,
    },
}

pub fn key_of(key: TryKey) -> Key {
    (key.instance.0, key.try_number)
}

pub fn try_key((instance, try_number): Key) -> TryKey {
    TryKey { instance: InstanceKey(instance), try_number }
}

/// What the supervisor keeps of a try that is over.
#[derive(Clone, Debug)]
pub enum Verdict {
    Ended(Box<End>),
    NotStarted { kind: Refusal, message: String },
}

impl Ended {
    pub fn new(key: TryKey, kept: &Kept, verdict: &Verdict) -> Self {
        let fate = match verdict {
            Verdict::Ended(end) => Fate::Over(Box::new(over(end))),
            Verdict::NotStarted { kind, message } => {
                Fate::NotStarted { is_transient: *kind == Refusal::Transient, message: message.clone() }
            }
        };
        Self { key: key_of(key), kept: kept.clone(), fate }
    }

    /// None: an instant or a limit is none that this minflow knows.
    pub fn verdict(&self) -> Option<Verdict> {
        Some(match &self.fate {
            Fate::Over(over) => Verdict::Ended(Box::new(end(try_key(self.key), over)?)),
            Fate::NotStarted { is_transient, message } => {
                let kind = if *is_transient { Refusal::Transient } else { Refusal::Permanent };
                Verdict::NotStarted { kind, message: message.clone() }
            }
        })
    }
}

fn over(end: &End) -> Over {
    let (exit_code, signal) = match end.exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
    };
    let cause = match &end.cause {
        Cause::Itself => Reason::Itself,
        Cause::TimedOut => Reason::TimedOut,
        Cause::Exceeded { limit } => Reason::Exceeded { limit: limit.reason().to_owned() },
        Cause::Killed { reason } => Reason::Killed { reason: reason.clone() },
    };
    let Usage { user_cpu, system_cpu, max_rss, read_bytes, write_bytes, voluntary_switches, involuntary_switches } =
        end.usage;
    Over {
        exit_code,
        signal,
        cause,
        started_at: end.started_at.as_microsecond(),
        ended_at: end.ended_at.as_microsecond(),
        user_cpu: user_cpu.as_micros() as u64,
        system_cpu: system_cpu.as_micros() as u64,
        max_rss,
        read_bytes,
        write_bytes,
        voluntary_switches,
        involuntary_switches,
        log_bytes_dropped: end.log_bytes_dropped,
        output_to: end.output_to,
        tail: end.tail.clone(),
        noted_bytes: end.noted_bytes,
        notes: end.notes.clone(),
    }
}

fn end(key: TryKey, over: &Over) -> Option<End> {
    let exit = match (over.exit_code, over.signal) {
        (Some(code), None) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        _ => return None,
    };
    let cause = match &over.cause {
        Reason::Itself => Cause::Itself,
        Reason::TimedOut => Cause::TimedOut,
        Reason::Exceeded { limit } => {
            Cause::Exceeded { limit: Exceeded::ALL.into_iter().find(|known| known.reason() == limit)? }
        }
        Reason::Killed { reason } => Cause::Killed { reason: reason.clone() },
    };
    Some(End {
        key,
        exit,
        cause,
        usage: Usage {
            user_cpu: std::time::Duration::from_micros(over.user_cpu),
            system_cpu: std::time::Duration::from_micros(over.system_cpu),
            max_rss: over.max_rss,
            read_bytes: over.read_bytes,
            write_bytes: over.write_bytes,
            voluntary_switches: over.voluntary_switches,
            involuntary_switches: over.involuntary_switches,
        },
        started_at: Timestamp::from_microsecond(over.started_at).ok()?,
        ended_at: Timestamp::from_microsecond(over.ended_at).ok()?,
        log_bytes_dropped: over.log_bytes_dropped,
        output_to: over.output_to,
        tail: over.tail.clone(),
        noted_bytes: over.noted_bytes,
        notes: over.notes.clone(),
    })
}

/// Appends a message and the end of its line.
pub fn say(message: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, message).expect("what is said has texts for keys, and memory takes it");
    out.push(b'\n');
}

/// Cuts lines out of a stream of bytes.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// All whole messages that have come.
    ///
    /// # Errors
    /// The other side does not speak this protocol.
    pub fn take<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<Vec<T>> {
        let Some(end) = self.bytes.iter().rposition(|&byte| byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.bytes.split_off(end + 1);
        let whole = std::mem::replace(&mut self.bytes, rest);
        let lines = whole[..end].split(|&byte| byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
    }
}

/// A record of an end, as a line of a file of records: what stands there only in part, or was changed, is not taken for one.
pub fn record(ended: &Ended, out: &mut Vec<u8>) {
    let text = serde_json::to_string(ended).expect("an end has texts for keys");
    out.extend_from_slice(format!("{:016x} {text}\n", sum(text.as_bytes())).as_bytes());
}

/// The first line of a file of records.
pub fn records_head() -> String {
    format!("minflow ends {VERSION}\n")
}

/// What a supervisor leaves that has lived to its end and written down `ends` of them.
pub fn past(boot_id: &str, ends: usize) -> String {
    format!("minflow past {VERSION} {boot_id} {ends}\n")
}

/// How many ends it has written down. None: it is none of this boot, or torn, or of another version.
pub fn read_past(text: &str, boot_id: &str) -> Option<usize> {
    let ends = text.strip_suffix('\n')?.strip_prefix(&format!("minflow past {VERSION} {boot_id} "))?;
    ends.parse().ok()
}

/// The records of a file, up to the first that is not whole: a file that a power cut has torn ends there.
///
/// # Errors
/// The file's form is none that this minflow knows; the sentence fits after its path.
pub fn read_records(text: &[u8]) -> Result<Vec<Ended>, String> {
    let mut lines = text.split_inclusive(|&byte| byte == b'\n');
    match lines.next() {
        None => return Ok(Vec::new()),
        Some(head) if head == records_head().as_bytes() => {}
        // Cut off before its first line was whole.
        Some(head) if records_head().as_bytes().starts_with(head) => return Ok(Vec::new()),
        Some(_) => return Err("is of another version of minflow".to_owned()),
    }
    let parse = |line: &[u8]| {
        let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let (given, text) = line.split_once(' ')?;
        (u64::from_str_radix(given, 16) == Ok(sum(text.as_bytes()))).then_some(())?;
        serde_json::from_str(text).ok()
    };
    Ok(lines.map_while(parse).collect())
}

/// FNV-1a.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ended(instance: i64, exit: Exit, cause: Cause) -> Ended {
        let at = Timestamp::from_microsecond(1_800_000_000_000_001).unwrap();
        let key = TryKey { instance: InstanceKey(instance), try_number: 2 };
        let end = End {
            key,
            exit,
            cause,
            usage: Usage { user_cpu: Duration::from_micros(7), max_rss: 9, ..Usage::default() },
            started_at: at,
            ended_at: at,
            log_bytes_dropped: 3,
            output_to: 8,
            tail: Some("ä\n".to_owned()),
            noted_bytes: 4,
            notes: vec!["n".to_owned()],
        };
        Ended::new(key, &Kept { output_from: 5, memo: "{}".to_owned() }, &Verdict::Ended(Box::new(end)))
    }

    fn some() -> Vec<Ended> {
        let mut all = vec![
            ended(1, Exit::Code(7), Cause::Itself),
            ended(-2, Exit::Signal(15), Cause::TimedOut),
            ended(3, Exit::Signal(9), Cause::Killed { reason: "stopped".to_owned() }),
        ];
        all.extend(Exceeded::ALL.map(|limit| ended(4, Exit::Signal(9), Cause::Exceeded { limit })));
        let refused = Verdict::NotStarted { kind: Refusal::Permanent, message: "no".to_owned() };
        all.push(Ended::new(TryKey { instance: InstanceKey(5), try_number: 1 }, &Kept::default(), &refused));
        all
    }

    #[test]
    fn an_end_comes_back_as_it_was() {
        for ended in some() {
            let again = Ended::new(try_key(ended.key), &ended.kept, &ended.verdict().unwrap());
            assert_eq!(again, ended);
        }
    }

    #[test]
    fn messages_survive_being_cut_anywhere() {
        let all: Vec<Told> = some().into_iter().map(|ended| Told::Ended(Box::new(ended))).collect();
        let mut bytes = Vec::new();
        all.iter().for_each(|told| say(told, &mut bytes));
        for cut in 0..bytes.len() {
            let mut lines = Lines::default();
            lines.feed(&bytes[..cut]);
            let mut seen: Vec<Told> = lines.take().unwrap();
            lines.feed(&bytes[cut..]);
            seen.extend(lines.take::<Told>().unwrap());
            assert_eq!(seen, all, "cut at {cut}");
        }
        let mut lines = Lines::default();
        lines.feed(b"GET / HTTP/1.1\r\n");
        assert!(lines.take::<Told>().is_err());
    }

    #[test]
    fn of_a_torn_file_all_whole_records_are_read_and_no_other() {
        let mut bytes = records_head().into_bytes();
        let (mut ends, all) = (vec![bytes.len()], some());
        for ended in &all {
            record(ended, &mut bytes);
            ends.push(bytes.len());
        }
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|&&end| end <= cut).count().saturating_sub(1);
            assert_eq!(read_records(&bytes[..cut]).unwrap(), all[..whole], "cut at {cut}");
        }
        let mut changed = bytes.clone();
        changed[ends[1] + 30] ^= 1;
        assert_eq!(read_records(&changed).unwrap(), all[..1]);
        assert!(read_records(b"minflow ends 9\n").unwrap_err().contains("another version"));
    }

    #[test]
    fn what_is_left_of_a_supervisor_counts_in_its_own_boot_alone_and_only_as_a_whole() {
        let text = past("boot", 12);
        assert_eq!(read_past(&text, "boot"), Some(12));
        assert_eq!(read_past(&text, "another"), None);
        for cut in 0..text.len() {
            assert_eq!(read_past(&text[..cut], "boot"), None, "cut at {cut}");
        }
    }

    /// These lines were written by the first version: a change that breaks them would lose work at an upgrade.
    #[test]
    fn what_the_first_version_said_is_understood_for_ever() {
        let adopt: Ask = serde_json::from_str(r#"{"adopt":{"version":1}}"#).unwrap();
        assert_eq!(adopt, Ask::Adopt { version: 1 });
        let said = [
            r#"{"hello":{"version":1,"pid":12}}"#,
            r#"{"runs":{"key":[7,1],"process":{"pid":12,"start_ticks":34,"boot_id":"b"},"started_at":5,"is_paused":false,"kept":{"output_from":6,"memo":""}}}"#,
            r#""listed""#,
            r#"{"started":{"key":[7,1],"process":{"pid":12,"start_ticks":34,"boot_id":"b"},"started_at":5}}"#,
            r#"{"ended":{"key":[7,1],"kept":{"output_from":6,"memo":"m"},"fate":{"over":{"exit_code":7,"signal":null,"cause":"itself","started_at":1,"ended_at":2,"user_cpu":3,"system_cpu":4,"max_rss":5,"read_bytes":6,"write_bytes":7,"voluntary_switches":8,"involuntary_switches":9,"log_bytes_dropped":0,"output_to":0,"tail":null,"noted_bytes":0,"notes":[]}}}}"#,
            r#"{"ended":{"key":[8,1],"kept":{"output_from":0,"memo":""},"fate":{"not_started":{"is_transient":true,"message":"m"}}}}"#,
            r#"{"refused":{"message":"m"}}"#,
        ];
        for line in said {
            let told: Told = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&told).unwrap(), line);
        }
    }
}

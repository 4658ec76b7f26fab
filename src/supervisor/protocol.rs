//! What the scheduler's process and the supervisor say to each other: frames, each after its length.
//!
//! Knows neither how a request is carried out nor why it was made. A frame is four bytes of length (little endian) and that
//! many bytes of one message (`wire.rs`). The first request is [`Request::Hello`]; the answer to another version is
//! [`Answer::Refused`]. What these two and [`Answer::Hello`] look like does not change.

use std::io;

use jiff::Timestamp;

use crate::model::{Exceeded, Limits, ProcessIdentity, TryKey, Usage};
use crate::supervisor::wire::{Input, Wire, record};

/// Raised with each change of what follows.
pub const VERSION: u32 = 5;

/// A frame holds a script of 100 KiB and an environment; nothing honest comes near this.
const MAX_FRAME: usize = 64 << 20;

/// How many bytes of a capped log's end are kept for the output line.
pub const TAIL_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Hello {
        version: u32,
    },
    Start(Box<Start>),
    Kill {
        key: TryKey,
        reason: String,
        /// SIGKILL at once, without the kill signal.
        immediate: bool,
    },
    /// The ends of these tries are recorded and need not be remembered.
    Acknowledge {
        keys: Vec<TryKey>,
    },
    /// Stops all processes of a try, and its timeout; one that is over is left alone.
    Pause {
        key: TryKey,
    },
    /// Has them go on.
    Resume {
        key: TryKey,
    },
    /// Said before `Hello`: tasks that run when this scheduler goes are kept for the next one (`adoption`), not ended.
    Outlive,
}

/// A process to run. Texts without NUL; paths are absolute.
#[derive(Clone, PartialEq)]
pub struct Start {
    pub key: TryKey,
    /// The executable's path first, and it is taken as it is.
    pub argv: Vec<String>,
    pub cwd: String,
    /// A file that becomes its standard input; None: it has none.
    pub stdin: Option<String>,
    /// Added to the environment in which minflow was started; wins over it.
    pub env: Vec<(String, String)>,
    /// Taken out of that environment.
    pub env_removed: Vec<String>,
    pub limits: Option<Limits>,
    /// As whom it runs; None: as the supervisor.
    pub user: Option<User>,
    /// Exists already; the process appends to it.
    pub log: String,
    /// The log's greatest size in bytes, what it held before included.
    pub max_log_bytes: u64,
    pub timeout_ms: Option<u64>,
    /// A signal's number.
    pub kill_signal: i32,
    pub grace_ms: u64,
    pub tree: Tree,
    /// Whether what outlives the try's own process is left alone, unless the try is ended by a timeout or a kill.
    pub leaves: bool,
    /// Whether the end of the output is wanted if the log had to be cut.
    pub wants_tail: bool,
    /// How many bytes of the log are not the task's.
    pub output_from: u64,
    /// What whoever concludes the try needs beside its end. The supervisor only keeps it.
    pub memo: String,
}

/// A user, resolved: the supervisor asks nobody who that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// For messages.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// All of them, that of `gid` included.
    pub groups: Vec<u32>,
}

impl std::fmt::Debug for Start {
    // Arguments and environment may hold secrets and stay out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("key", &self.key).field("log", &self.log).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Hello {
        version: u32,
        pid: i32,
    },
    /// It serves this scheduler not, and ends.
    Refused {
        message: String,
    },
    Started {
        key: TryKey,
        process: ProcessIdentity,
        at: Timestamp,
    },
    NotStarted {
        key: TryKey,
        kind: Refusal,
        message: String,
    },
    Ended(Box<End>),
}

/// Why nothing was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The host lacks processes, memory or descriptors just now.
    Transient,
    /// It would fail again.
    Permanent,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    pub key: TryKey,
    pub exit: Exit,
    pub cause: Cause,
    pub usage: Usage,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// How much of its output the log's limit cost.
    pub log_bytes_dropped: u64,
    /// How long the log was when the last of its processes had ended, in bytes; 0: nobody knows.
    pub output_to: u64,
    /// If that is not 0 and the tail was wanted: the last [`TAIL_BYTES`] of the output, with the replacement character for what
    /// is not UTF-8.
    pub tail: Option<String>,
    /// How many bytes of the log the supervisor wrote before the process began.
    pub noted_bytes: u64,
    /// What is to be said in the log.
    pub notes: Vec<String>,
}

/// Which of its processes end with a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Those of its process group. It ends the others itself.
    Group,
    /// All that can be recognised.
    Whole,
    /// All, whatever they do: it gets a subreaper of its own.
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Who wanted the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The process itself, or somebody unknown.
    Itself,
    TimedOut,
    /// One of its limits.
    Exceeded {
        limit: Exceeded,
    },
    Killed {
        reason: String,
    },
}

record!(Start {
    key,
    argv,
    cwd,
    stdin,
    env,
    env_removed,
    limits,
    user,
    log,
    max_log_bytes,
    timeout_ms,
    kill_signal,
    grace_ms,
    tree,
    leaves,
    wants_tail,
    output_from,
    memo
});

record!(User { name, uid, gid, groups });

record!(End { key, exit, cause, usage, started_at, ended_at, log_bytes_dropped, output_to, tail, noted_bytes, notes });

impl Wire for Request {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { version } => (0_u8, *version).put(out),
            Self::Start(start) => {
                1_u8.put(out);
                start.put(out);
            }
            Self::Kill { key, reason, immediate } => {
                (2_u8, *key).put(out);
                reason.put(out);
                immediate.put(out);
            }
            Self::Acknowledge { keys } => {
                3_u8.put(out);
                keys.put(out);
            }
            Self::Pause { key } => (4_u8, *key).put(out),
            Self::Resume { key } => (5_u8, *key).put(out),
            Self::Outlive => 6_u8.put(out),
        }
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        Some(match u8::take(input)? {
            0 => Self::Hello { version: Wire::take(input)? },
            1 => Self::Start(Box::new(Wire::take(input)?)),
            2 => Self::Kill { key: Wire::take(input)?, reason: Wire::take(input)?, immediate: Wire::take(input)? },
            3 => Self::Acknowledge { keys: Wire::take(input)? },
            4 => Self::Pause { key: Wire::take(input)? },
            5 => Self::Resume { key: Wire::take(input)? },
            6 => Self::Outlive,
            _ => return None,
        })
    }
}

impl Wire for Answer {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello { version, pid } => (0_u8, (*version, *pid)).put(out),
            Self::Refused { message } => {
                1_u8.put(out);
                message.put(out);
            }
            Self::Started { key, process, at } => {
                (2_u8, *key).put(out);
                process.put(out);
                at.put(out);
            }
            Self::NotStarted { key, kind, message } => {
                (3_u8, *key).put(out);
                (*kind == Refusal::Transient).put(out);
                message.put(out);
            }
            Self::Ended(end) => {
                4_u8.put(out);
                end.put(out);
            }
        }
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        Some(match u8::take(input)? {
            0 => Self::Hello { version: Wire::take(input)?, pid: Wire::take(input)? },
            1 => Self::Refused { message: Wire::take(input)? },
            2 => Self::Started { key: Wire::take(input)?, process: Wire::take(input)?, at: Wire::take(input)? },
            3 => {
                let key = Wire::take(input)?;
                let kind = if bool::take(input)? { Refusal::Transient } else { Refusal::Permanent };
                Self::NotStarted { key, kind, message: Wire::take(input)? }
            }
            4 => Self::Ended(Box::new(Wire::take(input)?)),
            _ => return None,
        })
    }
}

impl Wire for Tree {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        [Self::Group, Self::Whole, Self::Strict].get(usize::from(u8::take(input)?)).copied()
    }
}

impl Wire for Exit {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Code(code) => (0_u8, *code).put(out),
            Self::Signal(signal) => (1_u8, *signal).put(out),
        }
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        match <(u8, i32)>::take(input)? {
            (0, code) => Some(Self::Code(code)),
            (1, signal) => Some(Self::Signal(signal)),
            _ => None,
        }
    }
}

impl Wire for Cause {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Itself => 0_u8.put(out),
            Self::TimedOut => 1_u8.put(out),
            Self::Killed { reason } => {
                2_u8.put(out);
                reason.put(out);
            }
            Self::Exceeded { limit } => {
                3_u8.put(out);
                limit.put(out);
            }
        }
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        match u8::take(input)? {
            0 => Some(Self::Itself),
            1 => Some(Self::TimedOut),
            2 => Some(Self::Killed { reason: Wire::take(input)? }),
            3 => Some(Self::Exceeded { limit: Wire::take(input)? }),
            _ => None,
        }
    }
}

/// Appends a frame to `out`.
pub fn encode(message: &impl Wire, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    message.put(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Cuts frames out of a stream of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    read: usize,
}

impl Decoder {
    /// Takes what has come.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.read == self.bytes.len() {
            self.bytes.clear();
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// The other side does not speak this protocol.
    pub fn take<T: Wire>(&mut self) -> io::Result<Option<T>> {
        let left = &self.bytes[self.read..];
        let Some((length, rest)) = left.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let mut input = Input::new(frame);
        let message = T::take(&mut input).filter(|_| input.is_empty());
        let message =
            message.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a message of no known form"))?;
        self.read += 4 + length;
        if self.read > 1 << 20 {
            // One large frame must not keep its memory for ever.
            self.bytes = self.bytes.split_off(self.read);
            self.read = 0;
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Enforce, InstanceKey, IoPriority};

    fn kill(reason: &str) -> Request {
        let key = TryKey { instance: InstanceKey(7), try_number: 1 };
        Request::Kill { key, reason: reason.to_owned(), immediate: false }
    }

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let mut bytes = Vec::new();
        encode(&kill("a"), &mut bytes);
        encode(&kill("b"), &mut bytes);
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen: Vec<Request> = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.feed(part);
                while let Some(request) = decoder.take().unwrap() {
                    seen.push(request);
                }
            }
            assert_eq!(seen, [kill("a"), kill("b")], "cut at {cut}");
        }
    }

    #[test]
    fn every_message_comes_out_as_it_went_in() {
        let key = TryKey { instance: InstanceKey(i64::MIN), try_number: u32::MAX };
        let text = || "a\0ä".to_owned();
        let start = Start {
            key,
            argv: vec![text(), String::new()],
            cwd: text(),
            env: vec![(text(), text())],
            env_removed: vec![text()],
            log: text(),
            max_log_bytes: u64::MAX,
            timeout_ms: Some(7),
            kill_signal: -1,
            grace_ms: 9,
            tree: Tree::Strict,
            leaves: true,
            stdin: Some(text()),
            limits: Some(Limits {
                memory: Some(u64::MAX),
                millicpus: Some(1),
                cpu_time: Some(Duration::from_secs(2)),
                processes: Some(3),
                open_files: Some(4),
                file_size: Some(5),
                nice: Some(-20),
                ionice: Some(IoPriority::BestEffort(7)),
                umask: Some(0o777),
                enforce: Enforce::Require,
            }),
            user: Some(User { name: text(), uid: u32::MAX, gid: 0, groups: vec![0, 7] }),
            wants_tail: true,
            output_from: u64::MAX,
            memo: text(),
        };
        let requests = [
            Request::Hello { version: VERSION },
            Request::Start(Box::new(start.clone())),
            Request::Start(Box::new(Start {
                timeout_ms: None,
                argv: Vec::new(),
                tree: Tree::Group,
                limits: Some(Limits { ionice: Some(IoPriority::Idle), ..Limits::default() }),
                user: None,
                ..start
            })),
            Request::Kill { key, reason: text(), immediate: true },
            Request::Acknowledge { keys: vec![key, key] },
            Request::Pause { key },
            Request::Resume { key },
            Request::Outlive,
        ];
        assert_eq!(there_and_back(&requests), requests);
        let at = Timestamp::from_microsecond(-1).unwrap();
        let process = ProcessIdentity { pid: 7, start_ticks: 8, boot_id: text() };
        let usage = Usage { max_rss: 1, read_bytes: 2, write_bytes: 3, ..Usage::default() };
        let end = |exit, cause, tail| {
            Answer::Ended(Box::new(End {
                key,
                exit,
                cause,
                usage,
                started_at: at,
                ended_at: at,
                log_bytes_dropped: 4,
                output_to: 6,
                tail,
                noted_bytes: 5,
                notes: vec![text()],
            }))
        };
        let answers = [
            Answer::Hello { version: VERSION, pid: 3 },
            Answer::Refused { message: text() },
            Answer::Started { key, process, at },
            Answer::NotStarted { key, kind: Refusal::Transient, message: text() },
            Answer::NotStarted { key, kind: Refusal::Permanent, message: text() },
            end(Exit::Code(-1), Cause::Itself, None),
            end(Exit::Signal(9), Cause::TimedOut, Some(text())),
            end(Exit::Signal(9), Cause::Killed { reason: text() }, None),
            end(Exit::Signal(9), Cause::Exceeded { limit: Exceeded::FileSize }, None),
        ];
        assert_eq!(there_and_back(&answers), answers);
    }

    fn there_and_back<T: Wire>(messages: &[T]) -> Vec<T> {
        let mut decoder = Decoder::default();
        for message in messages {
            let mut bytes = Vec::new();
            encode(message, &mut bytes);
            decoder.feed(&bytes);
        }
        std::iter::from_fn(|| decoder.take().unwrap()).collect()
    }

    #[test]
    fn a_frame_with_more_or_less_than_a_message_is_an_error() {
        let mut bytes = Vec::new();
        encode(&kill("a"), &mut bytes);
        for length in [bytes.len() as u32 - 5, bytes.len() as u32 - 3] {
            let mut frame = bytes.clone();
            frame[..4].copy_from_slice(&length.to_le_bytes());
            frame.push(0);
            let mut decoder = Decoder::default();
            decoder.feed(&frame);
            assert!(decoder.take::<Request>().is_err());
        }
    }

    #[test]
    fn a_stranger_on_the_line_is_an_error_and_no_endless_wait() {
        let mut decoder = Decoder::default();
        decoder.feed(b"GET / HTTP/1.1\r\n");
        assert!(decoder.take::<Request>().is_err());
    }
}

//! What the scheduler's process and the supervisor say to each other: frames of JSON, each after its length.
//!
//! Knows neither how a request is carried out nor why it was made. A frame is four bytes of length (little endian) and that
//! many bytes of JSON. The first request is [`Request::Hello`]; the answer to another version is [`Answer::Refused`].

use std::io;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{ProcessIdentity, TryKey, Usage};

/// Raised with each change of what follows.
pub const VERSION: u32 = 1;

/// A frame holds a script of 100 KiB and an environment; nothing honest comes near this.
const MAX_FRAME: usize = 64 << 20;

/// How many bytes of a capped log's end are kept for the output line.
pub const TAIL_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// A process to run. Texts without NUL; paths are absolute.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub key: TryKey,
    /// The executable's path first, and it is taken as it is.
    pub argv: Vec<String>,
    pub cwd: String,
    /// Added to the environment in which minflow was started; wins over it.
    pub env: Vec<(String, String)>,
    /// Taken out of that environment.
    pub env_removed: Vec<String>,
    /// Exists already; the process appends to it.
    pub log: String,
    /// The log's greatest size in bytes, what it held before included.
    pub max_log_bytes: u64,
    pub timeout_ms: Option<u64>,
    /// A signal's number.
    pub kill_signal: i32,
    pub grace_ms: u64,
    /// Whether the end of the output is wanted if the log had to be cut.
    pub wants_tail: bool,
}

impl std::fmt::Debug for Start {
    // Arguments and environment may hold secrets and stay out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("key", &self.key).field("log", &self.log).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The host lacks processes, memory or descriptors just now.
    Transient,
    /// It would fail again.
    Permanent,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub key: TryKey,
    pub exit: Exit,
    pub cause: Cause,
    pub usage: Usage,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// How much of its output the log's limit cost.
    pub log_bytes_dropped: u64,
    /// If that is not 0 and the tail was wanted: the last [`TAIL_BYTES`] of the output, with the replacement character for what
    /// is not UTF-8.
    pub tail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Who wanted the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The process itself, or somebody unknown.
    Itself,
    TimedOut,
    Killed {
        reason: String,
    },
}

/// Appends a frame to `out`.
pub fn encode(message: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *out, message).expect("messages are plain data, and a vector takes all that is written");
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
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let left = &self.bytes[self.read..];
        let Some((length, rest)) = left.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(frame).map_err(io::Error::from)?;
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
    use super::*;
    use crate::model::InstanceKey;

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
    fn a_stranger_on_the_line_is_an_error_and_no_endless_wait() {
        let mut decoder = Decoder::default();
        decoder.feed(b"GET / HTTP/1.1\r\n");
        assert!(decoder.take::<Request>().is_err());
    }
}

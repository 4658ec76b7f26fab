//! One try's log as it is shown: without the home's secrets, within its limit while the try runs, and of it what was asked for.
//!
//! Knows the file, and not whose it is. Called by `tasks logs`.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Outcome};
use crate::executor::log_file;
use crate::secrets::Scrubber;

/// Which bytes of it, as HTTP's ranges name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// From the first of them on; how many, if not all.
    From(u64, Option<u64>),
    /// The last so many.
    Last(u64),
}

impl Span {
    pub const ALL: Self = Self::From(0, None);

    /// `0-499`, `500-` or `-500`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().ok();
        let span = match text.split_once('-') {
            Some(("", last)) => number(last).map(Self::Last),
            Some((from, "")) => number(from).map(|from| Self::From(from, None)),
            Some((from, to)) => number(from).zip(number(to)).and_then(|(from, to)| {
                let count = to.checked_sub(from)?.checked_add(1)?;
                Some(Self::From(from, Some(count)))
            }),
            None => None,
        };
        span.ok_or_else(|| {
            "write `0-499` for the first 500 bytes, `500-` for all after them, `-500` for the last 500".to_owned()
        })
    }
}

/// Lets of what is shown only the span through.
struct Window {
    skip: u64,
    left: Option<u64>,
    /// What may be the last of it, until that is known.
    last: Option<(usize, Vec<u8>)>,
}

impl Window {
    fn new(span: Span) -> Self {
        match span {
            Span::From(skip, left) => Self { skip, left, last: None },
            Span::Last(count) => Self { skip: 0, left: None, last: Some((count as usize, Vec::new())) },
        }
    }

    fn push(&mut self, mut piece: &[u8], to: &mut impl Write) -> io::Result<()> {
        if let Some((count, kept)) = &mut self.last {
            kept.extend_from_slice(piece);
            // Seldom, since all that stays is moved.
            if kept.len() > count.saturating_mul(2).max(1 << 20) {
                kept.drain(..kept.len() - *count);
            }
            return Ok(());
        }
        let skipped = self.skip.min(piece.len() as u64);
        self.skip -= skipped;
        piece = &piece[skipped as usize..];
        if let Some(left) = &mut self.left {
            piece = &piece[..piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
            *left -= piece.len() as u64;
        }
        to.write_all(piece)
    }

    /// All that there was has been pushed: what comes from now on is new.
    fn settle(&mut self, to: &mut impl Write) -> io::Result<()> {
        let Some((count, kept)) = self.last.take() else { return Ok(()) };
        to.write_all(&kept[kept.len().saturating_sub(count)..])
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }
}

enum Source {
    Plain {
        file: File,
        /// How far it has been read.
        at: u64,
    },
    Compressed(Box<dyn Read + Send>),
}

/// Up to where a log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Its try may still run: what lies behind the limit goes again when it is over.
    Limit,
    End,
}

/// A log, and how far it has been shown.
pub struct Log {
    pub path: PathBuf,
    limit: u64,
    source: Option<Source>,
    scrubber: Scrubber,
    window: Window,
}

impl Log {
    pub fn new(home: &Home, path: PathBuf, span: Span) -> Self {
        let (limit, scrubber) = (home.config.logging.max_file_size, Scrubber::new(home.secrets.masker()));
        Self { path, limit, source: None, scrubber, window: Window::new(span) }
    }

    /// That of the next try, of which the same goes on to be shown.
    pub fn follow_with(&mut self, path: PathBuf) {
        (self.path, self.source) = (path, None);
    }

    /// Shows what was held back, since it might have become a secret.
    pub fn finish(&mut self, output: &mut Output) -> Outcome {
        let rest = self.scrubber.finish();
        self.window.push(&rest, output)?;
        self.window.settle(output)?;
        Ok(output.flush()?)
    }

    /// All of the span was shown.
    pub fn is_full(&self) -> bool {
        self.window.is_full()
    }

    /// Shows what is new; false if there is no file yet.
    pub fn copy(&mut self, until: Until, output: &mut Output) -> Result<bool, Failure> {
        let unreadable = |error: io::Error| {
            let help = "a log is readable by the user whose minflow wrote it";
            Failure::refused(format!("failed to read `{}`: {error}", self.path.display()), help)
        };
        let source = match &mut self.source {
            Some(source) => source,
            none => match open(&self.path) {
                Ok(source) => none.insert(source),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(unreadable(error)),
            },
        };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match &mut *source {
                Source::Compressed(text) => text.read(&mut buffer),
                Source::Plain { file, at } => read_until(file, at, until, self.limit, &mut buffer),
            };
            match read {
                Ok(0) => break,
                Ok(count) => self.window.push(&self.scrubber.push(&buffer[..count]), output)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        Ok(true)
    }

    /// As [`copy`](Self::copy), of one that is followed.
    pub fn show_new(&mut self, until: Until, output: &mut Output) -> Result<bool, Failure> {
        let is_there = self.copy(until, output)?;
        self.window.settle(output)?;
        output.flush()?;
        Ok(is_there)
    }
}

fn read_until(file: &File, at: &mut u64, until: Until, limit: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let size = file.metadata()?.len();
    // What an earlier minflow had said of its end was taken back.
    *at = (*at).min(size);
    let end = if until == Until::Limit { size.min(limit) } else { size };
    let most = usize::try_from(end.saturating_sub(*at)).unwrap_or(usize::MAX).min(buffer.len());
    let count = file.read_at(&mut buffer[..most], *at)?;
    *at += count as u64;
    Ok(count)
}

fn open(path: &Path) -> io::Result<Source> {
    Ok(match log_file::open(path)? {
        log_file::Opened::Plain(file) => Source::Plain { file, at: 0 },
        log_file::Opened::Compressed(text) => Source::Compressed(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_http_reads_it() {
        assert_eq!(Span::parse("0-499"), Ok(Span::From(0, Some(500))));
        assert_eq!(Span::parse("500-"), Ok(Span::From(500, None)));
        assert_eq!(Span::parse("-500"), Ok(Span::Last(500)));
        for wrong in ["", "-", "5", "5-4", "a-b", "1-2-3", "--3", "0-18446744073709551615"] {
            assert!(Span::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_what_comes_in_pieces_the_span_is_shown_whatever_the_pieces() {
        let text: Vec<u8> = (0..100).collect();
        let spans = [
            ("0-9", &text[..10]),
            ("10-19", &text[10..20]),
            ("90-", &text[90..]),
            ("95-200", &text[95..]),
            ("100-", &[][..]),
            ("-7", &text[93..]),
            ("-0", &[][..]),
            ("-1000", &text[..]),
        ];
        for (span, expected) in spans {
            for length in [1, 7, 100] {
                let (mut window, mut shown) = (Window::new(Span::parse(span).unwrap()), Vec::new());
                text.chunks(length).for_each(|piece| window.push(piece, &mut shown).unwrap());
                window.settle(&mut shown).unwrap();
                assert_eq!(shown, expected, "{span} in pieces of {length}");
            }
        }
    }

    #[test]
    fn what_comes_after_the_last_bytes_is_new() {
        let (mut window, mut shown) = (Window::new(Span::Last(2)), Vec::new());
        window.push(b"abcd", &mut shown).unwrap();
        window.settle(&mut shown).unwrap();
        window.push(b"efgh", &mut shown).unwrap();
        assert_eq!(shown, b"cdefgh");
    }

    #[test]
    fn of_a_try_that_runs_nothing_behind_the_limit_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "0123456789").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let (mut at, mut buffer) = (0, [0; 100]);
        assert_eq!(read_until(&file, &mut at, Until::Limit, 6, &mut buffer).unwrap(), 6);
        assert_eq!(read_until(&file, &mut at, Until::Limit, 6, &mut buffer).unwrap(), 0);
        file.set_len(6).unwrap();
        std::fs::write(&path, "012345 cut\n").unwrap();
        let count = read_until(&file, &mut at, Until::End, 6, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b" cut\n");
        file.set_len(3).unwrap();
        assert_eq!(read_until(&file, &mut at, Until::End, 6, &mut buffer).unwrap(), 0);
        assert_eq!(at, 3, "what was taken back is written again");
    }
}

//! minflow's own log: on standard error, and, if asked for, in a file that is rotated.
//!
//! Knows neither levels nor what is said. A file that cannot be written is told on standard error and to whoever asks for it, and keeps
//! nobody from logging; a file that somebody has moved or removed is begun anew. Called by `minflow run` alone.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{Level, LevelFilter, Metadata, Record};
use parking_lot::{Mutex, RwLock};

/// Where the file lies, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    /// A file that would become longer becomes `PATH.1`, that one `PATH.2` and so on.
    pub max_bytes: u64,
    /// How many of these there are at most.
    pub keep: u32,
}

impl Place {
    fn earlier(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// The file. Every line is with the kernel when `write` returns.
#[derive(Debug)]
pub struct Journal(Mutex<State>);

#[derive(Debug)]
struct State {
    place: Place,
    file: Option<File>,
    /// What is wrong with it now.
    fault: Option<String>,
    /// Lines that are on standard error alone.
    unwritten: u64,
}

/// Why a line is not where it should be.
struct Fault {
    message: String,
    is_lost: bool,
}

impl Journal {
    pub fn new(place: Place) -> Self {
        Self(Mutex::new(State { place, file: None, fault: None, unwritten: 0 }))
    }

    /// Adds whole lines. Gives what is to be said of it: that it cannot be done, or can again.
    pub fn write(&self, lines: &[u8]) -> Option<String> {
        let mut state = self.0.lock();
        let fault = match state.write(lines) {
            Ok(()) => None,
            Err(fault) => {
                state.unwritten += u64::from(fault.is_lost && !lines.is_empty());
                Some(fault.message)
            }
        };
        let before = std::mem::replace(&mut state.fault, fault.clone());
        match (before, fault) {
            (before, Some(fault)) if before.as_ref() != Some(&fault) => Some(fault),
            (Some(_), None) => Some("over".to_owned()),
            _ => None,
        }
    }

    /// Looks whether it can be written again, if it could not. Gives what is to be said, as `write` does.
    pub fn mend(&self) -> Option<String> {
        let is_faulty = self.0.lock().fault.is_some();
        if is_faulty { self.write(&[]) } else { None }
    }

    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        self.0.lock().fault.clone()
    }
}

impl State {
    fn write(&mut self, lines: &[u8]) -> Result<(), Fault> {
        let reopened = self.reopen();
        let Some(file) = &self.file else {
            return reopened.map_err(|message| Fault { message, is_lost: true });
        };
        let mut rotated = reopened;
        let size = size_of(file);
        if rotated.is_ok() && size > 0 && size + lines.len() as u64 > self.place.max_bytes {
            rotated = self.rotate();
        }
        let Some(file) = &self.file else {
            return rotated.map_err(|message| Fault { message, is_lost: true });
        };
        let mut text = Vec::new();
        if self.unwritten > 0 {
            text = format!("[{} lines before this one could not be written here]\n", self.unwritten).into_bytes();
        }
        text.extend_from_slice(lines);
        let before = size_of(file);
        let mut to: &File = file;
        if let Err(error) = to.write_all(&text) {
            // What was written in part would stand before the next line.
            let _ = file.set_len(before);
            return Err(Fault { message: in_words("write", &self.place.path, &error), is_lost: true });
        }
        self.unwritten = 0;
        rotated.map_err(|message| Fault { message, is_lost: false })
    }

    /// Opens what lies at the path, unless that is what is open. If it cannot be, one that was only moved goes on.
    fn reopen(&mut self) -> Result<(), String> {
        let path = &self.place.path;
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).filter(|found| found.nlink() > 0);
        if open.is_none() {
            self.file = None;
        }
        if open.is_some() && open.map(identity) == fs::metadata(path).ok().map(identity) {
            return Ok(());
        }
        self.file = Some(begin(path).map_err(|error| in_words("open", path, &error))?);
        Ok(())
    }

    /// The file at the path becomes the first of the earlier ones.
    fn rotate(&mut self) -> Result<(), String> {
        let path = &self.place.path;
        if self.place.keep == 0 {
            fs::remove_file(path).map_err(|error| in_words("remove", path, &error))?;
        }
        for number in (0..self.place.keep).rev() {
            let from = if number == 0 { path.clone() } else { self.place.earlier(number) };
            match fs::rename(&from, self.place.earlier(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(in_words("rename", &from, &error)),
                _ => {}
            }
        }
        self.reopen()
    }
}

fn begin(path: &Path) -> io::Result<File> {
    let open = || File::options().create(true).append(true).mode(0o600).open(path);
    match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            open()
        }
        opened => opened,
    }
}

fn size_of(file: &File) -> u64 {
    file.metadata().map_or(0, |found| found.len())
}

fn in_words(act: &str, path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!("cannot {act} `{path}`: {error}; look at its folder and the disk, or correct `logging.daemon_file`")
}

/// What env_logger writes records to, a record with each call.
struct Pipe {
    journal: Arc<Journal>,
    /// What is to be said of the journal.
    news: Arc<Mutex<Option<String>>>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(news) = self.journal.write(bytes) {
            *self.news.lock() = Some(news);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of `minflow run`, whose level may change. `RUST_LOG` wins over the configuration.
pub struct Log {
    /// What is always said less of.
    filter: &'static str,
    loggers: RwLock<Loggers>,
    journal: Option<Arc<Journal>>,
    news: Arc<Mutex<Option<String>>>,
}

struct Loggers {
    terminal: env_logger::Logger,
    file: Option<env_logger::Logger>,
}

impl Log {
    /// `filter` is added to the level. The file, if there is to be one, is opened at once.
    pub fn new(level: &str, filter: &'static str, place: Option<Place>) -> Self {
        let journal = place.map(|place| Arc::new(Journal::new(place)));
        let news = Arc::new(Mutex::new(None));
        let loggers = RwLock::new(Loggers::of(level, filter, journal.as_ref(), &news));
        let log = Self { filter, loggers, journal, news };
        if let Some(journal) = &log.journal
            && let Some(news) = journal.write(&[])
        {
            log.say(&news);
        }
        log
    }

    pub fn filter(&self) -> LevelFilter {
        self.loggers.read().terminal.filter()
    }

    /// From now on as much is said as `level` says.
    pub fn follow(&self, level: &str) {
        *self.loggers.write() = Loggers::of(level, self.filter, self.journal.as_ref(), &self.news);
        log::set_max_level(self.filter());
    }

    /// What is wrong with the file now, unless it can be written again.
    pub fn fault(&self) -> Option<String> {
        let journal = self.journal.as_ref()?;
        let news = journal.mend();
        news.iter().for_each(|news| self.say(news));
        journal.fault()
    }

    /// On standard error alone.
    fn say(&self, news: &str) {
        let level = if news == "over" { Level::Info } else { Level::Error };
        let mut record = Record::builder();
        let record = record.level(level).target(module_path!());
        log::Log::log(&self.loggers.read().terminal, &record.args(format_args!("daemon_log: {news}")).build());
    }
}

impl Loggers {
    fn of(level: &str, filter: &str, journal: Option<&Arc<Journal>>, news: &Arc<Mutex<Option<String>>>) -> Self {
        let level = format!("{level},{filter}");
        let file = journal.map(|journal| {
            let pipe = Pipe { journal: journal.clone(), news: news.clone() };
            logger(&level).target(env_logger::Target::Pipe(Box::new(pipe))).build()
        });
        Self { terminal: logger(&level).build(), file }
    }
}

impl log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.loggers.read().terminal.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let loggers = self.loggers.read();
        loggers.terminal.log(record);
        if let Some(file) = &loggers.file {
            file.log(record);
            drop(loggers);
            let news = self.news.lock().take();
            news.iter().for_each(|news| self.say(news));
        }
    }

    fn flush(&self) {}
}

/// What says as much as `level`, unless `RUST_LOG` says otherwise.
pub fn logger(level: &str) -> env_logger::Builder {
    let environment = env_logger::Env::default().default_filter_or(level);
    let mut builder = env_logger::Builder::from_env(environment);
    builder.format_timestamp_millis();
    builder
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn journal(folder: &Path, max_bytes: u64, keep: u32) -> Journal {
        Journal::new(Place { path: folder.join("log/minflow.log"), max_bytes, keep })
    }

    fn read(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join("log").join(name)).unwrap()
    }

    #[test]
    fn it_is_rotated_without_a_line_being_lost_or_torn_however_many_write() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path(), 1_000, 1_000);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let journal = &journal;
                scope.spawn(move || {
                    for number in 0..500 {
                        assert_eq!(journal.write(format!("{writer} {number}\n").as_bytes()), None);
                    }
                });
            }
        });
        let mut names: Vec<String> = fs::read_dir(folder.path().join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let age = |name: &String| name.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0_u32);
        names.sort_by_key(|name| std::cmp::Reverse(age(name)));
        assert!(names.len() > 10, "{names:?}");
        let texts: Vec<String> = names.iter().map(|name| read(folder.path(), name)).collect();
        assert!(texts.iter().all(|text| text.len() <= 1_000 && text.ends_with('\n')));
        let all = texts.concat();
        for writer in 0..4 {
            let own: Vec<u32> = all
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("{writer} ")))
                .map(|number| number.parse().unwrap())
                .collect();
            assert!(own.iter().copied().eq(0..500), "{own:?}");
        }
        let mode = fs::metadata(folder.path().join("log/minflow.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn as_many_earlier_ones_are_kept_as_are_asked_for() {
        for keep in [0, 1, 3] {
            let folder = tempfile::tempdir().unwrap();
            let journal = journal(folder.path(), 10, keep);
            for number in 0..9 {
                journal.write(format!("line {number}\n").as_bytes());
            }
            assert_eq!(read(folder.path(), "minflow.log"), "line 8\n");
            for number in 1..=keep {
                assert_eq!(read(folder.path(), &format!("minflow.log.{number}")), format!("line {}\n", 8 - number));
            }
            assert_eq!(fs::read_dir(folder.path().join("log")).unwrap().count(), 1 + keep as usize);
        }
    }

    #[test]
    fn one_that_somebody_has_moved_or_removed_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path(), 1_000, 1);
        let path = folder.path().join("log/minflow.log");
        journal.write(b"one\n");
        fs::rename(&path, folder.path().join("log/moved")).unwrap();
        journal.write(b"two\n");
        assert_eq!(
            (read(folder.path(), "moved"), read(folder.path(), "minflow.log")),
            ("one\n".into(), "two\n".into())
        );
        fs::remove_dir_all(folder.path().join("log")).unwrap();
        journal.write(b"three\n");
        assert_eq!(read(folder.path(), "minflow.log"), "three\n");
    }

    #[test]
    fn what_cannot_be_written_is_told_once_and_counted_and_it_goes_on_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path(), 1_000, 1);
        let path = folder.path().join("log/minflow.log");
        fs::create_dir_all(&path).unwrap();
        let told = journal.write(b"one\n").unwrap();
        assert!(told.starts_with(&format!("cannot open `{}`", path.display())), "{told}");
        assert_eq!(journal.write(b"two\n"), None, "it is told once");
        assert_eq!((journal.mend(), journal.fault()), (None, Some(told)));
        fs::remove_dir(&path).unwrap();
        assert_eq!(journal.mend().as_deref(), Some("over"), "without another line");
        assert_eq!(journal.fault(), None);
        assert_eq!(journal.write(b"three\n"), None);
        let text = read(folder.path(), "minflow.log");
        assert_eq!(text, "[2 lines before this one could not be written here]\nthree\n");
    }

    #[test]
    fn one_that_cannot_be_rotated_is_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path(), 10, 1);
        // A folder with something in it gives its place to no file.
        fs::create_dir_all(folder.path().join("log/minflow.log.1/x")).unwrap();
        assert_eq!(journal.write(b"line 1\n"), None);
        let told = journal.write(b"line 2\n").unwrap();
        assert!(told.starts_with("cannot rename"), "{told}");
        assert_eq!(read(folder.path(), "minflow.log"), "line 1\nline 2\n");
        fs::remove_dir_all(folder.path().join("log/minflow.log.1")).unwrap();
        assert_eq!(journal.write(b"line 3\n").unwrap(), "over");
        assert_eq!(read(folder.path(), "minflow.log.1"), "line 1\nline 2\n");
        assert_eq!(read(folder.path(), "minflow.log"), "line 3\n");
    }

    #[test]
    fn a_full_disk_tears_no_line() {
        let full = Path::new("/dev/full");
        let journal = Journal::new(Place { path: full.to_owned(), max_bytes: 1_000, keep: 0 });
        let told = journal.write(b"one\n").unwrap();
        assert!(told.contains("No space left"), "{told}");
        assert_eq!((journal.mend(), journal.fault()), (None, Some(told)));
    }
}

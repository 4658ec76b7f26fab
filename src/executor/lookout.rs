//! The other end of the process that looks ([`looks`]): starts it when somebody is to look, asks it, and ends it when it is in the way.
//!
//! Knows neither sensors nor tries: a look has a key, and of each that is asked for one [`Sight`] is told, unless it is forgotten. A look
//! that does not come back is ended with its process; those beside it are made again. If the process ends by itself, they are made
//! again one at a time, so that the one to blame is known.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::builtin::looks::{AT_ONCE, Looking, NAME, Seen};
use crate::model::TryKey;

/// Beyond a look's own bound, at which it ends by itself.
const GRACE: Duration = Duration::from_secs(5);
/// How long the process may stand still before what is written to it is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it is kept while nobody looks: longer than most intervals.
const REST: Duration = Duration::from_secs(150);

/// What came of a look.
#[derive(Debug)]
pub enum Sight {
    Seen(Seen),
    /// It has ended the process that looks, or had to be ended with it.
    Fatal(String),
    /// The host does not let anybody look just now.
    Blind(String),
}

enum Note {
    Look(Vec<Request>),
    Forget(TryKey),
    Seen(Vec<Seen>),
    /// The process with this number is gone.
    Gone(u64),
    Close,
}

struct Request {
    key: TryKey,
    looking: Looking,
    /// It was under way when the process ended, or the process did not take it: it is asked for alone, and not a third time.
    is_suspect: bool,
}

struct UnderWay {
    request: Request,
    until: Instant,
    is_forgotten: bool,
}

/// Dropping it ends the process.
pub struct Lookout {
    notes: Sender<Note>,
    thread: Option<JoinHandle<()>>,
}

impl Lookout {
    /// `command` is the process that looks, but for its standard input; `tell` is called by a thread of the lookout's own, with what has
    /// come of one look or of several.
    ///
    /// # Errors
    /// The host has no threads left.
    pub fn start(
        command: impl Fn() -> io::Result<Command> + Send + 'static,
        tell: impl Fn(Vec<(TryKey, Sight)>) + Send + 'static,
    ) -> io::Result<Self> {
        let (notes, inbox) = unbounded();
        let post = Post {
            command: Box::new(command),
            tell: Box::new(tell),
            notes: notes.clone(),
            process: None,
            processes: 0,
            asked: 0,
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            seen: Vec::new(),
            rests_since: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("looks".to_owned()).spawn(move || post.serve(&inbox))?;
        Ok(Self { notes, thread: Some(thread) })
    }

    pub fn look(&self, looks: Vec<(TryKey, Looking)>) {
        let request = |(key, looking)| Request { key, looking, is_suspect: false };
        self.send(Note::Look(looks.into_iter().map(request).collect()));
    }

    /// Nobody wants to know any longer. What is under way ends by itself.
    pub fn forget(&self, key: TryKey) {
        self.send(Note::Forget(key));
    }

    fn send(&self, note: Note) {
        // Its thread listens for as long as this lives.
        let _ = self.notes.send(note);
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.send(Note::Close);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `minflow operator looks`, from the program that runs now.
///
/// # Errors
/// The program's own file cannot be found.
pub fn command(program: &str, home: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.args(["operator", NAME, "--home"]).arg(home);
    command
}

struct Process {
    number: u64,
    child: Child,
    socket: UnixStream,
}

/// Is told what has come of looks.
type Tell = dyn Fn(Vec<(TryKey, Sight)>) + Send;

/// What the thread has.
struct Post {
    command: Box<dyn Fn() -> io::Result<Command> + Send>,
    tell: Box<Tell>,
    notes: Sender<Note>,
    process: Option<Process>,
    processes: u64,
    asked: u64,
    waiting: VecDeque<Request>,
    under_way: BTreeMap<u64, UnderWay>,
    /// What is to be told.
    seen: Vec<(TryKey, Sight)>,
    rests_since: Instant,
}

impl Post {
    fn serve(mut self, inbox: &Receiver<Note>) {
        loop {
            let note = match self.next_deadline() {
                Some(until) => inbox.recv_deadline(until),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match note {
                Ok(Note::Look(requests)) => self.waiting.extend(requests),
                Ok(Note::Forget(key)) => self.forget(key),
                Ok(Note::Seen(seen)) => seen.into_iter().for_each(|seen| self.take(seen)),
                Ok(Note::Gone(number)) if self.process.as_ref().is_some_and(|process| process.number == number) => {
                    self.bury();
                }
                Ok(Note::Gone(_)) => {}
                Err(RecvTimeoutError::Timeout) => self.pass_deadline(),
                Ok(Note::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.end_process();
                    return;
                }
            }
            // Before the telling, which takes its time.
            self.ask_next();
            if !self.seen.is_empty() {
                (self.tell)(std::mem::take(&mut self.seen));
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let rest = self.process.as_ref().map(|_| self.rests_since + REST);
        self.under_way.values().map(|under_way| under_way.until).min().or(rest)
    }

    fn forget(&mut self, key: TryKey) {
        self.waiting.retain(|request| request.key != key);
        for under_way in self.under_way.values_mut().filter(|under_way| under_way.request.key == key) {
            under_way.is_forgotten = true;
        }
    }

    /// One that was asked of an earlier process is unknown here.
    fn take(&mut self, seen: Seen) {
        if let Some(under_way) = self.under_way.remove(&seen.id) {
            self.rests_since = Instant::now();
            self.report(&under_way, Sight::Seen(seen));
        }
    }

    fn report(&mut self, under_way: &UnderWay, sight: Sight) {
        if !under_way.is_forgotten {
            self.seen.push((under_way.request.key, sight));
        }
    }

    fn pass_deadline(&mut self) {
        let now = Instant::now();
        if self.under_way.is_empty() {
            if now >= self.rests_since + REST {
                self.end_process();
            }
            return;
        }
        if self.under_way.values().all(|under_way| now < under_way.until) {
            return;
        }
        self.end_process();
        for (_, under_way) in std::mem::take(&mut self.under_way).into_iter().rev() {
            if now < under_way.until {
                self.put_back(under_way);
                continue;
            }
            let bound = under_way.request.looking.bound().as_secs_f64();
            let reason = format!("the look has not come back within {bound} s and was ended; look at what is asked");
            self.report(&under_way, Sight::Fatal(reason));
        }
    }

    /// First in the line again.
    fn put_back(&mut self, under_way: UnderWay) {
        if !under_way.is_forgotten {
            self.waiting.push_front(under_way.request);
        }
    }

    /// The process has ended by itself.
    fn bury(&mut self) {
        let status = self.end_process().map_or_else(String::new, |status| format!(" ({status})"));
        let mut under_way = std::mem::take(&mut self.under_way);
        if under_way.len() == 1
            && let Some((_, alone)) = under_way.pop_first()
        {
            let reason = format!(
                "the process that looks has ended over it{status}: it wants more memory than a look may take, or there is a fault in minflow; ask for less"
            );
            return self.report(&alone, Sight::Fatal(reason));
        }
        log::warn!("the process that looks has ended{status}; what it looked for is looked for again");
        for (_, mut one) in under_way.into_iter().rev() {
            one.request.is_suspect = true;
            self.put_back(one);
        }
    }

    /// How it ended, if there was one and it can be told.
    fn end_process(&mut self) -> Option<std::process::ExitStatus> {
        let Process { mut child, socket, .. } = self.process.take()?;
        drop(socket);
        // It may have ended by itself, and then this does nothing.
        let own = child.try_wait().ok().flatten();
        let _ = child.kill();
        own.or_else(|| child.wait().ok())
    }

    /// Asks for as many as may be under way, by one write.
    fn ask_next(&mut self) {
        let (mut asked, mut lines) = (Vec::new(), Vec::new());
        while let Some(next) = self.waiting.front() {
            let is_apart = next.is_suspect || self.under_way.values().any(|under_way| under_way.request.is_suspect);
            if self.under_way.len() >= AT_ONCE || (is_apart && !self.under_way.is_empty()) {
                break;
            }
            if let Err(error) = self.start_process() {
                let reason = format!("no process can be started that looks: {error}; free processes or descriptors");
                let waiting = std::mem::take(&mut self.waiting).into_iter();
                return self.seen.extend(waiting.map(|request| (request.key, Sight::Blind(reason.clone()))));
            }
            let Some(request) = self.waiting.pop_front() else { break };
            self.asked += 1;
            let looking = &request.looking;
            serde_json::to_writer(&mut lines, &AskedRef { id: self.asked, looking })
                .expect("a look has text keys and finite numbers");
            lines.push(b'\n');
            let until = Instant::now() + looking.bound() + GRACE;
            self.under_way.insert(self.asked, UnderWay { request, until, is_forgotten: false });
            asked.push(self.asked);
        }
        let Some(process) = self.process.as_ref().filter(|_| !asked.is_empty()) else { return };
        if (&process.socket).write_all(&lines).is_err() {
            self.take_back(&asked);
            self.ask_next();
        }
    }

    /// The process did not take these: it has ended, or stands still.
    fn take_back(&mut self, asked: &[u64]) {
        self.end_process();
        for (id, mut one) in std::mem::take(&mut self.under_way).into_iter().rev() {
            if asked.contains(&id) && one.request.is_suspect {
                let reason = "the process that looks does not take it; look at the host's load, or ask for less";
                self.report(&one, Sight::Fatal(reason.to_owned()));
                continue;
            }
            one.request.is_suspect |= asked.contains(&id);
            self.put_back(one);
        }
    }

    fn start_process(&mut self) -> io::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let reader = ours.try_clone()?;
        // In a group of its own: what a terminal sends to minflow is not meant for it.
        let child = (self.command)()?.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).process_group(0).spawn()?;
        self.processes += 1;
        let (number, notes) = (self.processes, self.notes.clone());
        let process = Process { number, child, socket: ours };
        self.process = Some(process);
        self.rests_since = Instant::now();
        let thread = std::thread::Builder::new().name("looks-reader".to_owned());
        let reading = thread.spawn(move || {
            let mut lines = BufReader::new(reader);
            while let Some(seen) = read(&mut lines) {
                if notes.send(Note::Seen(seen)).is_err() {
                    return;
                }
            }
            let _ = notes.send(Note::Gone(number));
        });
        if let Err(error) = reading {
            self.end_process();
            return Err(error);
        }
        Ok(())
    }
}

/// What has come by now, at least one. None: nothing more will, or it cannot be read.
fn read(lines: &mut BufReader<UnixStream>) -> Option<Vec<Seen>> {
    let mut seen = Vec::new();
    let mut line = String::new();
    while seen.is_empty() || lines.buffer().contains(&b'\n') {
        line.clear();
        lines.read_line(&mut line).ok()?;
        seen.push(serde_json::from_str(&line).ok()?);
    }
    Some(seen)
}

/// What is asked for (`looks::Asked`), whose look stays where it is.
#[derive(serde::Serialize)]
struct AskedRef<'l> {
    id: u64,
    looking: &'l Looking,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::looks::Answer;
    use crate::builtin::sql::SqlTask;
    use crate::model::{InstanceKey, SqlOutput};

    const PATIENCE: Duration = Duration::from_secs(60);
    /// Answers each line but those that say `fatal`, over which it ends, and those that say `silent`.
    const SCRIPT: &str = r#"while read -r line; do
        id=${line#*:}; id=${id%%,*}
        case "$line" in
            *fatal*) exit 3 ;;
            *silent*) ;;
            *) printf '{"id":%s,"said":"","answer":{"found":null}}\n' "$id" >&0 ;;
        esac
    done"#;

    fn key(number: i64) -> TryKey {
        TryKey { instance: InstanceKey(number), try_number: 1 }
    }

    fn looking(script: &str, timeout: Duration) -> Looking {
        Looking::sql(SqlTask {
            script: script.to_owned(),
            name: "sql".to_owned(),
            database: ":memory:".to_owned(),
            is_read_only: true,
            is_autocommit: false,
            parameters: serde_json::Value::Null,
            output: SqlOutput::Value,
            value: Default::default(),
            verdict: Default::default(),
            timeout: Some(timeout),
        })
    }

    fn lookout(command: impl Fn() -> io::Result<Command> + Send + 'static) -> (Lookout, Receiver<(TryKey, Sight)>) {
        let (tell, told) = unbounded();
        let lookout = Lookout::start(command, move |sights| sights.into_iter().for_each(|one| tell.send(one).unwrap()));
        (lookout.unwrap(), told)
    }

    fn script() -> io::Result<Command> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]);
        Ok(command)
    }

    #[test]
    fn the_look_that_ends_the_process_is_told_from_those_beside_it() {
        let (lookout, told) = lookout(script);
        for number in 0..20 {
            let what = if number == 7 { "fatal" } else { "fine" };
            lookout.look(vec![(key(number), looking(what, PATIENCE))]);
        }
        let mut sights: Vec<(TryKey, Sight)> = (0..20).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
        sights.sort_by_key(|(key, _)| *key);
        for (number, (of, sight)) in sights.iter().enumerate() {
            assert_eq!(*of, key(number as i64));
            match sight {
                Sight::Fatal(reason) => {
                    assert_eq!(number, 7);
                    assert!(
                        reason.starts_with("the process that looks has ended over it (exit status: 3)"),
                        "{reason}"
                    );
                }
                Sight::Seen(Seen { answer: Answer::Found(None), .. }) => assert_ne!(number, 7),
                other => panic!("{number}: {other:?}"),
            }
        }
        assert!(told.is_empty(), "each is told once");
    }

    #[test]
    fn a_look_that_does_not_come_back_is_ended_and_one_that_is_forgotten_is_not_told() {
        let (lookout, told) = lookout(script);
        lookout.look(vec![(key(1), looking("silent", Duration::ZERO))]);
        lookout.look(vec![(key(2), looking("silent", PATIENCE))]);
        lookout.forget(key(2));
        let (of, sight) = told.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(&sight, Sight::Fatal(reason) if reason.contains("not come back within 0 s")), "{sight:?}");
        assert_eq!(of, key(1));
        lookout.look(vec![(key(3), looking("fine", PATIENCE))]);
        let (of, sight) = told.recv_timeout(PATIENCE).unwrap();
        assert!(of == key(3) && matches!(sight, Sight::Seen(_)), "another process looks: {sight:?}");
    }

    #[test]
    fn where_no_process_can_be_started_nobody_waits_for_its_look() {
        let (lookout, told) = lookout(|| Err(io::Error::from_raw_os_error(libc::EMFILE)));
        lookout.look(vec![(key(1), looking("fine", PATIENCE))]);
        let (of, sight) = told.recv_timeout(PATIENCE).unwrap();
        assert!(
            of == key(1) && matches!(&sight, Sight::Blind(reason) if reason.contains("free processes")),
            "{sight:?}"
        );
    }
}

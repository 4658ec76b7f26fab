//! Threads that share one queue of jobs: no more of them awake than the work needs, and those that worked last first.
//!
//! Knows nothing of the jobs. Whoever takes one while others wait wakes one more thread before it works, and only one thread at a
//! time is on its way: a job that blocks holds up no other, and a burst of short ones is done by the few that are awake.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// A template may recurse; untouched stack costs no memory.
const STACK_BYTES: usize = 1 << 20;

/// The threads. They are started when they are first needed.
pub struct Crew<J>(Arc<Inner<J>>);

struct Inner<J> {
    name: &'static str,
    state: Mutex<State<J>>,
    /// How many threads there may be; asked before one is added.
    most: Box<dyn Fn() -> usize + Send + Sync>,
    work: Box<dyn Fn(J) + Send + Sync>,
}

struct State<J> {
    jobs: VecDeque<J>,
    threads: Vec<JoinHandle<()>>,
    /// One for each thread that was ever started.
    bells: Vec<Arc<Condvar>>,
    /// Those that wait for their bells; the last one was busy last.
    idle: Vec<usize>,
    /// A thread has been woken, or started, and has not looked at the jobs yet.
    is_waking: bool,
    is_closed: bool,
}

impl<J: Send + 'static> Crew<J> {
    /// At most `most` threads, which may be more later, and one at once.
    ///
    /// # Errors
    /// The host has no threads left.
    pub fn start(
        name: &'static str,
        most: impl Fn() -> usize + Send + Sync + 'static,
        work: impl Fn(J) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let state = State {
            jobs: VecDeque::new(),
            threads: Vec::new(),
            bells: Vec::new(),
            idle: Vec::new(),
            is_waking: false,
            is_closed: false,
        };
        let inner = Arc::new(Inner { name, state: Mutex::new(state), most: Box::new(most), work: Box::new(work) });
        inner.add_thread(&mut inner.state.lock())?;
        Ok(Self(inner))
    }

    /// Has a thread do it. After [`Crew::close`] it is forgotten.
    pub fn give(&self, job: J) {
        let mut state = self.0.state.lock();
        if !state.is_closed {
            state.jobs.push_back(job);
            self.0.wake(&mut state);
        }
    }

    /// Forgets the jobs that nobody has begun.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        state.jobs.clear();
        for idle in std::mem::take(&mut state.idle) {
            state.bells[idle].notify_one();
        }
    }

    /// Waits for the threads of a closed crew. Not to be called from a job.
    pub fn join(&self) {
        let threads = std::mem::take(&mut self.0.state.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl<J: Send + 'static> Inner<J> {
    /// Sees to it that somebody looks at the jobs, if there are any.
    fn wake(self: &Arc<Self>, state: &mut State<J>) {
        if state.jobs.is_empty() || state.is_waking {
            return;
        }
        if let Some(idle) = state.idle.pop() {
            state.is_waking = true;
            state.bells[idle].notify_one();
        } else if state.threads.len() < (self.most)() {
            // Without another thread, those that there are do it later.
            let _ = self.add_thread(state);
        }
    }

    fn add_thread(self: &Arc<Self>, state: &mut State<J>) -> io::Result<()> {
        let (number, inner, bell) = (state.threads.len(), self.clone(), Arc::new(Condvar::new()));
        let own = bell.clone();
        let thread = std::thread::Builder::new().name(format!("{}-{number}", self.name)).stack_size(STACK_BYTES);
        state.threads.push(thread.spawn(move || inner.serve(number, &own))?);
        state.bells.push(bell);
        state.is_waking = true;
        Ok(())
    }

    fn serve(self: Arc<Self>, number: usize, bell: &Condvar) {
        let mut state = self.state.lock();
        state.is_waking = false;
        loop {
            if let Some(job) = state.jobs.pop_front() {
                self.wake(&mut state);
                drop(state);
                (self.work)(job);
                state = self.state.lock();
                continue;
            }
            if state.is_closed {
                return;
            }
            state.idle.push(number);
            while state.idle.contains(&number) {
                bell.wait(&mut state);
            }
            state.is_waking = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam::channel::{self, Receiver, Sender};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A crew whose jobs say that they have begun, and wait to be let go.
    fn waiting(most: usize) -> (Crew<u32>, Receiver<u32>, Sender<()>) {
        let (begun, seen) = channel::unbounded();
        let (go, gate) = channel::unbounded();
        let work = move |job| {
            let _ = begun.send(job);
            let _ = gate.recv_timeout(PATIENCE);
        };
        (Crew::start("test", move || most, work).unwrap(), seen, go)
    }

    #[test]
    fn jobs_that_block_hold_up_no_other_until_all_threads_have_one() {
        let (crew, seen, go) = waiting(4);
        (0..6).for_each(|job| crew.give(job));
        let mut begun: Vec<u32> = (0..4).map(|_| seen.recv_timeout(PATIENCE).unwrap()).collect();
        begun.sort_unstable();
        assert_eq!(begun, [0, 1, 2, 3]);
        assert!(seen.is_empty());
        go.send(()).unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(4));
        (0..5).for_each(|_| go.send(()).unwrap());
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(5));
        crew.close();
        crew.join();
    }

    #[test]
    fn one_job_after_the_other_needs_one_thread() {
        let (crew, seen, go) = waiting(8);
        for job in 0..50 {
            crew.give(job);
            assert_eq!(seen.recv_timeout(PATIENCE), Ok(job));
            go.send(()).unwrap();
            while crew.0.state.lock().idle.is_empty() {
                std::thread::yield_now();
            }
        }
        assert_eq!(crew.0.state.lock().threads.len(), 1);
        crew.close();
        crew.join();
    }

    #[test]
    fn a_crew_that_may_be_larger_takes_the_next_threads_then() {
        let most = Arc::new(std::sync::atomic::AtomicUsize::new(1));
        let (begun, seen) = channel::unbounded();
        let (go, gate) = channel::unbounded::<()>();
        let allowed = most.clone();
        let work = move |job: u32| {
            let _ = begun.send(job);
            let _ = gate.recv_timeout(PATIENCE);
        };
        let crew = Crew::start("test", move || allowed.load(std::sync::atomic::Ordering::SeqCst), work).unwrap();
        (0..2).for_each(|job| crew.give(job));
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(0));
        assert!(seen.is_empty() && crew.0.state.lock().threads.len() == 1);
        most.store(3, std::sync::atomic::Ordering::SeqCst);
        crew.give(2);
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(1));
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(2));
        (0..3).for_each(|_| go.send(()).unwrap());
        crew.close();
        crew.join();
    }

    #[test]
    fn a_closed_crew_forgets_what_nobody_has_begun() {
        let (crew, seen, go) = waiting(1);
        (0..3).for_each(|job| crew.give(job));
        assert_eq!(seen.recv_timeout(PATIENCE), Ok(0));
        crew.close();
        crew.give(3);
        go.send(()).unwrap();
        crew.join();
        assert!(seen.is_empty());
    }
}

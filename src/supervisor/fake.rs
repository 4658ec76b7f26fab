//! A supervisor without processes, for tests of those who use one: it notes what it is asked, and answers what it is told to.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::TryKey;
use crate::scheduler::port::Force;
use crate::supervisor::client::{Gone, Notice, Supervise};
use crate::supervisor::protocol::{Answer, Request, Start};

type Script = Box<dyn Fn(&Start) -> Vec<Answer> + Send + Sync>;

/// Answers each start with what its script says.
pub struct FakeSupervisor {
    pub seen: Mutex<Vec<Request>>,
    pub is_gone: Mutex<bool>,
    script: Script,
    notify: Arc<dyn Fn(Notice) + Send + Sync>,
}

impl FakeSupervisor {
    pub fn new(
        notify: Arc<dyn Fn(Notice) + Send + Sync>,
        script: impl Fn(&Start) -> Vec<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self { seen: Mutex::default(), is_gone: Mutex::new(false), script: Box::new(script), notify }
    }
}

impl Supervise for FakeSupervisor {
    fn start(&self, starts: Vec<Start>) -> Result<(), Gone> {
        if *self.is_gone.lock() {
            return Err(Gone);
        }
        let answers: Vec<Answer> = starts.iter().flat_map(&self.script).collect();
        self.seen.lock().extend(starts.into_iter().map(|start| Request::Start(Box::new(start))));
        let notify = self.notify.clone();
        // As the real one: answers come from another thread.
        std::thread::spawn(move || answers.into_iter().for_each(|answer| notify(Notice::Answer(answer))));
        Ok(())
    }

    fn kill(&self, key: TryKey, reason: &str, force: Force) {
        let immediate = force == Force::Immediate;
        self.seen.lock().push(Request::Kill { key, reason: reason.to_owned(), immediate });
    }

    fn pause(&self, key: TryKey) {
        self.seen.lock().push(Request::Pause { key });
    }

    fn resume(&self, key: TryKey) {
        self.seen.lock().push(Request::Resume { key });
    }

    fn acknowledge(&self, keys: &[TryKey]) {
        self.seen.lock().push(Request::Acknowledge { keys: keys.to_vec() });
    }
}

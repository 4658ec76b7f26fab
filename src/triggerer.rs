//! Looks for what deferred instances wait for that no clock tells: files that settle.
//!
//! Implements [`Triggerer`](crate::scheduler::port::Triggerer). Knows files and no states: what has come goes to the loop as
//! [`Event::Fired`], and what is given up is the loop's own clock. Its thread is started by the first that waits for a file; all of them
//! share it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::health::Health;
use crate::model::{Awaited, TryKey, Wait};
use crate::scheduler::event::{Event, EventSender, Verdict};
use crate::scheduler::port::Triggerer;
use crate::settled::{Pattern, Settled, Told, Until, Wish};

/// The name of its thread, and of the condition on the health board.
const NAME: &str = "sensors";

/// The triggerer of this host. Dropping it ends its thread.
#[derive(Debug)]
pub struct LocalTriggerer {
    files: Option<Settled<TryKey>>,
    events: EventSender,
    health: Health,
}

impl LocalTriggerer {
    /// Tells `events` what has come.
    pub fn new(events: EventSender, health: Health) -> Self {
        Self { files: None, events, health }
    }

    fn files(&mut self) -> io::Result<&Settled<TryKey>> {
        if self.files.is_none() {
            let events = self.events.clone();
            let tell = move |told: Told<TryKey>| {
                let paths = told.files.iter().map(|file| Value::from(file.path.to_string_lossy().into_owned()));
                let verdict = Verdict::There(Value::Array(paths.collect()));
                // A loop that has ended wants no more events.
                let _ = events.send(Event::Fired { key: told.key, verdict });
            };
            self.files = Some(Settled::start(NAME, self.health.clone(), tell)?);
        }
        Ok(self.files.as_ref().expect("it was started right above"))
    }

    fn watch_file(
        &mut self,
        key: TryKey,
        pattern: &Arc<str>,
        settle: Duration,
        look_every: Duration,
    ) -> Result<(), String> {
        let pattern = Pattern::parse(pattern.clone()).map_err(|fault| format!("that pattern {fault}"))?.with_folders();
        let files = self.files().map_err(|error| {
            format!(
                "nothing can be watched: {error}; raise the limits of threads (ulimit -u) and descriptors (ulimit -n)"
            )
        })?;
        files.watch(key, Wish { pattern, settle, look_every, until: Until::First });
        Ok(())
    }
}

impl Triggerer for LocalTriggerer {
    fn watch(&mut self, key: TryKey, wait: &Wait) {
        let watched = match &wait.awaited {
            Awaited::File { pattern, settle, .. } => {
                let watched = self.watch_file(key, pattern, *settle, wait.pace.poke_interval);
                watched.map_err(|reason| format!("it {}, and {reason}", wait.words()))
            }
            Awaited::Instant(_)
            | Awaited::Look { .. }
            | Awaited::Service { .. }
            | Awaited::Run(_)
            | Awaited::Tasks(_) => Ok(()),
        };
        if let Err(reason) = watched {
            // A loop that has ended wants no more events.
            let _ = self.events.send(Event::Fired { key, verdict: Verdict::Failed { reason } });
        }
    }

    fn forget(&mut self, key: TryKey) {
        if let Some(files) = &self.files {
            files.forget(key);
        }
    }
}

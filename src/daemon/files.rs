//! File triggers: the thread that looks for files that have settled, there only if an asset asks for it.

use std::time::Duration;

use crate::health::Health;
use crate::lack::Lack;
use crate::model::AssetKey;
use crate::scheduler::event::{Event, EventSender};
use crate::scheduler::port::{FileWatch, FileWish};
use crate::settled::{Pattern, Settled, Told, Until, Wish};

/// How often to look where the kernel cannot tell.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(super) struct FileTriggers {
    events: EventSender,
    health: Health,
    settled: Option<Settled<AssetKey>>,
}

impl FileTriggers {
    /// Starts no thread yet.
    pub fn new(events: EventSender, health: Health) -> Self {
        Self { events, health, settled: None }
    }

    fn start(&mut self) -> Option<&Settled<AssetKey>> {
        if self.settled.is_none() {
            let events = self.events.clone();
            let tell = move |told: Told<AssetKey>| {
                // A loop that has ended needs no news.
                let _ = events.send(Event::Files { asset: told.key, files: told.files, gone: told.gone });
            };
            match Settled::start("file_triggers", self.health.clone(), tell) {
                Ok(settled) => self.settled = Some(settled),
                Err(error) => {
                    let help = Lack::of_process(&error).map_or("see what the host is out of", Lack::remedy);
                    let reason = format!("failed to look for files: {error}; {help}, then restart minflow");
                    self.health.raise("file_triggers", reason);
                }
            }
        }
        self.settled.as_ref()
    }
}

impl FileWatch for FileTriggers {
    fn watch(&mut self, asset: AssetKey, wish: FileWish) {
        let Ok(pattern) = Pattern::parse(wish.pattern.as_str()) else {
            log::error!("`{}` is no pattern of files; correct the asset's uri", wish.pattern);
            return;
        };
        if let Some(settled) = self.start() {
            let order = Wish { pattern, settle: wish.settle, look_every: LOOK_EVERY, until: Until::Forgotten };
            settled.watch_knowing(asset, order, wish.known);
        }
    }

    fn forget(&mut self, asset: AssetKey) {
        if let Some(settled) = &self.settled {
            settled.forget(asset);
        }
    }
}

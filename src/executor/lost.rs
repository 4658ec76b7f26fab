//! Tries and callbacks that nobody has any longer, since their supervisor is gone: what lives of them is ended, and they are over.
//!
//! Knows who has lost them, and what is told of each; how processes are found and ended is `reclaim`'s. All that are lost at once are one
//! job, however many they are.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::executor::reclaim::{self, Remains, Seen};
use crate::executor::worker::XcomFile;
use crate::executor::{Job, Shared, Told, call, strays, worker};
use crate::model::{ProcessIdentity, TryKey};
use crate::scheduler::port::{Call, Stray};

/// How the processes of the host are looked over.
pub(super) type Look = fn() -> Vec<Seen>;

/// One of them.
pub(super) enum Lost {
    /// An earlier minflow has left it, and nobody knows whether it was begun.
    Stray(Box<Stray>),
    /// As above; no supervisor can have begun it.
    Unbegun(Box<Stray>),
    Call(Box<Call>),
    /// Its supervisor had it and is gone; the process, if one was started, may still live.
    Try(Box<worker::Begun>, Option<ProcessIdentity>),
    BegunCall(Box<call::Begun>),
}

impl Lost {
    fn key(&self) -> TryKey {
        match self {
            Self::Stray(stray) | Self::Unbegun(stray) => stray.key,
            Self::Call(call) => call.row.try_key(),
            Self::Try(begun, _) => begun.key(),
            Self::BegunCall(begun) => begun.key(),
        }
    }

    fn remains(&self, shared: &Shared) -> Remains {
        match self {
            Self::Stray(stray) | Self::Unbegun(stray) => strays::remains(shared, stray),
            Self::Try(begun, process) => worker::remains(shared, begun, process.clone()),
            Self::Call(_) | Self::BegunCall(_) => call::remains(shared, self.key()),
        }
    }

    /// `count`: of how many processes it was found to consist.
    fn conclude(self, shared: &Shared, count: usize) {
        let key = self.key();
        match self {
            Self::Stray(stray) => shared.perform_try(key, || Some(strays::lost(shared, &stray, count))),
            Self::Unbegun(stray) => shared.perform_try(key, || Some(strays::put_back(shared, &stray, count))),
            Self::Call(_) => shared.perform_call(key, || Some(call::lost(shared, key))),
            Self::Try(begun, _) => {
                shared.perform_try(key, || Some(worker::conclude(shared, &begun, Told::Gone, XcomFile::Possible)));
            }
            Self::BegunCall(begun) => {
                shared.perform_call(key, || Some(call::conclude(shared, &begun, Told::Gone)));
            }
        }
    }
}

impl Shared {
    /// Has what lives of them ended, and them concluded.
    pub(super) fn lose(&self, lost: Vec<Lost>) {
        if !lost.is_empty() {
            self.crew.give(Job::EndLost(lost));
        }
    }

    /// One that a supervisor had; None: it is over.
    pub(super) fn take_lost(&self, key: TryKey, process: Option<ProcessIdentity>) -> Option<Lost> {
        if call::is_call(key) {
            return Some(Lost::BegunCall(self.calls.lock().get_mut(&key)?.begun.take()?));
        }
        Some(Lost::Try(self.tries.lock().get_mut(&key)?.handed.take()?.begun, process))
    }

    pub(super) fn end_lost(&self, lost: Vec<Lost>) {
        let remains: Vec<Remains> = lost.iter().map(|lost| lost.remains(self)).collect();
        let look = self.adoptions.lock().look;
        let mut left: Vec<Option<Lost>> = lost.into_iter().map(Some).collect();
        let told = |number: usize, count| {
            left.get_mut(number).and_then(Option::take).into_iter().for_each(|lost| lost.conclude(self, count))
        };
        // As with one try: a panic must not leave any behind that holds its slots for good.
        if catch_unwind(AssertUnwindSafe(|| reclaim::end(&remains, look, told))).is_err() {
            left.into_iter().flatten().for_each(|lost| match lost.key() {
                key if call::is_call(key) => self.report_call(self.panicked_call(key)),
                key => self.tell_loop([self.over(key, self.panicked(key))]),
            });
        }
    }
}

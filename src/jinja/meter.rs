//! How much one render may do and hold.
//!
//! A render happens on one thread from its begin to its end, so the counts are the thread's. Values tell what they hold when they are
//! made and when they go; every step of the interpreter, and every item that a filter looks at, costs a unit of work. Both bounds are
//! counts: the same template meets them at the same place on every host.

use std::cell::Cell;

use parking_lot::{Mutex, MutexGuard};

use crate::jinja::fault::{Fault, LIMIT, Res};

/// Steps that one render may take: some tenths of a second, far more than any honest template needs.
pub const MOST_STEPS: u64 = 2_000_000;
/// What the values of one render may hold at once, in bytes.
pub const MOST_BYTES: usize = 64 << 20;
/// Renders that hold more than this wait for each other, so that many workers together hold little more than one.
const HEAVY_BYTES: usize = 4 << 20;
/// As many bytes of text are worked on for the cost of one step.
const BYTES_A_STEP: usize = 64;

static HEAVY: Mutex<()> = Mutex::new(());

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static IS_HEAVY: Cell<bool> = const { Cell::new(false) };
}

/// The time of one render. What is left of it when it is over goes with it.
pub struct Session(Option<MutexGuard<'static, ()>>);

impl Session {
    pub fn begin() -> Self {
        LIVE.set(0);
        PEAK.set(0);
        STEPS.set(0);
        IS_HEAVY.set(false);
        Self(None)
    }

    /// Waits for its turn once the render holds much.
    pub fn look(&mut self) {
        if IS_HEAVY.get() && self.0.is_none() {
            self.0 = Some(HEAVY.lock());
        }
    }
}

/// The most that values of this thread's last render held at once, in bytes.
#[cfg(test)]
pub fn peak() -> usize {
    PEAK.get()
}

/// What values of this thread hold now, in bytes.
#[cfg(test)]
pub fn live() -> usize {
    LIVE.get()
}

/// Tells of bytes that a value holds. The bound is looked at by the next step.
pub fn hold(bytes: usize) {
    let live = LIVE.get().saturating_add(bytes);
    LIVE.set(live);
    if live > PEAK.get() {
        PEAK.set(live);
        IS_HEAVY.set(live > HEAVY_BYTES);
    }
}

/// Takes back what [`hold`] told.
pub fn release(bytes: usize) {
    LIVE.set(LIVE.get().saturating_sub(bytes));
}

pub fn is_heavy() -> bool {
    IS_HEAVY.get()
}

/// Asks for memory before it is taken.
///
/// # Errors
/// The render would hold too much.
pub fn room(bytes: usize) -> Res<()> {
    match LIVE.get().checked_add(bytes).is_some_and(|sum| sum <= MOST_BYTES) {
        true => Ok(()),
        false => Err(Fault::new(
            LIMIT,
            format!("the template needs more than {} MiB at once for its values", MOST_BYTES >> 20),
        )),
    }
}

/// Takes `steps`.
///
/// # Errors
/// The render has taken too many, or holds too much.
pub fn step(steps: usize) -> Res<()> {
    let taken = STEPS.get().saturating_add(steps as u64);
    STEPS.set(taken);
    if taken > MOST_STEPS {
        return Err(Fault::new(LIMIT, "the template takes too long"));
    }
    room(0)
}

/// Takes the steps of looking at a text of `bytes`.
///
/// # Errors
/// As [`step`].
pub fn read(bytes: usize) -> Res<()> {
    step(bytes / BYTES_A_STEP + 1)
}

//! Tells what prepares a try whether the turn that starts it is committed.

use parking_lot::{Condvar, Mutex};

/// Shut until the try is started; what is behind it may read what the turn has written.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Shut,
    Open,
    /// The executor closes: it does not open any more.
    Barred,
}

/// The gate stays shut, as minflow ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barred;

impl Gate {
    pub fn open(&self) {
        self.set(State::Open);
    }

    pub fn bar(&self) {
        self.set(State::Barred);
    }

    fn set(&self, to: State) {
        let mut state = self.state.lock();
        if *state == State::Shut {
            *state = to;
            self.bell.notify_all();
        }
    }

    pub fn is_open(&self) -> bool {
        *self.state.lock() == State::Open
    }

    /// Returns when it is open.
    pub fn pass(&self) -> Result<(), Barred> {
        let mut state = self.state.lock();
        while *state == State::Shut {
            self.bell.wait(&mut state);
        }
        if *state == State::Open { Ok(()) } else { Err(Barred) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// What a thread that passes the gate is told, once `act` is done; it may come there before or after.
    fn passed(act: impl Fn(&Gate)) -> Result<(), Barred> {
        let (gate, (sender, told)) = (Gate::default(), mpsc::channel());
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(gate.pass()));
            act(&gate);
            told.recv_timeout(Duration::from_secs(60)).expect("it was woken")
        })
    }

    #[test]
    fn it_is_passed_when_it_opens_and_not_when_it_is_barred() {
        for _ in 0..100 {
            assert_eq!(passed(Gate::open), Ok(()));
            assert_eq!(passed(Gate::bar), Err(Barred));
        }
        let gate = Gate::default();
        assert!(!gate.is_open());
        gate.open();
        gate.bar();
        assert!(gate.is_open(), "what was started stays so");
    }
}

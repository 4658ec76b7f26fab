//! Wakes the scheduler loop when a deadline comes: one thread on the kernel's absolute timers, which count through suspend and
//! notice when the wall clock is set.
//!
//! Knows no schedule; the loop arms it and reads the clocks itself when it is woken.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::BootInstant;
use crate::scheduler::event::{Event, EventSender};
use crate::scheduler::port::Timer;

/// Where the wall timer stands while nothing is due: it must be armed to notice that the clock was set.
const FAR_AWAY: Timespec = Timespec { tv_sec: 200_000_000_000, tv_nsec: 0 };

/// The host's timers. Dropping it ends its thread.
#[derive(Debug)]
pub struct SystemTimer {
    descriptors: Arc<Descriptors>,
    armed: Armed,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Descriptors {
    wall: Alarm,
    boot: Alarm,
    /// An eventfd, written once.
    stop: OwnedFd,
}

/// One timerfd.
#[derive(Debug)]
struct Alarm {
    timer: OwnedFd,
    /// It has fired since it was armed, so that the same instant must be armed anew.
    fired: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Armed {
    wall: Option<Timestamp>,
    boot: Option<BootInstant>,
}

impl SystemTimer {
    /// Starts the thread; `Tick` and `ClockJumped` go to `events`.
    ///
    /// # Errors
    /// No descriptors or threads are left.
    pub fn start(events: EventSender) -> io::Result<Self> {
        let alarm = |clock| -> io::Result<Alarm> {
            let timer = timerfd_create(clock, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
            Ok(Alarm { timer, fired: AtomicBool::new(false) })
        };
        let descriptors = Arc::new(Descriptors {
            wall: alarm(TimerfdClockId::Realtime)?,
            boot: alarm(TimerfdClockId::Boottime)?,
            stop: eventfd(0, EventfdFlags::CLOEXEC)?,
        });
        descriptors.arm_wall(None)?;
        let shared = Arc::clone(&descriptors);
        let thread = std::thread::Builder::new().name("timer".to_owned()).spawn(move || shared.serve(&events))?;
        Ok(Self { descriptors, armed: Armed::default(), thread: Some(thread) })
    }
}

impl Timer for SystemTimer {
    fn arm(&mut self, wall: Option<Timestamp>, boot: Option<BootInstant>) {
        let Descriptors { wall: wall_alarm, boot: boot_alarm, .. } = &*self.descriptors;
        let mut result = Ok(());
        if wall_alarm.fired.swap(false, Ordering::AcqRel) || wall != self.armed.wall {
            result = self.descriptors.arm_wall(wall);
        }
        if boot_alarm.fired.swap(false, Ordering::AcqRel) || boot != self.armed.boot {
            result = result.and(self.descriptors.arm_boot(boot));
        }
        self.armed = Armed { wall, boot };
        // The descriptors are ours and the values in range, so that there is nothing left to fail.
        if let Err(error) = result {
            log::error!("failed to arm the timer: {error}");
        }
    }
}

impl Drop for SystemTimer {
    fn drop(&mut self) {
        if rustix::io::write(&self.descriptors.stop, &1_u64.to_ne_bytes()).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic in it has been printed already.
            let _ = thread.join();
        }
    }
}

impl Descriptors {
    fn arm_wall(&self, instant: Option<Timestamp>) -> rustix::io::Result<()> {
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let at = instant.map_or(FAR_AWAY, |instant| {
            let since_epoch = Duration::try_from(instant.as_duration()).unwrap_or(Duration::ZERO);
            to_timespec(since_epoch)
        });
        set(&self.wall.timer, flags, at)
    }

    fn arm_boot(&self, instant: Option<BootInstant>) -> rustix::io::Result<()> {
        let at = instant.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |instant| to_timespec(instant.0));
        set(&self.boot.timer, TimerfdTimerFlags::ABSTIME, at)
    }

    /// The thread: blocks until a timer fires, the clock is set, or the end is asked for.
    fn serve(&self, events: &EventSender) {
        loop {
            let mut polled = [
                PollFd::new(&self.wall.timer, PollFlags::IN),
                PollFd::new(&self.boot.timer, PollFlags::IN),
                PollFd::new(&self.stop, PollFlags::IN),
            ];
            match poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    // Out of kernel memory, at worst; without this thread nothing would ever be due again.
                    log::error!("failed to wait for the timers: {error}");
                    std::thread::sleep(Duration::from_secs(1));
                    continue;
                }
            }
            let [wall, boot, stop] = polled.map(|descriptor| !descriptor.revents().is_empty());
            if stop {
                return;
            }
            for alarm in [wall.then_some(&self.wall), boot.then_some(&self.boot)].into_iter().flatten() {
                if let Some(event) = alarm.take()
                    && events.send(event).is_err()
                {
                    return;
                }
            }
        }
    }
}

impl Alarm {
    /// What made the timer readable; null if it was armed anew meanwhile.
    fn take(&self) -> Option<Event> {
        let mut count = [0; 8];
        let event = match rustix::io::read(self.timer.as_fd(), &mut count) {
            Ok(_) => Event::Tick,
            Err(Errno::CANCELED) => Event::ClockJumped,
            Err(_) => return None,
        };
        self.fired.store(true, Ordering::Release);
        Some(event)
    }
}

fn set(timer: &OwnedFd, flags: TimerfdTimerFlags, at: Timespec) -> rustix::io::Result<()> {
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
    match timerfd_settime(timer, flags, &once) {
        // The clock was set since the last read; the timer is armed all the same, and its thread has been told.
        Err(Errno::CANCELED) => Ok(()),
        result => result.map(drop),
    }
}

/// Never zero, which would disarm; an instant before 1970 is past at any rate.
fn to_timespec(since_zero: Duration) -> Timespec {
    let since_zero = since_zero.max(Duration::from_nanos(1));
    Timespec {
        tv_sec: i64::try_from(since_zero.as_secs()).unwrap_or(i64::MAX).min(FAR_AWAY.tv_sec),
        tv_nsec: since_zero.subsec_nanos().into(),
    }
}

/// Remembers what was armed, for simulations; its copies share it.
#[derive(Clone, Debug, Default)]
pub struct FakeTimer(Arc<Mutex<Armed>>);

impl FakeTimer {
    pub fn wall(&self) -> Option<Timestamp> {
        self.0.lock().wall
    }

    pub fn boot(&self) -> Option<BootInstant> {
        self.0.lock().boot
    }
}

impl Timer for FakeTimer {
    fn arm(&mut self, wall: Option<Timestamp>, boot: Option<BootInstant>) {
        *self.0.lock() = Armed { wall, boot };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::RecvTimeoutError;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::scheduler::event::{self, EventReceiver};

    const SOON: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(10);

    fn start() -> (SystemTimer, EventReceiver) {
        let (sender, receiver) = event::channel();
        (SystemTimer::start(sender).unwrap(), receiver)
    }

    fn await_tick(events: &EventReceiver) {
        assert!(matches!(events.recv_timeout(LONG), Ok(Event::Tick)));
    }

    #[test]
    fn a_wall_deadline_ticks_when_it_has_come() {
        let (mut timer, events) = start();
        let deadline = SystemClock.now() + SOON;
        timer.arm(Some(deadline), None);
        await_tick(&events);
        assert!(SystemClock.now() >= deadline);
    }

    #[test]
    fn a_boot_deadline_ticks_when_it_has_come() {
        let (mut timer, events) = start();
        let deadline = SystemClock.boot().after(SOON);
        timer.arm(None, Some(deadline));
        await_tick(&events);
        assert!(SystemClock.boot() >= deadline);
    }

    #[test]
    fn a_past_deadline_ticks_at_once_and_each_time_that_it_is_armed() {
        let (mut timer, events) = start();
        for _ in 0..3 {
            timer.arm(Some(Timestamp::UNIX_EPOCH), None);
            await_tick(&events);
        }
        timer.arm(Some(Timestamp::MIN), None);
        await_tick(&events);
        timer.arm(None, Some(BootInstant(Duration::ZERO)));
        await_tick(&events);
    }

    #[test]
    fn what_is_armed_replaces_what_was_armed() {
        let (mut timer, events) = start();
        let soon = SystemClock.boot().after(SOON);
        timer.arm(Some(Timestamp::MAX), Some(soon.after(LONG)));
        timer.arm(None, Some(soon));
        await_tick(&events);
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn dropping_the_timer_ends_its_thread() {
        let (timer, events) = start();
        drop(timer);
        // The thread held the only sender.
        assert!(events.recv_timeout(LONG).is_err_and(|error| error == RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_fake_timer_remembers_what_was_armed_last() {
        let fake = FakeTimer::default();
        fake.clone().arm(Some(Timestamp::UNIX_EPOCH), None);
        assert_eq!((fake.wall(), fake.boot()), (Some(Timestamp::UNIX_EPOCH), None));
    }
}

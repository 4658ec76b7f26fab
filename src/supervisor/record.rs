//! What the supervisor knows of one try, from its start until its end is acknowledged.
//!
//! Knows deadlines and signals of a try. Whose the processes are that come to the supervisor is `orphans`'; who reaps is the server.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::BootInstant;
use crate::model::ProcessIdentity;
use crate::supervisor::adoption::{Kept, Verdict};
use crate::supervisor::guard::Guard;
use crate::supervisor::launch::Launching;
use crate::supervisor::log_cap::LogCap;
use crate::supervisor::orphans::{Evidence, Suspect};
use crate::supervisor::protocol::{Cause, End, Tree};
use crate::supervisor::sys;
use crate::supervisor::tree::{self, Member};

/// How long the end of what was sent SIGKILL is awaited; only a process stuck in the kernel takes longer.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// How long those are hunted that fork as quickly as they are ended.
const LONGEST_HUNT: Duration = Duration::from_secs(30);
/// Between two looks at what was sent SIGKILL, if no end is told of before.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(64);

pub enum Record {
    Running(Box<Running>),
    /// Its leader is reaped; others of its processes are not.
    Draining(Box<Draining>),
    /// Kept until it is acknowledged, so that it is not started again. None: it is being made.
    Over(Option<Box<Settled>>),
}

/// How a try has ended, for whoever has to conclude it.
pub struct Settled {
    pub kept: Kept,
    pub verdict: Verdict,
    pub is_on_disk: bool,
}

impl Settled {
    pub fn new(kept: Kept, verdict: Verdict) -> Box<Self> {
        Box::new(Self { kept, verdict, is_on_disk: false })
    }
}

impl Record {
    /// How its processes are known, if it is not over.
    pub fn suspect(&self) -> Option<Suspect<'_>> {
        let (evidence, log) = match self {
            Self::Running(running) => (&running.evidence, &running.log),
            Self::Draining(draining) => (&draining.evidence, &draining.log),
            Self::Over(_) => return None,
        };
        Some(Suspect { evidence, log: log.identity() })
    }

    pub fn due(&self) -> Option<BootInstant> {
        match self {
            Self::Running(running) => running.due(),
            Self::Draining(draining) => Some(draining.looks_at),
            Self::Over(_) => None,
        }
    }
}

pub struct Running {
    pub evidence: Evidence,
    pub process: ProcessIdentity,
    /// Until it is known to have executed its program.
    pub launching: Option<Launching>,
    /// Watches over its limits; None: it has none that need it.
    pub guard: Option<Box<Guard>>,
    /// How many bytes were written to the log before it began, and what is to be said in it.
    pub noted_bytes: u64,
    pub notes: Vec<String>,
    /// Signals that wait for that: before, there may be no group yet.
    pub owed: Vec<i32>,
    pub log: LogCap,
    pub started_at: Timestamp,
    pub times_out_at: Option<BootInstant>,
    /// When SIGKILL follows the kill signal.
    pub kill_at: Option<BootInstant>,
    /// Since when its processes are stopped, and its timeout with them.
    pub paused_at: Option<BootInstant>,
    pub cause: Cause,
    pub kill_signal: i32,
    pub grace: Duration,
    pub wants_tail: bool,
    pub kept: Kept,
}

impl Running {
    /// To the leader's group, which is one call and misses none of it.
    pub fn signal_group(&mut self, signal: i32) {
        if self.launching.is_some() {
            self.owed.push(signal);
            return;
        }
        // The group may have ended by itself: then there is nothing to do.
        let _ = sys::kill(-self.process.pid, signal);
    }

    /// To all of its processes, of which `orphans` are those that do not stand below the leader. Gives those that it saw.
    pub fn signal(&mut self, signals: &[i32], orphans: &[i32]) -> Vec<Member> {
        let leader = self.process.pid;
        let roots: Vec<i32> = [leader].into_iter().chain(orphans.iter().copied()).collect();
        let reaches_all = self.launching.is_none() && self.evidence.tree != Tree::Group;
        // Before there are signals: who ends leaves children that nothing may tell from others.
        let members = if reaches_all { tree::members(&roots) } else { Vec::new() };
        signals.iter().for_each(|&signal| self.signal_group(signal));
        for member in members.iter().filter(|member| member.group != leader) {
            signals.iter().for_each(|&signal| member.signal(signal));
        }
        members
    }

    /// Whether it has begun to run its program since the last look.
    pub fn has_just_begun(&mut self) -> bool {
        if !matches!(self.launching.as_ref().map(Launching::outcome), Some(Some(Ok(())))) {
            return false;
        }
        self.note_refused();
        self.launching = None;
        for signal in std::mem::take(&mut self.owed) {
            self.signal_group(signal);
        }
        true
    }

    /// Keeps for the log what the process could not have of its settings.
    pub fn note_refused(&mut self) {
        let refused = self.launching.as_ref().into_iter().flat_map(Launching::refused);
        self.notes.extend(refused.map(str::to_owned));
    }

    /// When its guard looks.
    pub fn guard_due(&self) -> Option<BootInstant> {
        self.guard.as_ref().and_then(|guard| guard.due())
    }

    /// Its end is wanted: SIGKILL comes after the grace. False: it was before, and the first cause stands.
    pub fn condemn(&mut self, cause: Cause, now: BootInstant) -> bool {
        if self.cause != Cause::Itself {
            return false;
        }
        self.cause = cause;
        self.times_out_at = None;
        self.paused_at = None;
        self.kill_at = Some(now.after(self.grace));
        true
    }

    /// Whether all that it leaves may live on: it ended by itself.
    pub fn leaves(&self) -> bool {
        self.evidence.leaves && self.cause == Cause::Itself
    }

    /// What stands still does not time out.
    fn timeout(&self) -> Option<BootInstant> {
        self.times_out_at.filter(|_| self.paused_at.is_none())
    }

    pub fn has_timed_out(&self, now: BootInstant) -> bool {
        self.timeout().is_some_and(|at| at <= now)
    }

    fn due(&self) -> Option<BootInstant> {
        [self.timeout(), self.kill_at, self.log.due(), self.guard_due()].into_iter().flatten().min()
    }
}

pub struct Draining {
    pub evidence: Evidence,
    pub guard: Option<Box<Guard>>,
    /// What is left has until then; None: it gets SIGKILL.
    pub spared_until: Option<BootInstant>,
    pub looks_at: BootInstant,
    pause: Duration,
    /// When its end is reported at the latest, and when in any case.
    until: BootInstant,
    last: BootInstant,
    /// Those that were seen when SIGKILL was sent the last time.
    seen: BTreeSet<Member>,
    pub log: LogCap,
    pub end: Box<End>,
    pub wants_tail: bool,
    pub kept: Kept,
}

impl Draining {
    pub fn new(
        (evidence, guard): (Evidence, Option<Box<Guard>>),
        spared_until: Option<BootInstant>,
        log: LogCap,
        end: End,
        (wants_tail, kept): (bool, Kept),
        now: BootInstant,
    ) -> Self {
        let spared_until = spared_until.filter(|&at| at > now);
        let begins_at = spared_until.unwrap_or(now);
        Self {
            evidence,
            guard,
            spared_until,
            looks_at: begins_at,
            pause: FIRST_PAUSE,
            until: begins_at.after(DRAIN_WAIT),
            last: begins_at.after(LONGEST_HUNT),
            seen: BTreeSet::new(),
            log,
            end: Box::new(end),
            wants_tail,
            kept,
        }
    }

    /// Its cgroup, if somebody is in it who is to end.
    pub fn occupied(&self) -> Option<&Guard> {
        let leaves = self.evidence.leaves && self.end.cause == Cause::Itself;
        let guard = self.guard.as_deref().filter(|_| self.evidence.tree != Tree::Group && !leaves);
        guard.filter(|guard| !guard.is_empty())
    }

    /// SIGKILL was sent to these. While others appear, it goes on.
    pub fn strike(&mut self, members: BTreeSet<Member>, now: BootInstant) {
        if !members.is_subset(&self.seen) {
            self.until = now.after(DRAIN_WAIT).min(self.last);
            self.pause = FIRST_PAUSE;
        }
        self.seen = members;
        self.put_off(now);
    }

    /// Whether one of these was not there when SIGKILL was sent the last time.
    pub fn has_not_seen(&self, pids: &[i32]) -> bool {
        pids.iter().any(|&pid| !self.seen.iter().any(|member| member.pid == pid))
    }

    /// Nothing could be done: looked at again after a moment.
    pub fn put_off(&mut self, now: BootInstant) {
        self.looks_at = now.after(self.pause);
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }

    /// Whether what is left is stuck, and is not awaited any longer.
    pub fn is_given_up(&self, now: BootInstant) -> bool {
        now >= self.until
    }
}

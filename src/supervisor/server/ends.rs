//! How tries end: their processes get signals, are reaped, and what is left of them is hunted down.

use rustix::fs::inotify;

use crate::clock::{BootInstant, Clock, SystemClock};
use crate::model::{Exceeded, TryKey};
use crate::supervisor::adoption::{Kept, Verdict};
use crate::supervisor::launch::{Launching, NotStarted};
use crate::supervisor::orphans::{Evidence, Guess, Suspect};
use crate::supervisor::protocol::{Answer, Cause, End, Exit, Tree};
use crate::supervisor::record::{Draining, Record, Running, Settled};
use crate::supervisor::server::Server;
use crate::supervisor::tree::{self, Member};
use crate::supervisor::{orphans, procfs, sys};

impl Server {
    /// Takes in the orphans that came since the last look. `guess`: see [`Orphans::attribute`](orphans::Orphans::attribute). False:
    /// there are more of them, or may be.
    pub(super) fn look_for_orphans(&mut self, guess: Option<Guess>) -> bool {
        self.meet_leaders();
        let leads = |pid| self.by_pid.contains_key(&pid) || self.reapers.contains_key(&pid);
        let newcomers = self.orphans.newcomers(leads);
        if newcomers.is_empty() {
            return true;
        }
        let suspects: Vec<Suspect<'_>> = self.tries.values().filter_map(Record::suspect).collect();
        let all_live = self.orphans.attribute(&newcomers, &suspects, self.next_order, guess, SystemClock.boot());
        all_live && newcomers.len() < orphans::MOST
    }

    /// Of a try's processes those that came to us.
    fn orphans_of(&self, evidence: &Evidence) -> Vec<i32> {
        let oldest_other = self.alive.iter().find(|&&order| order != evidence.order);
        let mut found = self.orphans.of(evidence, oldest_other.copied());
        if let Some((&reaper, _)) = self.reaper_of(evidence.key) {
            found.extend(procfs::children(reaper).into_iter().filter(|&pid| pid != evidence.leader));
        }
        found
    }

    fn reaper_of(&self, key: TryKey) -> Option<(&i32, &sys::Reaper)> {
        self.reapers.iter().find(|(_, (of, _))| *of == key).map(|(pid, (_, reaper))| (pid, reaper))
    }

    /// Notes the numbers of leaders that their subreapers have made since the last look.
    pub(super) fn meet_leaders(&mut self) {
        if self.reapers.is_empty() {
            return;
        }
        for &key in &self.launching {
            let Some(Record::Running(running)) = self.tries.get_mut(&key) else { continue };
            let pid = running.launching.as_ref().map_or(0, Launching::pid);
            if running.process.pid == 0 && pid != 0 {
                running.process.pid = pid;
                running.process.start_ticks = procfs::stat(pid).map_or(0, |stat| stat.start_ticks);
                running.evidence.leader = pid;
                self.by_pid.insert(pid, key);
            }
        }
    }

    /// A subreaper has ended. By itself it does so when nothing is left below it but its leader, which is a child of ours from now on.
    fn reap_reaper(&mut self, pid: i32, key: TryKey) {
        self.meet_leaders();
        let Ok((status, _)) = sys::reap(pid) else { return };
        self.reapers.remove(&pid);
        if status != sys::Status::Exited(0) {
            // What it had has come to us in this moment.
            self.look_for_orphans(Some(Guess::Try(key)));
        }
        if let Some(Record::Running(running)) = self.tries.get(&key)
            && running.process.pid == 0
            && let Some(Err(refused)) = running.launching.as_ref().and_then(Launching::outcome)
        {
            self.forget_unstarted(key, refused);
        }
    }

    /// No process has come of it.
    fn forget_unstarted(&mut self, key: TryKey, refused: NotStarted) {
        let mut kept = Kept::default();
        if let Some(Record::Running(running)) = self.tries.insert(key, Record::Over(None)) {
            self.alive.remove(&running.evidence.order);
            if let Some(guard) = running.guard {
                guard.dissolve();
            }
            kept = running.kept;
        }
        self.refuse(key, kept, refused);
    }

    /// The kill signal now and SIGKILL after the grace. The first cause stands.
    pub(super) fn end(&mut self, key: TryKey, cause: Cause, now: BootInstant) {
        let Some(Record::Running(running)) = self.tries.get_mut(&key) else { return };
        if running.condemn(cause, now) {
            // A stopped process takes no signal before it goes on.
            let signals = [running.kill_signal, libc::SIGCONT];
            self.spare(key, true);
            self.signal(key, &signals);
        }
    }

    /// Whether its subreaper leaves what the leader leaves the time to end by itself.
    fn spare(&self, key: TryKey, spares: bool) {
        if let Some((_, reaper)) = self.reaper_of(key) {
            reaper.set_spares(spares);
        }
    }

    fn signal(&mut self, key: TryKey, signals: &[i32]) {
        self.look_for_orphans(None);
        let Some(Record::Running(running)) = self.tries.get(&key) else { return };
        let orphans = self.orphans_of(&running.evidence);
        let Some(Record::Running(running)) = self.tries.get_mut(&key) else { return };
        let members = running.signal(signals, &orphans);
        self.orphans.claim(key, members);
    }

    /// SIGKILL to all that a running try has.
    pub(super) fn strike(&mut self, key: TryKey) {
        self.look_for_orphans(None);
        let Some(Record::Running(running)) = self.tries.get(&key) else { return };
        let orphans = self.orphans_of(&running.evidence);
        let Some(Record::Running(running)) = self.tries.get_mut(&key) else { return };
        running.kill_at = None;
        self.spare(key, false);
        let Some(Record::Running(running)) = self.tries.get_mut(&key) else { return };
        if running.evidence.tree != Tree::Group
            && let Some(guard) = &running.guard
        {
            guard.kill();
        }
        if running.launching.is_none() && running.evidence.tree != Tree::Group {
            let leader = running.process.pid;
            let roots: Vec<i32> = [leader].into_iter().chain(orphans).collect();
            self.orphans.claim(key, tree::end(&roots));
        }
        running.signal_group(libc::SIGKILL);
    }

    /// Stops its processes, and the clock of its timeout.
    pub(super) fn pause(&mut self, key: TryKey) {
        self.look_for_orphans(None);
        let Some(Record::Running(running)) = self.tries.get(&key) else { return };
        if running.paused_at.is_some() || running.cause != Cause::Itself {
            return;
        }
        let orphans = self.orphans_of(&running.evidence);
        let Some(Record::Running(running)) = self.tries.get_mut(&key) else { return };
        running.paused_at = Some(SystemClock.boot());
        running.signal_group(libc::SIGSTOP);
        if running.launching.is_none() && running.evidence.tree != Tree::Group {
            let roots: Vec<i32> = [running.process.pid].into_iter().chain(orphans).collect();
            self.orphans.claim(key, tree::stop(&roots));
        }
    }

    /// Has them go on.
    pub(super) fn resume(&mut self, key: TryKey) {
        let Some(Record::Running(running)) = self.tries.get_mut(&key) else { return };
        let Some(paused_at) = running.paused_at.take() else { return };
        let stood_for = SystemClock.boot().since(paused_at);
        running.times_out_at = running.times_out_at.map(|at| at.after(stood_for));
        self.signal(key, &[libc::SIGCONT]);
    }

    /// Reaps all that has ended: leaders, and orphaned descendants that came to us.
    pub(super) fn reap(&mut self) {
        while let Ok(Some(pid)) = sys::peek_ended() {
            if !self.by_pid.contains_key(&pid) {
                self.meet_leaders();
            }
            if let Some(key) = self.by_pid.remove(&pid) {
                self.reap_leader(key, pid);
                continue;
            }
            if let Some(&(key, _)) = self.reapers.get(&pid) {
                self.reap_reaper(pid, key);
                continue;
            }
            // What it leaves behind has come to us already, and is known by it.
            if let Some(leaver) = self.orphans.leaver(pid) {
                self.look_for_orphans(Some(Guess::Left(leaver)));
            }
            let _ = sys::reap(pid);
            self.orphans.forget(pid);
        }
        self.settle();
    }

    /// The leader is still unreaped, so its group's number is still its own: the group is killed first.
    fn reap_leader(&mut self, key: TryKey, pid: i32) {
        let now = SystemClock.boot();
        let Some(Record::Running(mut running)) = self.tries.insert(key, Record::Over(None)) else { return };
        let leaves = running.leaves();
        // Whoever was asked to end has the grace for it, however soon the leader is done.
        let spared_until = running.kill_at.filter(|&at| at > now);
        if !leaves && spared_until.is_none() {
            let _ = sys::kill(-pid, libc::SIGKILL);
            if let Some(guard) = running.guard.as_ref().filter(|_| running.evidence.tree != Tree::Group) {
                guard.kill();
            }
        }
        let Ok((status, usage)) = sys::reap(pid) else { return };
        running.note_refused();
        let verdict = running.guard.as_ref().and_then(|guard| guard.verdict(status, &usage));
        match running.launching.as_ref().and_then(Launching::outcome) {
            Some(Err(refused)) => {
                self.alive.remove(&running.evidence.order);
                if let Some(guard) = running.guard {
                    guard.dissolve();
                }
                return self.refuse(key, running.kept, refused);
            }
            // It was quicker than the look.
            Some(Ok(())) => {
                let started = Answer::Started { key, process: running.process.clone(), at: running.started_at };
                self.mention(&started);
            }
            None => {}
        }
        if let Some((&watch, _)) = self.watches.iter().find(|&(_, &watched)| watched == key) {
            self.watches.remove(&watch);
            let _ = self.logs.as_ref().map(|logs| inotify::remove_watch(logs, watch));
        }
        let Running { evidence, guard, log, started_at, cause, wants_tail, noted_bytes, notes, kept, .. } = *running;
        let end = End {
            key,
            exit: match status {
                sys::Status::Exited(code) => Exit::Code(code),
                sys::Status::Signaled(signal) => Exit::Signal(signal),
            },
            cause: match (cause, verdict) {
                (Cause::Itself, Some(limit)) => Cause::Exceeded { limit },
                (cause, _) => cause,
            },
            usage,
            started_at,
            ended_at: SystemClock.now(),
            log_bytes_dropped: 0,
            output_to: 0,
            tail: None,
            noted_bytes,
            notes,
        };
        let draining = Draining::new((evidence, guard), spared_until, log, end, (wants_tail, kept), now);
        self.tries.insert(key, Record::Draining(Box::new(draining)));
        if leaves {
            self.look_for_orphans(None);
            self.report(key);
        } else {
            self.draining.push(key);
        }
    }

    /// Ends what is left of those whose leaders have ended, and reports those of which nothing is.
    fn settle(&mut self) {
        if self.draining.is_empty() {
            return;
        }
        let is_complete = self.look_for_orphans(None) && !self.orphans.has_unread();
        let now = SystemClock.boot();
        for key in std::mem::take(&mut self.draining) {
            if self.is_done(key, is_complete, now) {
                self.report(key);
            } else {
                self.draining.push(key);
            }
        }
    }

    /// Whether nothing is left of it, or nothing but what cannot be ended. What is left is sent SIGKILL, if its time has come.
    fn is_done(&mut self, key: TryKey, is_complete: bool, now: BootInstant) -> bool {
        let Some(Record::Draining(draining)) = self.tries.get(&key) else { return true };
        let left = self.orphans_of(&draining.evidence);
        let Some(Record::Draining(draining)) = self.tries.get_mut(&key) else { return true };
        let is_empty = left.is_empty() && is_complete && draining.occupied().is_none();
        if is_empty || draining.is_given_up(now) {
            return true;
        }
        if draining.spared_until.is_some_and(|until| until > now) {
            return false;
        }
        if let Some(guard) = draining.occupied() {
            guard.kill();
        }
        if !left.is_empty() && (draining.looks_at <= now || draining.has_not_seen(&left)) {
            let members = match draining.evidence.tree {
                // What stands below them is not minflow's to end.
                Tree::Group => left.iter().filter_map(|&pid| Member::kill(pid)).collect(),
                Tree::Whole | Tree::Strict => tree::end(&left),
            };
            self.orphans.claim(key, members.iter().copied());
            draining.strike(members, now);
        } else if draining.looks_at <= now {
            draining.put_off(now);
        }
        false
    }

    fn report(&mut self, key: TryKey) {
        let Some(Record::Draining(draining)) = self.tries.insert(key, Record::Over(None)) else { return };
        let Draining { evidence, guard, log, mut end, wants_tail, kept, .. } = *draining;
        if let Some(guard) = guard {
            end.notes.extend(guard.account());
            guard.dissolve();
        }
        self.alive.remove(&evidence.order);
        self.orphans.release(key);
        if evidence.leaves && end.cause == Cause::Itself || evidence.tree == Tree::Group {
            self.orphans.leave(&evidence, log.identity());
        }
        let dropped = log.finish(end.ended_at);
        (end.log_bytes_dropped, end.output_to) = (dropped.bytes, dropped.size);
        end.tail = (wants_tail && dropped.bytes > 0).then(|| String::from_utf8_lossy(&dropped.tail).into_owned());
        let answer = Answer::Ended(end);
        self.answer(&answer);
        if let Answer::Ended(end) = answer {
            self.settle_as(key, Settled::new(kept, Verdict::Ended(end)));
        }
    }

    pub(super) fn tick(&mut self) {
        let now = SystemClock.boot();
        let (mut timed_out, mut doomed) = (Vec::new(), Vec::new());
        for (&key, record) in &mut self.tries {
            let Record::Running(running) = record else { continue };
            if running.has_timed_out(now) {
                timed_out.push(key);
            }
            if running.kill_at.is_some_and(|at| at <= now) {
                doomed.push(key);
            }
            if running.log.due().is_some_and(|at| at <= now) {
                running.log.look(now);
            }
            // Without a watch (the user's limit of them is reached) it is looked at once a second.
            if let Some(watch) = running.log.to_watch().and_then(|log| super::watch(self.logs.as_ref()?, log)) {
                self.watches.insert(watch, key);
                running.log.watched();
            }
        }
        for key in timed_out {
            self.end(key, Cause::TimedOut, now);
        }
        for key in doomed {
            self.strike(key);
        }
        self.look_at_limits(now);
    }

    /// Has the guards look that are due, at one list of all processes.
    fn look_at_limits(&mut self, now: BootInstant) {
        let is_due = |record: &Record| match record {
            Record::Running(running) => running.guard_due().is_some_and(|at| at <= now),
            _ => false,
        };
        let due: Vec<TryKey> = self.tries.iter().filter(|(_, record)| is_due(record)).map(|(&key, _)| key).collect();
        if due.is_empty() {
            return;
        }
        self.look_for_orphans(None);
        let all = procfs::processes();
        for key in due {
            let Some(Record::Running(running)) = self.tries.get(&key) else { continue };
            let orphans = self.orphans_of(&running.evidence);
            let roots: Vec<i32> = [running.process.pid].into_iter().chain(orphans).collect();
            let Some(Record::Running(running)) = self.tries.get_mut(&key) else { continue };
            if let Some(limit) = running.guard.as_mut().and_then(|guard| guard.look(&roots, &all, now)) {
                self.exceed(key, limit, now);
            }
        }
    }

    /// Ends a try that has come to a limit.
    fn exceed(&mut self, key: TryKey, limit: Exceeded, now: BootInstant) {
        let cause = Cause::Exceeded { limit };
        match self.tries.get_mut(&key) {
            Some(Record::Running(running)) if limit != Exceeded::CpuTime => {
                // Who takes all memory, or all processes, is not given the time to take more.
                running.condemn(cause, now);
                self.strike(key);
            }
            _ => self.end(key, cause, now),
        }
    }
}

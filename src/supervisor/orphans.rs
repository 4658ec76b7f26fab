//! Whose the processes are that came to the supervisor when their parents ended.
//!
//! Whatever a try has started stands below its leader, or below an orphan: the supervisor is the subreaper of them all. So nobody
//! needs to look through the host's processes; where no orphan is, nothing is left. Knows how tries are recognised; does not end
//! anything.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::BootInstant;
use crate::model::TryKey;
use crate::supervisor::protocol::Tree;
use crate::supervisor::tree::Member;
use crate::supervisor::{MARK, procfs};

/// How many orphans one look attributes.
pub const MOST: usize = 256;
/// How many processes are remembered by what they stood below.
const MOST_CLAIMED: usize = 8_192;
/// How long it is awaited that a process which executes its program just now has an environment again.
const EXEC_WAIT: Duration = Duration::from_secs(1);
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// By what the processes of a try are known.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub key: TryKey,
    /// Its place in the order of starts.
    pub order: u64,
    /// The try's own process: its session and its group have this number as well. 0: there is none yet.
    pub leader: i32,
    pub mark: Option<String>,
    pub tree: Tree,
    /// Whether what outlives its own process is left alone.
    pub leaves: bool,
}

/// A try that is not over, and what names its log.
#[derive(Clone, Debug)]
pub struct Suspect<'a> {
    pub evidence: &'a Evidence,
    pub log: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Try(TryKey),
    /// It may live on.
    Left(TryKey),
    /// Nothing tells, but it is of a try that was started before this place in the order.
    Unknown {
        before: u64,
    },
    /// It executes its program just now, and has no environment to be read. Then it may turn out that nothing tells.
    Unread {
        since: BootInstant,
        /// Where its environment lay then; see [`procfs::Stat::environment`].
        environment: u64,
        guess: Guess,
    },
}

/// Whose it is if nothing tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    Try(TryKey),
    Left(TryKey),
    /// Of one that was started before this place in the order.
    Before(u64),
}

impl From<Guess> for Owner {
    fn from(guess: Guess) -> Self {
        match guess {
            Guess::Try(key) => Self::Try(key),
            Guess::Left(key) => Self::Left(key),
            Guess::Before(before) => Self::Unknown { before },
        }
    }
}

/// What a look at a process tells.
enum Look {
    Owned(Owner),
    /// It has no environment: it executes its program just now, or was given none.
    Unread {
        environment: u64,
    },
    /// It cannot be asked any more, and is reaped soon.
    Ended,
    Nothing,
}

/// Children of this process that lead no try.
pub struct Orphans {
    children: procfs::Children,
    known: BTreeMap<i32, Owner>,
    /// By number and start: what was seen below a process of a try, and may lose that parent.
    claimed: BTreeMap<(i32, u64), TryKey>,
    /// Tries that are over and left processes behind on purpose.
    left: Vec<(Evidence, Option<(u64, u64)>)>,
}

impl Orphans {
    pub fn new() -> Self {
        Self {
            children: procfs::Children::of_this_thread(),
            known: BTreeMap::new(),
            claimed: BTreeMap::new(),
            left: Vec::new(),
        }
    }

    /// The children that nobody has looked at since they came, and those that could not be recognised yet. At most [`MOST`].
    pub fn newcomers(&self, is_leader: impl Fn(i32) -> bool) -> Vec<i32> {
        let mut found = Vec::new();
        self.children.each(|pid| {
            let is_new = || self.known.get(&pid).is_none_or(|owner| matches!(owner, Owner::Unread { .. }));
            if found.len() < MOST && !is_leader(pid) && is_new() {
                found.push(pid);
            }
        });
        found
    }

    /// Finds out whose they are. `next`: the place of the next try in the order of starts. `guess`: whose what nothing is known of is,
    /// where more is known of that than that it is an orphan. False: one of them has ended, perhaps since they were listed, and what it
    /// leaves behind stands in the next list.
    pub fn attribute(
        &mut self,
        newcomers: &[i32],
        suspects: &[Suspect<'_>],
        next: u64,
        guess: Option<Guess>,
        now: BootInstant,
    ) -> bool {
        let mut all_live = true;
        // One of those that are left alone could have started what nothing is known of: it gets the benefit of the doubt.
        let left = suspects.iter().find(|suspect| leaves_unknown(suspect.evidence));
        let guess = guess.or(left.map(|suspect| Guess::Left(suspect.evidence.key))).unwrap_or(Guess::Before(next));
        for &pid in newcomers {
            let (since, before, guess) = match self.known.get(&pid) {
                Some(&Owner::Unread { since, environment, guess }) => (since, environment, guess),
                _ => (now, 0, guess),
            };
            let waited = now.since(since);
            let owner = match self.look(pid, suspects) {
                Look::Owned(owner) => owner,
                // It was given none if it still has none where it had none a while ago: an instant before, it was not written yet.
                Look::Unread { environment } if waited >= EXEC_PAUSE && environment != 0 && environment == before => {
                    guess.into()
                }
                Look::Unread { environment } if waited < EXEC_WAIT => Owner::Unread { since, environment, guess },
                Look::Ended => {
                    all_live = false;
                    guess.into()
                }
                Look::Unread { .. } | Look::Nothing => guess.into(),
            };
            self.known.insert(pid, owner);
        }
        all_live
    }

    fn look(&self, pid: i32, suspects: &[Suspect<'_>]) -> Look {
        let Some(stat) = procfs::stat(pid) else { return Look::Nothing };
        let left = self.left.iter().map(|(evidence, log)| Suspect { evidence, log: *log });
        let owned = |suspect: &Suspect<'_>| {
            let Evidence { key, leader, tree, .. } = *suspect.evidence;
            let is_left = self.left.iter().any(|(evidence, _)| evidence.key == key);
            // Of an operator that ends on its own what it started, only the group is ended.
            let is_outside = tree == Tree::Group && stat.group != leader;
            Look::Owned(if is_left || is_outside { Owner::Left(key) } else { Owner::Try(key) })
        };
        let all = || suspects.iter().cloned().chain(left.clone());
        if let Some(suspect) = all().find(|suspect| suspect.evidence.leader == stat.session && stat.session != 0) {
            return owned(&suspect);
        }
        if let Some(&key) = self.claimed.get(&(pid, stat.start_ticks)) {
            return Look::Owned(Owner::Try(key));
        }
        if stat.has_ended() {
            return Look::Ended;
        }
        let environment = procfs::environment(pid).unwrap_or_default();
        if environment.is_empty()
            && !procfs::written_files(pid).iter().any(|file| all().any(|one| one.log == Some(*file)))
        {
            return Look::Unread { environment: stat.environment };
        }
        if let Some(mark) = procfs::variable(&environment, MARK)
            && let Some(suspect) = all().find(|suspect| suspect.evidence.mark.as_ref() == Some(&mark))
        {
            return owned(&suspect);
        }
        let written = procfs::written_files(pid);
        let by_log = all().find(|suspect| suspect.log.is_some_and(|log| written.contains(&log)));
        by_log.map_or(Look::Nothing, |suspect| owned(&suspect))
    }

    /// Whether one of them cannot be recognised yet.
    pub fn has_unread(&self) -> bool {
        self.known.values().any(|owner| matches!(owner, Owner::Unread { .. }))
    }

    /// Those of a try. `oldest_other`: the place in the order of the first of the other tries that are not over; what nobody can tell
    /// is this one's if no other could have started it.
    pub fn of(&self, evidence: &Evidence, oldest_other: Option<u64>) -> Vec<i32> {
        let is_its = |owner: &Owner| match owner {
            Owner::Try(key) => *key == evidence.key,
            Owner::Unknown { before } => evidence.order < *before && oldest_other.is_none_or(|order| order >= *before),
            Owner::Left(_) | Owner::Unread { .. } => false,
        };
        self.known.iter().filter(|(_, owner)| is_its(owner)).map(|(&pid, _)| pid).collect()
    }

    /// What was seen below a try's processes stays its own when those have ended.
    pub fn claim(&mut self, key: TryKey, members: impl IntoIterator<Item = Member>) {
        for member in members {
            if self.claimed.len() < MOST_CLAIMED {
                self.claimed.insert((member.pid, member.start_ticks), key);
            }
        }
    }

    /// The try is over, and none of its processes is to be ended any more.
    pub fn leave(&mut self, evidence: &Evidence, log: Option<(u64, u64)>) {
        let key = evidence.key;
        self.known.values_mut().filter(|owner| **owner == Owner::Try(key)).for_each(|owner| *owner = Owner::Left(key));
        self.left.push((evidence.clone(), log));
        self.forget_left();
    }

    /// The try is over.
    pub fn release(&mut self, key: TryKey) {
        if !self.claimed.is_empty() {
            self.claimed.retain(|_, claimed| *claimed != key);
        }
    }

    /// The try that left this process behind on purpose, or may have.
    pub fn leaver(&self, pid: i32) -> Option<TryKey> {
        match self.known.get(&pid) {
            Some(&Owner::Left(key)) => Some(key),
            Some(&Owner::Unread { guess: Guess::Left(key), .. }) => Some(key),
            _ => None,
        }
    }

    /// It is reaped: its number may be another's from now on.
    pub fn forget(&mut self, pid: i32) {
        self.known.remove(&pid);
        if !self.left.is_empty() {
            self.forget_left();
        }
    }

    /// Tries of which nothing is left.
    fn forget_left(&mut self) {
        let owners = &self.known;
        self.left.retain(|(evidence, _)| {
            owners.values().any(|owner| match owner {
                Owner::Left(key) => *key == evidence.key,
                Owner::Unread { .. } => true,
                Owner::Try(_) | Owner::Unknown { .. } => false,
            })
        });
    }
}

/// Whether what nobody can attribute might be what this try may leave behind.
fn leaves_unknown(evidence: &Evidence) -> bool {
    evidence.leaves || evidence.tree == Tree::Group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceKey;

    fn evidence(instance: i64, order: u64) -> Evidence {
        let key = TryKey { instance: InstanceKey(instance), try_number: 1 };
        Evidence { key, order, leader: -1, mark: None, tree: Tree::Whole, leaves: false }
    }

    #[test]
    fn what_nobody_can_tell_is_ended_with_the_last_try_that_could_have_started_it() {
        let mut orphans = Orphans::new();
        let [first, second, third] = [(1, 0), (2, 1), (3, 2)].map(|(instance, order)| evidence(instance, order));
        let suspects = [&first, &second].map(|evidence| Suspect { evidence, log: None });
        // No process has this number.
        orphans.attribute(&[i32::MAX], &suspects, 2, None, BootInstant::default());
        assert!(orphans.of(&first, Some(1)).is_empty(), "the second could have started it");
        assert_eq!(orphans.of(&second, Some(2)), [i32::MAX]);
        assert!(orphans.of(&third, None).is_empty(), "it was there before");
    }

    #[test]
    fn what_nobody_can_tell_is_left_alone_while_a_try_runs_that_may_leave_something() {
        let mut orphans = Orphans::new();
        let leaving = Evidence { leaves: true, ..evidence(1, 0) };
        let other = evidence(2, 1);
        let suspects = [&leaving, &other].map(|evidence| Suspect { evidence, log: None });
        orphans.attribute(&[i32::MAX], &suspects, 2, None, BootInstant::default());
        assert!(orphans.of(&other, None).is_empty());
        assert_eq!(orphans.leaver(i32::MAX), Some(leaving.key));
        orphans.leave(&leaving, None);
        assert_eq!(orphans.left.len(), 1);
        orphans.forget(i32::MAX);
        assert!(orphans.left.is_empty() && orphans.known.is_empty());
    }
}

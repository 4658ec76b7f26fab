//! The instances of one group, best first.
//!
//! A heap for what comes and goes; once it is long, it is sorted as a whole, and what is taken then lies next to what was taken
//! before. A heap of its own would reach into memory in many places for each instance. Knows nothing of what still waits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Entry;

/// Shorter heaps lie in a few cache lines.
const SORT_FROM: usize = 32;

/// What a line without instances keeps room for.
const KEPT_ROOM: usize = 16;

/// Pushing and popping cost O(log n), amortized: a sort is paid for by as many pushes.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Worst first.
    sorted: Vec<Entry>,
    /// What has come since it was sorted.
    late: BinaryHeap<Reverse<Entry>>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.late.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty() && self.late.is_empty()
    }

    pub(super) fn best(&self) -> Option<&Entry> {
        match (self.sorted.last(), self.late.peek()) {
            (Some(early), Some(Reverse(late))) => Some(early.min(late)),
            (early, late) => early.or(late.map(|late| &late.0)),
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.late.push(Reverse(entry));
    }

    /// Takes the best.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        if self.late.len() > SORT_FROM.max(self.sorted.len()) {
            self.sort();
        }
        match (self.sorted.last(), self.late.peek()) {
            (Some(early), Some(Reverse(late))) if late < early => self.late.pop().map(|late| late.0),
            (None, _) => self.late.pop().map(|late| late.0),
            (Some(_), _) => self.sorted.pop(),
        }
    }

    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&Entry) -> bool) {
        self.sorted.retain(&mut is_kept);
        self.late.retain(|late| is_kept(&late.0));
    }

    /// Takes all of them, in no order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> + '_ {
        self.sorted.drain(..).chain(self.late.drain().map(|late| late.0))
    }

    /// Gives most of its memory back, once it is empty.
    pub(super) fn shrink(&mut self) {
        self.sorted = Vec::new();
        self.late.shrink_to(KEPT_ROOM);
    }

    /// By order, from 0, once all of it is sorted.
    pub(super) fn nth(&self, at: usize) -> Option<&Entry> {
        self.sorted.iter().rev().nth(at)
    }

    /// Sorts all of it.
    pub(super) fn sort(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let late = std::mem::take(&mut self.late).into_iter().map(|late| late.0);
        if self.sorted.is_empty() {
            // In the memory that the heap had.
            self.sorted = late.collect();
        } else {
            self.sorted.reserve_exact(late.len());
            self.sorted.extend(late);
        }
        // Finds the part that was sorted before, and merges.
        self.sorted.sort_by(|left, right| right.cmp(left));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_comes_first_however_pushes_pops_and_removals_are_mixed(
            steps in prop::collection::vec((0..12_u8, 0..100_u64), 0..600),
        ) {
            let mut line = Line::default();
            let mut expected = BTreeSet::new();
            for (at, (kind, weight)) in steps.into_iter().enumerate() {
                match kind {
                    0..8 => {
                        let entry = Entry { weight, place: 0, handle: at as u32, generation: 0 };
                        line.push(entry);
                        expected.insert(entry);
                    }
                    8..11 => prop_assert_eq!(line.pop(), expected.pop_first()),
                    _ => {
                        line.retain(|entry| entry.weight != weight);
                        expected.retain(|entry| entry.weight != weight);
                    }
                }
                prop_assert_eq!(line.best(), expected.first());
                prop_assert_eq!((line.len(), line.is_empty()), (expected.len(), expected.is_empty()));
            }
            prop_assert_eq!(line.drain().collect::<BTreeSet<_>>(), expected);
            prop_assert!(line.is_empty());
        }
    }
}

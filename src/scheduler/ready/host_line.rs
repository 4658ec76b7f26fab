//! Those that need some of the host, whichever pool they wait for: who of them is first in line.
//!
//! What keeps one of them for good, or within its run, is a *bar*: behind it stands who was found there when his turn had come, and of
//! them only the best is looked at again, once the bar may be gone. So who is first follows from who waits and from what is held now,
//! and not from who was asked when; and what is barred costs nothing.

use std::collections::BTreeMap;

use super::contest::Contest;
use super::tournament::Tournament;
use super::{PoolIx, Quota, Rank};

/// What keeps somebody from being first in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bar {
    /// His run or his task has no room; or the host has too little for him at all.
    Quota(Quota),
    /// The pool will not have so many slots, though all is over that runs now.
    Pool(PoolIx, u32),
}

/// Who stands behind the same bar.
#[derive(Debug, Default)]
struct Hall {
    bar: Option<Bar>,
    groups: Contest,
    /// Whether the bar may be gone.
    is_open: bool,
}

#[derive(Debug, Default)]
pub(super) struct HostLine {
    /// The first one has no bar.
    halls: Vec<Hall>,
    by_bar: BTreeMap<Bar, u32>,
    /// Of each open hall, its best.
    first: Tournament,
    /// By group, its hall and its seat there.
    places: Vec<Option<(u32, u32)>>,
}

impl HostLine {
    /// The rank of a group has changed; it joins the line if it does not stand there yet.
    pub fn set(&mut self, group: u32, rank: Rank) {
        let at = group as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, None);
        }
        let (hall, seat) = match self.places[at] {
            Some(place) => place,
            None => self.join(group, None),
        };
        self.halls[hall as usize].groups.set(seat, rank);
        self.show(hall);
    }

    pub fn leave(&mut self, group: u32) {
        if let Some((hall, seat)) = self.places.get_mut(group as usize).and_then(Option::take) {
            self.halls[hall as usize].groups.leave(seat);
            self.show(hall);
        }
    }

    /// The best of all, unless one of its bars is in place: whether the one that it stood behind still is shows when it is asked.
    pub fn first(&self) -> Option<u32> {
        self.halls[self.first.best()? as usize].groups.best()
    }

    /// The first one stands behind this bar, and all that do as well.
    pub fn bar_first(&mut self, bar: Bar) {
        let Some(hall) = self.first.best() else { return };
        if self.halls[hall as usize].bar != Some(bar) {
            let of = &self.halls[hall as usize].groups;
            let (group, rank) = (of.best().expect("an open hall has somebody"), of.best_rank());
            self.leave(group);
            let (behind, seat) = self.join(group, Some(bar));
            self.halls[behind as usize].groups.set(seat, rank);
        }
        if let Some(&behind) = self.by_bar.get(&bar) {
            self.halls[behind as usize].is_open = false;
            self.show(behind);
        }
    }

    /// A bar may be gone.
    pub fn open(&mut self, bar: Bar) {
        if let Some(&hall) = self.by_bar.get(&bar) {
            self.halls[hall as usize].is_open = true;
            self.show(hall);
        }
    }

    /// A pool may have more slots, or has free ones.
    pub fn open_pool(&mut self, pool: PoolIx) {
        let of_pool = Bar::Pool(pool, 0)..=Bar::Pool(pool, u32::MAX);
        let halls: Vec<u32> = self.by_bar.range(of_pool).map(|(_, &hall)| hall).collect();
        for hall in halls {
            self.halls[hall as usize].is_open = true;
            self.show(hall);
        }
    }

    fn join(&mut self, group: u32, bar: Option<Bar>) -> (u32, u32) {
        if self.halls.is_empty() {
            self.halls.push(Hall { is_open: true, ..Hall::default() });
        }
        let hall = bar.map_or(0, |bar| {
            *self.by_bar.entry(bar).or_insert_with(|| {
                self.halls.push(Hall { bar: Some(bar), ..Hall::default() });
                self.halls.len() as u32 - 1
            })
        });
        let seat = self.halls[hall as usize].groups.join(group);
        self.places[group as usize] = Some((hall, seat));
        (hall, seat)
    }

    fn show(&mut self, hall: u32) {
        let of = &self.halls[hall as usize];
        self.first.set(hall, if of.is_open { of.groups.best_rank() } else { Rank::NOBODY });
    }
}

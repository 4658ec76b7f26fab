//! Groups of the ready queue that compete: for the next start in a lane, or for the room that a full limit may get.

use super::Rank;
use super::tournament::Tournament;

/// A seat for each group, and who of them is the best.
#[derive(Debug, Default)]
pub(super) struct Contest {
    /// By seat.
    groups: Vec<u32>,
    free_seats: Vec<u32>,
    seats: Tournament,
}

impl Contest {
    /// Gives a group a seat; it counts from its first [`Contest::set`] on.
    pub(super) fn join(&mut self, group: u32) -> u32 {
        let seat = self.free_seats.pop().unwrap_or(self.groups.len() as u32);
        match self.groups.get_mut(seat as usize) {
            Some(place) => *place = group,
            None => self.groups.push(group),
        }
        seat
    }

    pub(super) fn leave(&mut self, seat: u32) {
        self.seats.set(seat, Rank::NOBODY);
        self.free_seats.push(seat);
    }

    /// [`Rank::NOBODY`] keeps the seat, but its group does not compete.
    pub(super) fn set(&mut self, seat: u32, rank: Rank) {
        self.seats.set(seat, rank);
    }

    /// Null if nobody competes.
    pub(super) fn best(&self) -> Option<u32> {
        self.seats.best().map(|seat| self.groups[seat as usize])
    }

    pub(super) fn best_rank(&self) -> Rank {
        self.seats.best_rank()
    }

    /// Seats are given out from the first again; nobody has one.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.free_seats.clear();
    }
}

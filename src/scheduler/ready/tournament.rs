//! The least of many ranks, each of which may change at any time.
//!
//! A tree of matches: each node above two others holds the seat with the lower rank of theirs. A rank that changes is matched again
//! on its way to the root only, in place, at O(log n). Knows nothing of who sits where.

use super::Rank;

/// Seats are dense numbers, given by the caller.
#[derive(Debug, Default)]
pub(super) struct Tournament {
    /// By seat, as many as a power of two.
    ranks: Vec<Rank>,
    /// By node: 1 is the root, `2n` and `2n + 1` stand under `n`, the seats under the last ones.
    winners: Vec<u32>,
}

impl Tournament {
    /// [`Rank::NOBODY`] for a seat that was never taken.
    pub(super) fn rank(&self, seat: u32) -> Rank {
        self.ranks.get(seat as usize).copied().unwrap_or(Rank::NOBODY)
    }

    /// The seat with the lowest rank, of equal ones the first; null if there is nobody.
    pub(super) fn best(&self) -> Option<u32> {
        let seat = self.winner(1);
        (self.rank(seat) != Rank::NOBODY).then_some(seat)
    }

    /// The lowest rank.
    pub(super) fn best_rank(&self) -> Rank {
        self.rank(self.winner(1))
    }

    /// Gives a seat another rank; [`Rank::NOBODY`] leaves it empty.
    pub(super) fn set(&mut self, seat: u32, rank: Rank) {
        if self.rank(seat) == rank {
            return;
        }
        if self.ranks.len() <= seat as usize {
            self.grow(seat as usize + 1);
        }
        self.ranks[seat as usize] = rank;
        let mut winner = self.better(seat, seat ^ 1);
        let mut node = (self.ranks.len() + seat as usize) / 2;
        loop {
            // Whoever won here before and now has met others further up with the same rank as before.
            if winner == self.winners[node] && winner != seat {
                return;
            }
            self.winners[node] = winner;
            if node == 1 {
                return;
            }
            winner = self.better(winner, self.winners[node ^ 1]);
            node /= 2;
        }
    }

    fn grow(&mut self, seats: usize) {
        self.ranks.resize(seats.next_power_of_two().max(2), Rank::NOBODY);
        self.winners = vec![0; self.ranks.len()];
        for node in (1..self.ranks.len()).rev() {
            self.winners[node] = self.better(self.winner(2 * node), self.winner(2 * node + 1));
        }
    }

    /// Of two seats the one with the lower rank, of equal ones the first.
    fn better(&self, one: u32, other: u32) -> u32 {
        let (first, second) = (self.ranks[one as usize], self.ranks[other as usize]);
        if (second, other) < (first, one) { other } else { one }
    }

    /// Of a node, or of a seat as if it were one.
    fn winner(&self, node: usize) -> u32 {
        match self.winners.get(node) {
            Some(&seat) => seat,
            None => node.saturating_sub(self.ranks.len()) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rank(weight: u64) -> Rank {
        Rank { weight, ..Rank::NOBODY }
    }

    #[test]
    fn nobody_wins_before_anybody_has_come_and_after_all_have_gone() {
        let mut tournament = Tournament::default();
        assert_eq!((tournament.best(), tournament.best_rank()), (None, Rank::NOBODY));
        tournament.set(5, rank(1));
        assert_eq!((tournament.best(), tournament.best_rank()), (Some(5), rank(1)));
        tournament.set(5, Rank::NOBODY);
        assert_eq!(tournament.best(), None);
    }

    proptest! {
        #[test]
        fn the_first_of_the_lowest_ranks_wins_after_every_change(
            changes in prop::collection::vec((0..40_u32, prop::option::of(0..6_u64)), 1..200),
        ) {
            let mut tournament = Tournament::default();
            let mut ranks = [None; 40];
            for (seat, weight) in changes {
                tournament.set(seat, weight.map_or(Rank::NOBODY, rank));
                ranks[seat as usize] = weight;
                let taken = ranks.iter().enumerate().filter_map(|(seat, weight)| weight.map(|weight| (weight, seat)));
                let expected = taken.min().map(|(_, seat)| seat as u32);
                prop_assert_eq!(tournament.best(), expected);
            }
        }
    }
}

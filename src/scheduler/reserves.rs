//! What of the host's memory and processors is reserved for what is under way (`needs`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// What one instance has reserved from queued to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Bytes.
    pub memory: u64,
    /// Thousandths of a processor.
    pub millicpus: u32,
}

impl Need {
    /// What is learned from tries differs a little each time: it is rounded up, by an eighth at most, so that there are few needs.
    pub fn rounded(self) -> Self {
        let step = 1_u64 << self.memory.checked_ilog2().unwrap_or_default().saturating_sub(3);
        Self { memory: self.memory.checked_next_multiple_of(step).unwrap_or(u64::MAX), ..self }
    }
}

/// One of the needs that there are. Dense; never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeedIx(NonZeroU32);

/// How much may be reserved, and is.
#[derive(Clone, Debug)]
pub struct Reserves {
    memory: u64,
    millicpus: u64,
    reserved_memory: u64,
    reserved_millicpus: u64,
    needs: Vec<Need>,
    by_need: BTreeMap<Need, NeedIx>,
}

impl Default for Reserves {
    /// Without bounds.
    fn default() -> Self {
        Self {
            memory: u64::MAX,
            millicpus: u64::MAX,
            reserved_memory: 0,
            reserved_millicpus: 0,
            needs: Vec::new(),
            by_need: BTreeMap::new(),
        }
    }
}

impl Reserves {
    /// How much may be reserved from now on; None: as much as anybody wants. What is reserved stays.
    pub fn set(&mut self, memory: Option<u64>, millicpus: Option<u32>) {
        self.memory = memory.unwrap_or(u64::MAX);
        self.millicpus = millicpus.map_or(u64::MAX, u64::from);
    }

    pub fn intern(&mut self, need: Need) -> NeedIx {
        let next = NonZeroU32::MIN.saturating_add(self.needs.len() as u32);
        let ix = *self.by_need.entry(need).or_insert(NeedIx(next));
        if ix.0 == next {
            self.needs.push(need);
        }
        ix
    }

    pub fn need(&self, ix: NeedIx) -> Need {
        self.needs[ix.0.get() as usize - 1]
    }

    /// All that were ever interned.
    pub fn all(&self) -> impl Iterator<Item = NeedIx> + use<> {
        (1..=self.needs.len() as u32).filter_map(NonZeroU32::new).map(NeedIx)
    }

    /// Whether it could be reserved if nothing else were.
    pub fn could_hold(&self, ix: NeedIx) -> bool {
        let Need { memory, millicpus } = self.need(ix);
        memory <= self.memory && u64::from(millicpus) <= self.millicpus
    }

    pub fn has_room(&self, ix: NeedIx) -> bool {
        let Need { memory, millicpus } = self.need(ix);
        (memory == 0 || self.reserved_memory.saturating_add(memory) <= self.memory)
            && (millicpus == 0 || self.reserved_millicpus + u64::from(millicpus) <= self.millicpus)
    }

    /// Whether, once `one` is reserved, `other` can be too, as far as both want the same.
    pub fn has_room_for_both(&self, one: NeedIx, other: NeedIx) -> bool {
        let (one, other) = (self.need(one), self.need(other));
        let memory = self.reserved_memory.saturating_add(one.memory).saturating_add(other.memory);
        let millicpus = self.reserved_millicpus + u64::from(one.millicpus) + u64::from(other.millicpus);
        (one.memory == 0 || other.memory == 0 || memory <= self.memory)
            && (one.millicpus == 0 || other.millicpus == 0 || millicpus <= self.millicpus)
    }

    pub fn take(&mut self, ix: NeedIx) {
        let Need { memory, millicpus } = self.need(ix);
        self.reserved_memory = self.reserved_memory.saturating_add(memory);
        self.reserved_millicpus += u64::from(millicpus);
    }

    /// # Panics
    /// It was not taken.
    pub fn give_back(&mut self, ix: NeedIx) {
        let Need { memory, millicpus } = self.need(ix);
        let less = |reserved: u64, by: u64| reserved.checked_sub(by).expect("what is reserved is given back once");
        self.reserved_memory = less(self.reserved_memory, memory);
        self.reserved_millicpus = less(self.reserved_millicpus, u64::from(millicpus));
    }

    /// What is reserved, and what may be, of memory in bytes.
    pub fn memory(&self) -> (u64, u64) {
        (self.reserved_memory, self.memory)
    }

    /// The same of processors, in thousandths.
    pub fn millicpus(&self) -> (u64, u64) {
        (self.reserved_millicpus, self.millicpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_reserved_than_there_is_and_all_of_it_comes_back() {
        let mut reserves = Reserves::default();
        reserves.set(Some(1_000), Some(2_000));
        let fat = reserves.intern(Need { memory: 600, millicpus: 0 });
        let busy = reserves.intern(Need { memory: 400, millicpus: 1_500 });
        assert_eq!(reserves.intern(Need { memory: 600, millicpus: 0 }), fat);
        reserves.take(fat);
        assert_eq!((reserves.has_room(fat), reserves.has_room(busy)), (false, true));
        reserves.take(busy);
        assert!(!reserves.has_room(busy));
        assert_eq!((reserves.memory(), reserves.millicpus()), ((1_000, 1_000), (1_500, 2_000)));
        reserves.give_back(fat);
        assert!(reserves.has_room(fat) && !reserves.has_room(busy), "its processors are missing still");
        reserves.give_back(busy);
        assert_eq!((reserves.memory().0, reserves.millicpus().0), (0, 0));
        let never = reserves.intern(Need { memory: 1_001, millicpus: 0 });
        assert_eq!((reserves.could_hold(never), reserves.could_hold(fat)), (false, true));
    }

    #[test]
    fn what_is_learned_is_rounded_up_by_an_eighth_at_most() {
        for memory in [1, 7, 8, 9, 1_000, 123_456_789, u64::MAX / 3] {
            let rounded = Need { memory, millicpus: 0 }.rounded().memory;
            assert!(rounded >= memory && rounded - memory <= memory / 8, "{memory} {rounded}");
        }
        let kinds: std::collections::BTreeSet<u64> =
            (1_000_000..2_000_000).step_by(997).map(|memory| Need { memory, millicpus: 0 }.rounded().memory).collect();
        assert!(kinds.len() <= 10, "{kinds:?}");
    }
}

//! A set of dense numbers, for what is noted many times a turn and taken once.
//!
//! Noting costs a look into a table, not a search; the order, in which nothing may depend on the order of noting, is made when all
//! are taken. Knows nothing of what the numbers stand for.

/// What is numbered densely from 0.
pub(super) trait Dense: Copy + Ord {
    fn index(self) -> u32;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Unlisted,
    In,
    /// It is in the list still, but no longer in the set.
    Removed,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct DenseSet<T> {
    marks: Vec<Mark>,
    /// In order of noting, each once.
    list: Vec<T>,
    /// An empty list that was given back.
    spare: Vec<T>,
    len: usize,
}

impl<T> Default for DenseSet<T> {
    fn default() -> Self {
        Self { marks: Vec::new(), list: Vec::new(), spare: Vec::new(), len: 0 }
    }
}

impl<T: Dense> DenseSet<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, item: T) -> bool {
        self.marks.get(item.index() as usize) == Some(&Mark::In)
    }

    pub fn insert(&mut self, item: T) {
        let index = item.index() as usize;
        if self.marks.len() <= index {
            self.marks.resize(index + 1, Mark::Unlisted);
        }
        let before = std::mem::replace(&mut self.marks[index], Mark::In);
        if before == Mark::Unlisted {
            self.list.push(item);
        }
        self.len += usize::from(before != Mark::In);
    }

    pub fn remove(&mut self, item: T) {
        if let Some(mark @ Mark::In) = self.marks.get_mut(item.index() as usize) {
            *mark = Mark::Removed;
            self.len -= 1;
        }
    }

    /// Takes all of them, in order.
    pub fn take(&mut self) -> Vec<T> {
        if self.list.is_empty() {
            return Vec::new();
        }
        self.len = 0;
        let spare = std::mem::take(&mut self.spare);
        let mut list = std::mem::replace(&mut self.list, spare);
        list.retain(|item| std::mem::take(&mut self.marks[item.index() as usize]) == Mark::In);
        list.sort_unstable();
        list
    }

    /// Takes the memory of a list that was taken, to be filled again: a turn may have little else to ask memory for.
    pub fn give_back(&mut self, mut taken: Vec<T>) {
        taken.clear();
        self.spare = taken;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    impl Dense for u32 {
        fn index(self) -> u32 {
            self
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_an_ordered_set_would(steps in prop::collection::vec((0..8_u8, 0..20_u32), 0..100)) {
            let mut set = DenseSet::default();
            let mut expected = BTreeSet::new();
            for (kind, item) in steps {
                match kind {
                    0..4 => {
                        set.insert(item);
                        expected.insert(item);
                    }
                    4..7 => {
                        set.remove(item);
                        expected.remove(&item);
                    }
                    _ => {
                        let taken = set.take();
                        prop_assert_eq!(&taken, &std::mem::take(&mut expected).into_iter().collect::<Vec<_>>());
                        set.give_back(taken);
                    }
                }
                prop_assert_eq!(set.len(), expected.len());
                prop_assert_eq!(set.contains(item), expected.contains(&item));
            }
        }
    }
}

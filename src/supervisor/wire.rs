//! How values become bytes between the scheduler's process and the supervisor: numbers in little endian, texts and lists after
//! their lengths, a choice after its number.
//!
//! Knows no message. JSON took most of the time that the supervisor spent on a short task outside the kernel.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Enforce, Exceeded, InstanceKey, IoPriority, Limits, ProcessIdentity, TryKey, Usage};

/// A value with a form on the wire.
pub trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);

    /// None: these bytes are no such value.
    fn take(input: &mut Input<'_>) -> Option<Self>;
}

/// Bytes that are read from the front.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Wire for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(input: &mut Input<'_>) -> Option<Self> {
                Some(Self::from_le_bytes(*input.take(size_of::<Self>())?.first_chunk()?))
            }
        }
    )*};
}

number!(u8, u32, i32, u64, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        match u8::take(input)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        let length = u32::take(input)? as usize;
        std::str::from_utf8(input.take(length)?).ok().map(str::to_owned)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        self.iter().for_each(|item| item.put(out));
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        let count = u32::take(input)? as usize;
        // Each item has a byte at least: a stranger's number reserves no more than it has sent.
        let mut items = Self::with_capacity(count.min(input.0.len()));
        for _ in 0..count {
            items.push(T::take(input)?);
        }
        Some(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        if bool::take(input)? { T::take(input).map(Some) } else { Some(None) }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        Some((A::take(input)?, B::take(input)?))
    }
}

/// In nanoseconds; 584 years at most.
impl Wire for Duration {
    fn put(&self, out: &mut Vec<u8>) {
        (self.as_nanos() as u64).put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        u64::take(input).map(Self::from_nanos)
    }
}

/// In microseconds, as [`Clock`](crate::clock::Clock) gives them.
impl Wire for Timestamp {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_microsecond().put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        Self::from_microsecond(i64::take(input)?).ok()
    }
}

/// The fields of a struct, in order.
macro_rules! record {
    ($kind:ident { $($field:ident),* $(,)? }) => {
        impl $crate::supervisor::wire::Wire for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::supervisor::wire::Wire::put(&self.$field, out);)*
            }

            fn take(input: &mut $crate::supervisor::wire::Input<'_>) -> Option<Self> {
                Some(Self { $($field: $crate::supervisor::wire::Wire::take(input)?),* })
            }
        }
    };
}
pub(super) use record;

impl Wire for InstanceKey {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        i64::take(input).map(Self)
    }
}

record!(TryKey { instance, try_number });
record!(ProcessIdentity { pid, start_ticks, boot_id });
record!(Usage { user_cpu, system_cpu, max_rss, read_bytes, write_bytes, voluntary_switches, involuntary_switches });
record!(Limits { memory, millicpus, cpu_time, processes, open_files, file_size, nice, ionice, umask, enforce });

impl Wire for IoPriority {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Idle => u8::MAX,
            Self::BestEffort(level) => *level,
        }
        .put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        match u8::take(input)? {
            level @ 0..=7 => Some(Self::BestEffort(level)),
            u8::MAX => Some(Self::Idle),
            _ => None,
        }
    }
}

impl Wire for Enforce {
    fn put(&self, out: &mut Vec<u8>) {
        (*self == Self::Require).put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        Some(if bool::take(input)? { Self::Require } else { Self::Prefer })
    }
}

impl Wire for Exceeded {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Self> {
        let number = usize::from(u8::take(input)?);
        Self::ALL.get(number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_the_bytes_do_not_bear_out_is_no_value_and_reserves_nothing() {
        let mut bytes = Vec::new();
        u32::MAX.put(&mut bytes);
        assert_eq!(Vec::<String>::take(&mut Input::new(&bytes)), None);
        assert_eq!(String::take(&mut Input::new(&bytes)), None);
        assert_eq!(bool::take(&mut Input::new(&[2])), None);
        assert_eq!(String::take(&mut Input::new(&[1, 0, 0, 0, 0xff])), None, "not UTF-8");
    }
}

//! Chance that is the same at each run: expressions, instants and noise.

use super::*;

/// xorshift64*.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.roll() % (high - low + 1) as u64) as i64
    }

    pub fn percent(&mut self, chance: i64) -> bool {
        self.between(1, 100) <= chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.between(0, from.len() as i64 - 1) as usize]
    }

    /// To the second, from 2000 to 2040.
    pub fn instant(&mut self) -> Timestamp {
        Timestamp::from_second(self.between(946_684_800, 2_240_524_800)).unwrap()
    }

    fn item(&mut self, low: i64, high: i64) -> String {
        let (a, b) = (self.between(low, high), self.between(low, high));
        match self.between(0, 9) {
            0..=4 => a.to_string(),
            5 | 6 => format!("{}-{}", a.min(b), a.max(b)),
            7 => format!("{a}-{b}/{}", self.between(1, 9)),
            8 => format!("*/{}", self.between(1, 12)),
            _ => format!("{a}/{}", self.between(1, 12)),
        }
    }

    fn field(&mut self, low: i64, high: i64, star: i64) -> String {
        if self.percent(star) {
            return "*".to_owned();
        }
        let count = *self.pick(&[1, 1, 1, 2, 3]);
        (0..count).map(|_| self.item(low, high)).collect::<Vec<_>>().join(",")
    }

    /// An expression that may fire on any day of the year.
    pub fn of_all_days(&mut self) -> String {
        format!("{} {} * * *", self.field(0, 59, 20), self.field(0, 23, 30))
    }

    /// Any expression of the dialect that is understood; some never fire.
    pub fn expression(&mut self) -> String {
        let (minute, hour, month) = (self.field(0, 59, 20), self.field(0, 23, 30), self.field(1, 12, 70));
        let day = match self.between(0, 9) {
            0 => "L".to_owned(),
            1 => format!("{}W", self.between(1, 31)),
            2 => format!("{},L", self.field(1, 31, 0)),
            _ => self.field(1, 31, 60),
        };
        let weekday = match self.between(0, 9) {
            0 => format!("{}#{}", self.between(0, 6), self.between(1, 5)),
            1 => format!("L{}", self.between(0, 6)),
            2 => "?".to_owned(),
            _ => self.field(0, 7, 60),
        };
        let five = format!("{minute} {hour} {day} {month} {weekday}");
        match self.between(0, 9) {
            0 => format!("{five} {}", self.field(0, 59, 20)),
            1 => format!("{five} {} {}", self.field(0, 59, 50), self.field(1970, 2099, 30)),
            _ => five,
        }
    }

    /// Characters that expressions are made of, and some others, in no order.
    pub fn noise(&mut self) -> String {
        let letters: Vec<char> = "0123456789*/,-#?LWlwHRhr@ \t\u{b}montuefebjanx.+\u{661}é\u{0}".chars().collect();
        let count = self.between(0, 40);
        (0..count).map(|_| *self.pick(&letters)).collect()
    }

    /// An expression with one character too many, too few, or other than it should be.
    pub fn nearly(&mut self) -> String {
        let mut text: Vec<char> = self.expression().chars().collect();
        let at = self.between(0, text.len() as i64 - 1) as usize;
        let other = self.noise().chars().next().unwrap_or('-');
        match self.between(0, 2) {
            0 => text.insert(at, other),
            1 => text[at] = other,
            _ => drop(text.remove(at)),
        }
        text.into_iter().collect()
    }
}

//! A cron expression in English words, true to the days on which it really fires.
//!
//! Knows the expression alone; zones and instants are for its callers to tell.

use super::cron::Cron;
use super::fields::{DAY, Field, HOUR, MINUTE, MONTH, SECOND, Values, YEAR};

/// As many times of the day are listed one by one.
const LISTED_TIMES: usize = 6;
/// From Monday, as a week is read; cron's number of Sunday is 0.
const WEEK: [(u32, &str); 7] =
    [(1, "Monday"), (2, "Tuesday"), (3, "Wednesday"), (4, "Thursday"), (5, "Friday"), (6, "Saturday"), (0, "Sunday")];
const NTH: [(u8, &str); 6] = [(1, "first"), (2, "second"), (3, "third"), (4, "fourth"), (5, "fifth"), (0, "last")];

/// Of a month from 1 to 12.
fn month_name(month: u32) -> String {
    jiff::civil::date(2000, month as i8, 1).strftime("%B").to_string()
}

impl Cron {
    /// The expression in words, e.g. "at 06:00 on Monday to Friday", in the wall time of whatever zone it stands in.
    pub fn words(&self) -> String {
        let mut words = self.time_in_words();
        match self.days_in_words() {
            Some(days) => words.push_str(&format!(" on {days}")),
            // "every 5 minutes" is clear without it.
            None if words.starts_with("at ") && !words.contains("every") => words.push_str(" every day"),
            None => {}
        }
        if !self.month.star {
            let months = self.month.numbers(&MONTH);
            words.push_str(&format!(" in {}", series(months, month_name)));
        }
        if let Some(years) = self.year.filter(|years| !years.star) {
            words.push_str(&format!(" in {}", numbers("year", &years, &YEAR, |year| year.to_string())));
        }
        if self.is_never() {
            words.push_str(", a date that never comes");
        }
        words
    }

    fn time_in_words(&self) -> String {
        let seconds = match self.second {
            Some(second) if second.star => return format!("every second{}", self.minutes_of_seconds()),
            Some(second) => second,
            None => Values::only(0),
        };
        if let Some(step) = even_step(&seconds, &SECOND) {
            return format!("every {step} seconds{}", self.minutes_of_seconds());
        }
        let Some(second) = only(&seconds, &SECOND) else {
            let seconds = numbers("second", &seconds, &SECOND, |second| second.to_string());
            return format!("at {seconds}{}", self.minutes_of_seconds());
        };
        let hours: Vec<u32> = self.hour.numbers(&HOUR).collect();
        let minutes: Vec<u32> = self.minute.numbers(&MINUTE).collect();
        let second_of = |words: String| match second {
            0 => words,
            _ => format!("at second {second} of {words}"),
        };
        if !self.hour.star && !self.minute.star && hours.len() * minutes.len() <= LISTED_TIMES && !is_long_row(&hours) {
            let times = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| clock(*hour, *minute, second)));
            return format!("at {}", and(times.collect()));
        }
        if self.minute.star {
            return second_of(format!("every minute{}", self.span_of_hours()));
        }
        if let Some(step) = even_step(&self.minute, &MINUTE)
            && second == 0
        {
            return format!("every {step} minutes{}", self.span_of_hours());
        }
        if let ([minute], Some(step), [first, .., last]) = (&minutes[..], row(&hours), &hours[..])
            && !self.hour.star
        {
            let every = if step == 1 { "hour".to_owned() } else { format!("{step} hours") };
            return format!(
                "every {every} from {} to {}",
                clock(*first, *minute, second),
                clock(*last, *minute, second)
            );
        }
        let minutes = numbers("minute", &self.minute, &MINUTE, |minute| minute.to_string());
        match second {
            0 => format!("at {minutes}{}", self.hours_of_minutes()),
            _ => format!("at second {second} of {minutes}{}", self.hours_of_minutes()),
        }
    }

    /// Where the seconds that were told belong: nothing if that is anywhere.
    fn minutes_of_seconds(&self) -> String {
        if self.minute.star {
            return self.span_of_hours();
        }
        let minutes = numbers("minute", &self.minute, &MINUTE, |minute| minute.to_string());
        format!(" of {minutes}{}", self.hours_of_minutes())
    }

    fn hours_of_minutes(&self) -> String {
        if self.hour.star {
            return " of every hour".to_owned();
        }
        format!(" of {}", numbers("hour", &self.hour, &HOUR, |hour| hour.to_string()))
    }

    /// Whole hours: " from 09:00 to 17:59", or nothing for all of them.
    fn span_of_hours(&self) -> String {
        let hours: Vec<u32> = self.hour.numbers(&HOUR).collect();
        match hours[..] {
            _ if self.hour.star => String::new(),
            [first] => format!(" from {} to {}", clock(first, 0, 0), clock(first, 59, 0)),
            [first, .., last] if row(&hours) == Some(1) || last - first == 1 => {
                format!(" from {} to {}", clock(first, 0, 0), clock(last, 59, 0))
            }
            _ => self.hours_of_minutes(),
        }
    }

    /// None for every day.
    fn days_in_words(&self) -> Option<String> {
        let has_nth = self.nth != [0; 7];
        let day = match self.nearest {
            Some(day) => {
                Some(format!("the weekday (Monday to Friday) nearest to the {} of the month", ordinal(u32::from(day))))
            }
            None if self.day.star => None,
            None => Some(self.days_of_month_in_words()),
        };
        let weekday = if has_nth {
            Some(self.nth_in_words())
        } else if self.weekday.star {
            None
        } else {
            let places = (0..).zip(WEEK).filter(|(_, (number, _))| self.weekday.set.contains(*number));
            Some(series(places.map(|(place, _)| place), |place| WEEK[place as usize].1.to_owned()))
        };
        let is_either = !self.day.star && !self.weekday.star;
        match (day, weekday) {
            // What binds on both sides of an "or" stands alone: the other side lies within it.
            (Some(day), Some(_)) if is_either && self.nearest.is_some() && !has_nth => Some(day),
            (Some(_), Some(weekday)) if is_either && self.nearest.is_none() && has_nth => Some(weekday),
            (Some(day), Some(weekday)) if is_either && !has_nth => Some(format!("{day} or on {weekday}")),
            (Some(day), Some(weekday)) => Some(format!("{day} if that is {weekday}")),
            (day, weekday) => day.or(weekday),
        }
    }

    fn days_of_month_in_words(&self) -> String {
        let days: Vec<u32> = self.day.numbers(&DAY).collect();
        let mut parts = Vec::new();
        match (row(&days), &days[..]) {
            (Some(step), [first, .., last]) if step > 1 => parts.push(format!(
                "every {} day from the {} to the {}",
                ordinal(step),
                ordinal(*first),
                ordinal(*last)
            )),
            (_, []) => {}
            _ => parts.push(format!("the {}", series(days.into_iter(), ordinal))),
        }
        if self.day.last {
            parts.push("the last day".to_owned());
        }
        format!("{} of the month", and(parts))
    }

    fn nth_in_words(&self) -> String {
        let of_weekday = |(number, name): &(u32, &str)| {
            let set = self.nth[*number as usize];
            let which: Vec<String> =
                NTH.iter().filter(|(n, _)| set & 1 << n != 0).map(|(_, word)| (*word).to_owned()).collect();
            (!which.is_empty()).then(|| format!("the {} {name}", and(which)))
        };
        format!("{} of the month", and(WEEK.iter().filter_map(of_weekday).collect()))
    }
}

fn only(values: &Values, field: &Field) -> Option<u32> {
    let mut numbers = values.numbers(field);
    let first = numbers.next().filter(|_| !values.star)?;
    numbers.next().is_none().then_some(first)
}

/// `*/15` of minutes or seconds: from zero on, in steps that sixty is a multiple of.
fn even_step(values: &Values, field: &Field) -> Option<u32> {
    let numbers: Vec<u32> = values.numbers(field).collect();
    let step = numbers.get(1).copied().filter(|_| !values.star && numbers[0] == 0)?;
    let is_even =
        60 % step == 0 && numbers.len() as u32 == 60 / step && numbers.iter().zip(0..).all(|(n, at)| *n == at * step);
    is_even.then_some(step)
}

/// The step of at least three numbers that lie equally far apart.
fn row(numbers: &[u32]) -> Option<u32> {
    let [first, second, _, ..] = numbers else { return None };
    let step = second - first;
    numbers.windows(2).all(|pair| pair[1] - pair[0] == step).then_some(step)
}

/// A row that is told better by its ends.
fn is_long_row(numbers: &[u32]) -> bool {
    numbers.len() > 3 && row(numbers).is_some()
}

/// "minute 5", "minutes 5, 20 and 35", "every 7th minute from 0 to 56".
fn numbers(unit: &str, values: &Values, field: &Field, name: impl Fn(u32) -> String) -> String {
    if values.star {
        return format!("every {unit}");
    }
    let all: Vec<u32> = values.numbers(field).collect();
    match (row(&all), &all[..]) {
        (Some(step), [first, .., last]) if step > 1 && all.len() > 3 => {
            format!("every {} {unit} from {} to {}", ordinal(step), name(*first), name(*last))
        }
        (_, [one]) if field.name != YEAR.name => format!("{unit} {}", name(*one)),
        _ if field.name == YEAR.name => series(all.into_iter(), name),
        _ => format!("{unit}s {}", series(all.into_iter(), name)),
    }
}

/// "1, 3 and 5", where three or more in a row are "1 to 3".
fn series(numbers: impl Iterator<Item = u32>, name: impl Fn(u32) -> String) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let parts = runs.into_iter().flat_map(|(first, last)| {
        if last - first >= 2 {
            return vec![format!("{} to {}", name(first), name(last))];
        }
        (first..=last).map(&name).collect()
    });
    and(parts.collect())
}

fn and(mut parts: Vec<String>) -> String {
    match parts.pop() {
        None => String::new(),
        Some(last) if parts.is_empty() => last,
        Some(last) => format!("{} and {last}", parts.join(", ")),
    }
}

fn ordinal(number: u32) -> String {
    let suffix = match (number % 10, number % 100) {
        (1, tail) if tail != 11 => "st",
        (2, tail) if tail != 12 => "nd",
        (3, tail) if tail != 13 => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

fn clock(hour: u32, minute: u32, second: u32) -> String {
    match second {
        0 => format!("{hour:02}:{minute:02}"),
        _ => format!("{hour:02}:{minute:02}:{second:02}"),
    }
}

//! What minflow must be told so that it fires when cron does: the line's own text where both read it alike, else another one.

use crate::timetable::Cron;

use super::when::When;

/// A schedule for minflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    pub text: String,
    /// minflow reads the line's own text differently, so this is another one.
    pub is_rewritten: bool,
}

/// Every value of each field.
const ALL: [(u64, u32, u32); 5] =
    [((1 << 60) - 1, 0, 59), ((1 << 24) - 1, 0, 23), (0xffff_fffe, 1, 31), (0x1ffe, 1, 12), (0x7f, 0, 6)];

impl When {
    /// The schedule that fires at the same times as the line, of which `written` is the text of its fields or its nickname.
    ///
    /// None: cron wants both day fields to suit a day, and neither is `*`; minflow's cron, which is Airflow's, would take either.
    pub fn expression(&self, written: &str) -> Option<Expression> {
        let (days, weekdays) = (self.days == ALL[2].0, self.weekdays == ALL[4].0);
        let (days, weekdays) = match self.stars.of_day {
            true if !days && !weekdays => return None,
            true => (self.days, self.weekdays),
            // One that suits every day is enough.
            false if days || weekdays => (ALL[2].0, ALL[4].0),
            false => (self.days, self.weekdays),
        };
        let masks = [self.minutes, self.hours, days, self.months, weekdays];
        let plain: Vec<String> = masks.into_iter().zip(ALL).map(|(mask, all)| print(mask, all)).collect();
        let plain = plain.join(" ");
        let meant = Cron::parse(&plain).expect("numbers within their fields' bounds are an expression");
        let is_rewritten = Cron::parse(written).ok() != Some(meant);
        let text = if is_rewritten { plain } else { written.split_ascii_whitespace().collect::<Vec<_>>().join(" ") };
        Some(Expression { text, is_rewritten })
    }
}

/// The values of a field: `*`, a step of all, a range, or a list.
fn print(mask: u64, (all, low, high): (u64, u32, u32)) -> String {
    if mask == all {
        return "*".to_owned();
    }
    let values: Vec<u32> = (low..=high).filter(|value| mask & 1 << value != 0).collect();
    let step_of_all = (2..=high / 2).find(|step| (low..=high).step_by(*step as usize).eq(values.iter().copied()));
    if let Some(step) = step_of_all {
        return format!("*/{step}");
    }
    let mut items = Vec::new();
    let mut at = 0;
    while at < values.len() {
        let run = (at..values.len()).take_while(|n| values[*n] == values[at] + (n - at) as u32).count();
        // croniter reads a range of equal ends as the whole field.
        match run {
            1 | 2 => items.extend(values[at..at + run].iter().map(u32::to_string)),
            _ => items.push(format!("{}-{}", values[at], values[at + run - 1])),
        }
        at += run;
    }
    items.join(",")
}

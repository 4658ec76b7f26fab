//! What a task's file says about failed tries: `retry_on` and `retry_exponential_backoff`.

use toml::Spanned;
use toml::de::DeValue;

use super::{Reader, keys};
use crate::keytable::{ENDING_SIGNALS, Fields, signal_number};
use crate::model::retry::{EndedBy, RetryRule, output_pattern};

/// The conditions of which a try can meet one only.
const ENDS: [&str; 4] = ["exit_code", "signal", "timeout", "out_of_memory"];

/// What `true` means (Airflow).
const DOUBLING: f64 = 2.0;

pub(super) fn multiplier(fields: Fields<'_>, name: &str) -> Option<f64> {
    match fields.bool(name) {
        Some(is) => Some(if is { DOUBLING } else { 0.0 }),
        None => fields.number(name),
    }
}

/// The rules of a checked list.
pub(super) fn rules(list: &[Spanned<DeValue<'_>>]) -> Vec<RetryRule> {
    each(list).map(|(_, fields)| rule(&fields)).collect()
}

fn each<'d>(
    list: &'d [Spanned<DeValue<'d>>],
) -> impl Iterator<Item = (&'d Spanned<DeValue<'d>>, Fields<'d>)> + use<'d> {
    list.iter().filter_map(|item| Some((item, Fields::new(&keys::RETRY_RULE, item.get_ref().as_table()?))))
}

fn rule(fields: &Fields<'_>) -> RetryRule {
    let codes: Vec<i32> = match fields.integer("exit_code") {
        Some(code) => vec![code],
        None => fields.integers("exit_code"),
    };
    let signal = fields.text("signal").and_then(|name| signal_number(ENDING_SIGNALS, name));
    RetryRule {
        ended: match (codes.is_empty(), signal) {
            (false, _) => Some(EndedBy::ExitCode(codes)),
            (true, Some(signal)) => Some(EndedBy::Signal(signal)),
            (true, None) => {
                let memory = fields.bool("out_of_memory").map(|_| EndedBy::OutOfMemory);
                fields.bool("timeout").map(|_| EndedBy::Timeout).or(memory)
            }
        },
        output: fields.text("output").map(str::to_owned),
        retries: fields.integer("retries"),
        retry_delay: fields.duration("retry_delay"),
    }
}

impl Reader<'_, '_> {
    /// What can be wrong in rules whose keys and types are right.
    pub(super) fn check_retry_rules(&mut self, list: &[Spanned<DeValue<'_>>]) {
        for (item, fields) in each(list) {
            let mut ends = ENDS.iter().filter_map(|&name| Some((name, fields.entry(name)?.0)));
            match (ends.next(), ends.next()) {
                (Some((first, _)), Some((second, span))) => {
                    let message = format!("no try ends by both `{first}` and `{second}`");
                    self.faults.add(span, "bad-rule", message, "make two rules of them");
                }
                (None, _) if fields.get("output").is_none() => {
                    let message = "a rule of `retry_on` needs a condition";
                    let help = "add `exit_code`, `signal`, `timeout = true`, `out_of_memory = true` or `output`; for all failures the task's own `retries` and `retry_delay` hold";
                    self.faults.add(item.span(), "bad-rule", message, help);
                }
                _ => {}
            }
            if fields.get("retries").is_none() && fields.get("retry_delay").is_none() {
                let message = "a rule of `retry_on` needs `retries` or `retry_delay`";
                self.faults.add(
                    item.span(),
                    "bad-rule",
                    message,
                    "write `retries = 0` for what is not to be tried again",
                );
            }
            if let Some(codes) = fields.get("exit_code")
                && codes.get_ref().as_array().is_some_and(|codes| codes.is_empty())
            {
                let help = "name the codes, for example `exit_code = [7, 28]`";
                self.faults.add(codes.span(), "bad-value", "`exit_code` is an empty list", help);
            }
            self.check_pattern(&fields);
        }
    }

    fn check_pattern(&mut self, fields: &Fields<'_>) {
        let Some((value, text)) = fields.get("output").zip(fields.text("output")) else { return };
        let fault = match output_pattern(text) {
            Err(error) => format!("`output` is not a regular expression: {error}"),
            Ok(_) if text.is_empty() => "`output` is empty, which every output matches".to_owned(),
            Ok(_) => return,
        };
        let help = "write for example `output = 'timed out|connection reset'`; a character that is meant as it stands takes a `\\` before it, as in `\\(`, and numbers of repetitions must stay small";
        self.faults.add(value.span(), "bad-pattern", fault, help);
    }
}

//! `[scheduler]`: how the next start is chosen, and what does not go together.

use toml::de::DeTable;

use super::Scheduler;
use super::load::duration;
use crate::diagnostic::Diagnostic;
use crate::keytable::{self, Faults};

const HELP: &str =
    "set `max_tis_per_query` to 0, or leave the other one away: passes as Airflow makes them know neither of the two";

/// The faults of a file or a profile.
pub(super) fn check(sections: &DeTable<'_>, faults: &mut Faults<'_>) {
    let Some(scheduler) = sections.get("scheduler").and_then(|scheduler| scheduler.get_ref().as_table()) else {
        return;
    };
    let is_set = |key: &str| {
        let value = scheduler.get(key).and_then(|value| keytable::json(value.get_ref()));
        value.is_some_and(|value| value == true || duration(&value).is_some_and(|it| !it.is_zero()))
    };
    for key in ["fair_share", "priority_ageing"] {
        if let (true, true, Some(value)) = (is_set("max_tis_per_query"), is_set(key), scheduler.get(key)) {
            faults.add(value.span(), "bad-value", message(key), HELP);
        }
    }
}

/// The same of what comes from several sources.
pub(super) fn check_sources(scheduler: &Scheduler, origin: impl Fn(&str) -> String) -> Result<(), Vec<Diagnostic>> {
    let key = match scheduler {
        Scheduler { max_tis_per_query: 0, .. } => return Ok(()),
        Scheduler { fair_share: true, .. } => "fair_share",
        Scheduler { priority_ageing: Some(_), .. } => "priority_ageing",
        _ => return Ok(()),
    };
    Err(vec![Diagnostic::of_file(origin(key), "bad-value", message(key), HELP)])
}

fn message(key: &str) -> String {
    format!("`{key}` and `max_tis_per_query` do not go together")
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use crate::config::ConfigInputs;
    use crate::config::load::settle;

    fn settled(text: &str, environment: &[(&str, &str)]) -> Result<crate::config::Config, Vec<String>> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let inputs = ConfigInputs { home: PathBuf::from("/home/x"), environment, ..ConfigInputs::default() };
        let settled = settle(&inputs, Path::new("airflow.toml"), text.as_bytes());
        settled.map(|loaded| loaded.config).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn both_are_off_until_they_are_written() {
        let text = "[scheduler]\nfair_share = true\npriority_ageing = \"10m\"\n";
        let scheduler = settled(text, &[]).unwrap().scheduler;
        assert_eq!((scheduler.fair_share, scheduler.priority_ageing), (true, Some(std::time::Duration::from_mins(10))));
        let off =
            settled("[scheduler]\nfair_share = false\npriority_ageing = 0\nmax_tis_per_query = 16\n", &[]).unwrap();
        assert_eq!((off.scheduler.fair_share, off.scheduler.priority_ageing), (false, None));
    }

    #[test]
    fn bad_values_are_told_where_they_stand() {
        for (line, place, message) in [
            ("fair_share = 1", "2:14", "wrong-type"),
            ("fair_share = \"yes\"", "2:14", "wrong-type"),
            ("fair_shares = true", "2:1", "did you mean `fair_share`?"),
            ("priority_ageing = -1", "2:19", "bad-duration"),
            ("priority_ageing = \"soon\"", "2:19", "bad-duration"),
            ("priority_ageing = true", "2:19", "wrong-type"),
            ("priority_ageing = 99999999999999999999", "2:19", ""),
            (
                "priority_ageing = \"10m\"\nmax_tis_per_query = 1",
                "2:19",
                "`priority_ageing` and `max_tis_per_query` do not go together",
            ),
            ("max_tis_per_query = 1\nfair_share = true", "3:14", "set `max_tis_per_query` to 0"),
        ] {
            let faults = settled(&format!("[scheduler]\n{line}\n"), &[]).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            let place = format!("airflow.toml:{place}: ");
            assert!(faults[0].starts_with(&place) && faults[0].contains(message), "{line}: {}", faults[0]);
        }
    }

    #[test]
    fn what_comes_from_two_sources_does_not_go_together_either() {
        let rows = ("MINFLOW__SCHEDULER__MAX_TIS_PER_QUERY", "16");
        let faults = settled("[scheduler]\npriority_ageing = \"10m\"\n", &[rows]).unwrap_err();
        assert!(faults[0].starts_with("airflow.toml:2") && faults[0].contains("do not go together"), "{faults:?}");
        assert!(settled("[scheduler]\npriority_ageing = 0\n", &[rows]).is_ok());
    }
}

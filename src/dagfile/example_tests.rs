//! The examples of the documentation: each is a DAG file that is read, and has the runs that the page shows.

use jiff::Timestamp;

use super::*;
use crate::model::dag::Schedule;
use crate::timetable::Timetable;

/// When minflow first sees the DAGs of the page.
const SEEN: &str = "2026-03-27T12:00:00Z";
const SHOWN: usize = 3;

fn read(example: &str) -> Dag {
    let tasks = if example.contains("[tasks.") { "" } else { "[tasks.a]\nempty = true\n" };
    let text = format!("{example}{tasks}");
    parse(Path::new("example.toml"), text.as_bytes(), &Defaults::default())
        .unwrap_or_else(|faults| panic!("{example}: {}", faults[0]))
}

/// The first runs if each is created as soon as it is due.
fn first_runs(dag: &Dag) -> String {
    let zone = dag.schedule_zone();
    let timetable = Timetable::of(dag).unwrap();
    let mut now: Timestamp = SEEN.parse().unwrap();
    let earliest = timetable.earliest(dag.start_date, now, dag.catchup);
    let mut last = None;
    let mut lines = String::new();
    for _ in 0..SHOWN {
        let Some(run) = timetable.next_run(last, earliest, dag.end_date, dag.catchup, now) else { break };
        let local = |at: Timestamp, format: &str| at.to_zoned(zone.clone()).strftime(format).to_string();
        let (start, end) = (run.data_interval.start, run.data_interval.end);
        lines += &local(run.run_after, "%a %Y-%m-%d %H:%M:%S %Z");
        if start != end {
            lines += &format!("  covers {} to {}", local(start, "%a %m-%d %H:%M"), local(end, "%a %m-%d %H:%M"));
        }
        lines += "\n";
        now = now.max(run.run_after);
        last = Some(run.data_interval);
        if dag.schedule == Schedule::Continuous {
            lines += "and the next as soon as it is over\n";
            break;
        }
    }
    lines
}

#[test]
fn the_checked_in_examples_of_schedules_have_the_runs_that_are_shown() {
    let text = include_str!("dag-format.schedules.md");
    let mut generated = String::new();
    let mut shown = 0;
    let parts: Vec<&str> = text.split("```").collect();
    for (at, part) in parts.iter().enumerate() {
        // Between the fences of an example and of its runs stands a line's end.
        if part.starts_with("text\n")
            && let Some(example) = parts[at - 2].strip_prefix("toml\n")
        {
            generated += &format!("```text\n{}", first_runs(&read(example)));
            shown += 1;
        } else {
            generated += &format!("{}{part}", if at == 0 { "" } else { "```" });
        }
    }
    assert!(shown > 10, "the page shows the runs of its examples");
    keytable::assert_checked_in("src/dagfile/dag-format.schedules.md", &generated);
}

#[test]
fn every_example_of_the_page_is_a_dag() {
    let pages = [
        include_str!("dag-format.head.md"),
        include_str!("dag-format.schedules.md"),
        include_str!("dag-format.limits.md"),
        include_str!("dag-format.retries.md"),
        include_str!("dag-format.needs.md"),
        include_str!("dag-format.setup.md"),
        include_str!("dag-format.processes.md"),
        include_str!("dag-format.groups.md"),
        include_str!("dag-format.mapping.md"),
        include_str!("dag-format.deciders.md"),
        include_str!("dag-format.params.md"),
        include_str!("dag-format.templates.md"),
        include_str!("dag-format.venv.md"),
        include_str!("dag-format.xcoms.md"),
        include_str!("dag-format.http.md"),
        include_str!("dag-format.email.md"),
        include_str!("dag-format.docker.md"),
        include_str!("dag-format.assets.md"),
        include_str!("dag-format.sql.md"),
        include_str!("dag-format.sensors.md"),
        include_str!("dag-format.trigger.md"),
    ];
    let examples = pages.iter().flat_map(|page| page.split("```").filter_map(|part| part.strip_prefix("toml\n")));
    let count = examples.map(read).count();
    assert!(count > 12, "{count}");
}

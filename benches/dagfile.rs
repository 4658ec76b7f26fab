//! A DAG file's text to a checked definition. `cargo bench --bench dagfile`.

use std::fmt::Write;
use std::path::Path;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use minflow::dagfile::{self, Defaults};

fn main() {
    divan::main();
}

/// Tasks as people write them: defaults, a template, and edges to up to three tasks before.
fn text(tasks: usize) -> String {
    let mut text = String::from(
        "description = \"Daily sales report\"\nschedule = \"0 6 * * *\"\ntimezone = \"Europe/London\"\ntags = [\"finance\"]\n\n\
         [params]\nregion = \"eu\"\n\n[default_args]\nretries = 2\nretry_delay = \"1m\"\n",
    );
    for task in 0..tasks {
        let _ = writeln!(text, "\n[tasks.step_{task}]\nbash = \"load {{{{ params.region }}}} {{{{ ds }}}}\"");
        let upstream: Vec<String> =
            [1, 2, 5].iter().filter(|&&step| step <= task).map(|step| format!("\"step_{}\"", task - step)).collect();
        let _ = writeln!(text, "depends_on = [{}]\nexecution_timeout = \"10m\"", upstream.join(", "));
    }
    text
}

#[divan::bench(args = [5, 50, 500, 5_000])]
fn parse(bencher: Bencher<'_, '_>, tasks: usize) {
    let (text, defaults) = (text(tasks), Defaults::default());
    bencher
        .counter(ItemsCount::new(tasks))
        .counter(BytesCount::of_str(&text))
        .bench(|| dagfile::parse(Path::new("dags/sales.toml"), text.as_bytes(), &defaults).expect("the text is valid"));
}

/// Groups of ten tasks, ten of them in a group of their own: each task comes after the ones before it, each group after the one
/// before, every other one is mapped over what the group before has given.
fn grouped(tasks: usize) -> String {
    let mut text = String::from("[default_args]\nretries = 2\n");
    for group in 0..tasks / 10 {
        let path = format!("groups.outer_{}.groups.step_{group}", group / 10);
        let _ = writeln!(text, "\n[{path}]\ntooltip = \"step {group}\"\ndefault_args = {{ retry_delay = \"1m\" }}");
        if group % 10 > 0 {
            let before = group - 1;
            let _ = writeln!(text, "depends_on = [\"step_{before}\"]");
            if group % 2 == 0 {
                let _ =
                    writeln!(text, "expand = {{ file = {{ xcom = \"outer_{}.step_{before}.task_9\" }} }}", group / 10);
            }
        }
        for task in 0..10 {
            let upstream: Vec<String> = [1, 2, 5]
                .iter()
                .filter(|&&step| step <= task)
                .map(|step| format!("\"task_{}\"", task - step))
                .collect();
            let _ = writeln!(
                text,
                "[{path}.tasks.task_{task}]\nbash = \"load {{{{ ds }}}}\"\ndepends_on = [{}]",
                upstream.join(", ")
            );
        }
    }
    text
}

#[divan::bench(args = [500, 5_000, 20_000])]
fn parse_groups(bencher: Bencher<'_, '_>, tasks: usize) {
    let (text, defaults) = (grouped(tasks), Defaults::default());
    bencher
        .counter(ItemsCount::new(tasks))
        .counter(BytesCount::of_str(&text))
        .bench(|| dagfile::parse(Path::new("dags/sales.toml"), text.as_bytes(), &defaults).expect("the text is valid"));
}

/// A file whose every task has a mistake: the faults are bounded, and so is their cost.
#[divan::bench]
fn parse_five_hundred_mistakes(bencher: Bencher<'_, '_>) {
    let (text, defaults) = (text(500).replace("execution_timeout", "execution_timeuot"), Defaults::default());
    bencher.bench(|| {
        dagfile::parse(Path::new("dags/sales.toml"), text.as_bytes(), &defaults).expect_err("no task has such a key")
    });
}

//! W7: from a file that has settled to the start of its task, a thousand files at once, and from an asset's event to the next start.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::home::Home;
use crate::measure::Effort;
use crate::rows::Rows;
use crate::table::{Goal, Table, median};

const SETTLE: f64 = 1_000.0;
const FILES: i64 = 1_000;

pub fn files(table: &mut Table, effort: Effort) {
    let rounds = effort.pick(15, 3);
    let home = Home::new(8);
    let folder = home.path().join("in");
    fs::create_dir(&folder).expect("the home can be written");
    let uri = format!("file://{}/*", folder.display());
    home.dag(
        "inbox",
        &format!("schedule = {{ assets = \"inbox\" }}\n[assets.inbox]\nuri = \"{uri}\"\nsettle = 1\n[tasks.eat]\nbash = \"true\"\n"),
    );
    home.dag("maker", "[tasks.make]\nbash = \"true\"\noutlets = [\"made\"]\n");
    home.dag("eater", "schedule = { assets = \"made\" }\n[tasks.next]\nbash = \"true\"\n");
    home.dag("row", "chain = [\"a >> b >> c >> d\"]\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n[tasks.c]\nbash = \"true\"\n[tasks.d]\nbash = \"true\"\n");
    let mut server = home.start(4);
    let rows = Rows::open(home.path());
    let mut starts = Vec::new();
    for round in 0..rounds {
        let path = folder.join(format!("one{round}"));
        fs::write(&path, "x").expect("the home can be written");
        let metadata = fs::metadata(&path).expect("it was just written");
        let written_at = metadata.ctime() as f64 * 1e3 + metadata.ctime_nsec() as f64 / 1e6;
        let count = round as usize + 1;
        let starts_of = |_: &_| Some(rows.starts("eat")).filter(|starts| starts.len() == count);
        let started = server.until("the file's task has begun", Duration::from_millis(5), starts_of);
        starts.extend(started.last().map(|start| start - written_at - SETTLE));
    }
    table.figure("W7 settled file to its task's start", median(&starts), "ms", Goal::AtMost(100.0));
    let before = rows.asset_events();
    for number in 0..FILES {
        fs::write(folder.join(format!("many{number}")), "x").expect("the home can be written");
    }
    let began = Instant::now();
    let all = |_: &_| (rows.asset_events() >= before + FILES).then_some(());
    server.until("all files are counted", Duration::from_millis(2), all);
    let took = began.elapsed().as_secs_f64() - SETTLE / 1e3;
    table.figure("W7 a thousand files at once, behind their settling", took, "s", Goal::AtMost(2.0));
    let mut hops = Vec::new();
    for round in 0..rounds {
        let run_id = server.run("maker");
        let count = round as usize + 1;
        let starts_of = |_: &_| Some(rows.starts("next")).filter(|starts| starts.len() == count);
        let started = server.until("the next DAG has begun", Duration::from_millis(2), starts_of);
        let end = rows.spans("maker", &run_id).last().map(|span| span.end);
        hops.extend(started.last().zip(end).map(|(start, end)| start - end));
    }
    // A task's end to the start of the next one of its own DAG, in the same home.
    let mut gaps = Vec::new();
    for _ in 0..rounds {
        let spans = rows.spans("row", &server.run("row"));
        gaps.extend(spans.windows(2).map(|pair| pair[1].start - pair[0].end));
    }
    let hop = median(&gaps);
    table.figure("W7 a task's end to the next task's start", hop, "ms", Goal::None);
    table.figure("W7 an asset's event to the next DAG's start", median(&hops), "ms", Goal::AtMost(hop + 5.0));
}

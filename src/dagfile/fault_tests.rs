//! Every kind of fault, as it is printed; and that no input whatever does harm.

use proptest::prelude::*;

use super::*;

fn faults(bytes: &[u8]) -> Vec<Diagnostic> {
    let defaults = Defaults { pools: BTreeMap::from([("cpu_intensive".into(), 2)]), ..Defaults::default() };
    parse(Path::new("d.toml"), bytes, &defaults).err().unwrap_or_default()
}

fn printed(bytes: &[u8]) -> String {
    faults(bytes).iter().map(|fault| format!("{fault}\n")).collect()
}

/// A file of pairs: a DAG file between `=====` and `-----`, then all that is printed about it.
fn check_printed(path: &str, cases: &str) {
    let mut generated = String::new();
    for case in cases.split("=====\n").skip(1) {
        let (text, _) = case.split_once("-----\n").unwrap();
        let printed = printed(text.as_bytes());
        assert_ne!(printed, "", "it has a fault: {text}");
        generated += &format!("=====\n{text}-----\n{printed}");
    }
    keytable::assert_checked_in(path, &generated);
}

#[test]
fn the_checked_in_faults_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.txt", include_str!("faults.txt"));
}

#[test]
fn the_checked_in_faults_of_params_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.params.txt", include_str!("faults.params.txt"));
}

#[test]
fn the_checked_in_faults_of_deciders_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.deciders.txt", include_str!("faults.deciders.txt"));
}

#[test]
fn the_checked_in_faults_of_trigger_dag_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.trigger.txt", include_str!("faults.trigger.txt"));
}

#[test]
fn the_checked_in_faults_of_sql_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.sql.txt", include_str!("faults.sql.txt"));
}

#[test]
fn the_checked_in_faults_of_http_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.http.txt", include_str!("faults.http.txt"));
}

#[test]
fn the_checked_in_faults_of_limits_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.limits.txt", include_str!("faults.limits.txt"));
}

#[test]
fn the_checked_in_faults_of_virtual_environments_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.venv.txt", include_str!("faults.venv.txt"));
}

#[test]
fn the_checked_in_faults_of_email_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.email.txt", include_str!("faults.email.txt"));
}

#[test]
fn the_checked_in_faults_of_docker_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.docker.txt", include_str!("faults.docker.txt"));
}

#[test]
fn the_checked_in_faults_of_needs_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.needs.txt", include_str!("faults.needs.txt"));
}

#[test]
fn the_checked_in_faults_of_sensors_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.sensors.txt", include_str!("faults.sensors.txt"));
}

#[test]
fn the_checked_in_faults_of_groups_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.groups.txt", include_str!("faults.groups.txt"));
}

#[test]
fn the_checked_in_faults_of_mappings_are_printed_as_they_stand() {
    check_printed("src/dagfile/faults.mapping.txt", include_str!("faults.mapping.txt"));
}

#[test]
fn what_is_no_text_is_refused_with_the_reason() {
    let cases: [(&[u8], &str); 3] = [
        (
            b"a = 1\nb = \"\xff\"",
            "d.toml: not-utf8: the file is not UTF-8: see byte 11 in line 2\nhelp: save it in the encoding UTF-8\n",
        ),
        (
            b"\x7fELF\0\0",
            "d.toml: binary: the file is binary: it holds a zero byte\nhelp: a TOML file holds text only; is this another kind of file?\n",
        ),
        (
            &vec![b'#'; MAX_BYTES + 1],
            "d.toml: too-large: the file has 4194305 bytes, more than the limit of 4194304\nhelp: keep data and long scripts in files of their own\n",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(printed(bytes), expected);
    }
}

#[test]
fn what_is_nested_too_deeply_is_refused_whatever_the_brackets() {
    let deep = |open: &str, times: usize| format!("params.a = {}", open.repeat(times));
    let texts = [
        deep("[", 1_000),
        deep("[", MAX_BYTES - 20),
        deep("{a=", 1_000),
        format!("[{}a]\n", "a.".repeat(1_000)),
        format!("[{}tasks.t]\nempty = true\n", "groups.g.".repeat(1_000)),
        // Dots and brackets in turns.
        format!("params = {}1{}", "{a.b.c.d = [".repeat(1_000), "]}".repeat(1_000)),
        format!("[groups.a]\n{}", "groups.g = { ".repeat(1_000)),
        format!("{}a = 1\n", "a.".repeat(MAX_BYTES / 2 - 10)),
    ];
    for text in texts {
        let faults = faults(text.as_bytes());
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].code, &*faults[0].message), ("too-deep", "nested deeper than the limit of 64"));
    }
    let groups = |depth: usize| format!("[{}tasks.t]\nempty = true\n", "groups.g.".repeat(depth));
    assert_eq!(printed(groups(31).as_bytes()), "", "groups may be thirty deep");
    let side_by_side = format!("params.a = [{}]\n[tasks.a]\nempty = true\n", "{ b.c.d = [1] }, ".repeat(1_000));
    assert_eq!(printed(side_by_side.as_bytes()), "", "what is closed nests nothing");
    let quoted = format!("# {0}\n[tasks.a]\nbash = '{0}'\ndoc_md = \"\"\"\\\"{0}\"\"\"\n", "[{a.".repeat(1_000));
    assert_eq!(printed(quoted.as_bytes()), "", "brackets in strings and comments nest nothing");
}

#[test]
fn too_many_tasks_or_arrows_are_refused_with_the_limit() {
    let tasks = |count: usize| (0..count).map(|at| format!("[tasks.t{at}]\nempty = true\n")).collect::<String>();
    assert_eq!(
        printed(tasks(MAX_TASKS + 1).as_bytes()),
        "d.toml: too-many-tasks: the DAG has 20001 tasks, more than the limit of 20000\nhelp: split it into several DAGs\n"
    );
    let names: Vec<String> = (0..2_000).map(|at| format!("t{at}")).collect();
    let half = |part: &[String]| format!("[{}]", part.join(","));
    let chain = format!("chain = [\"{} >> {}\"]\n{}", half(&names[..990]), half(&names[990..]), tasks(2_000));
    assert_eq!(printed(chain.as_bytes()), "", "what is within the limit is taken");
    let twice = chain.replace("\"]", &format!("\", \"t0 >> {}\"]", half(&names[1..])));
    assert!(printed(twice.as_bytes()).starts_with("d.toml: too-many-arrows: the DAG has more arrows than the limit"));
}

#[test]
fn a_thousand_faults_are_counted_and_a_hundred_shown() {
    let text: String = (0..1_000).map(|at| format!("x{at} = 1\n")).collect();
    let faults = faults(text.as_bytes());
    assert_eq!(faults.len(), 102);
    assert_eq!(faults[101].message, "900 more faults are not shown");
}

/// Large files, each hostile in its own way; what is quadratic takes minutes. The bound is for a debug build.
#[test]
fn hostile_files_are_answered_soon() {
    let filled = |unit: &str| unit.repeat((1 << 20) / unit.len());
    let distinct: String = (0..30_000).map(|at| format!("[tasks.a.k{at}]\n")).collect();
    let ids: String = (0..MAX_TASKS)
        .map(|at| format!("[tasks.{}{at}]\ndepends_on=[\"{}\"]\n", "a".repeat(50), "b".repeat(50)))
        .collect();
    let files = [
        filled("=\n"),
        filled("[a]\n"),
        filled("a"),
        filled("\"\"\""),
        filled("a=[\n"),
        format!("x=[{}]", filled("[],")),
        "a = 1\n".repeat(40_000),
        distinct,
        ids,
        // Groups of groups, whose every member asks for all the others.
        groups_in_groups(20, 20),
        // Each of many groups comes after each.
        (0..2_000)
            .map(|at| {
                format!("[groups.g{at}]\ndepends_on=['g{}']\n[groups.g{at}.tasks.t]\nempty=true\n", (at + 1) % 2_000)
            })
            .collect(),
        // Teardowns in layers, each after each of the layer before: 50 to the 10 ways lead back.
        teardowns_in_layers(10, 50),
        format!("[tasks.t]\nempty=true\nexpand.x=[{}]", filled("{},")),
        format!("[tasks.t]\nempty=true\nexpand_kwargs=[{}]", filled("{a=1},[],")),
        format!("[tasks.t]\nempty=true\nexpand.x={{ zip=[{}] }}", filled("{xcom='y'},")),
        format!(
            "[tasks.t]\nempty=true\n[tasks.t.expand]\n{}",
            (0..60_000).map(|at| format!("x{at}=[1,2]\n")).collect::<String>()
        ),
        format!("schedule.events=[{}]", filled("1,")),
        format!("schedule.events=[{}]", filled("2026-01-01,")),
        format!("schedule.crons=[{}]", filled("'* * * * *',")),
        format!("schedule='{} * * * *'", filled("1,")),
        format!("timezone='{}'", filled("Europe/")),
    ];
    for file in files {
        let before = own_time();
        assert!(!faults(file.as_bytes()).is_empty());
        let taken = own_time().saturating_sub(before);
        assert!(taken < Duration::from_secs(20), "{:?} took {taken:?}", file.chars().take(20).collect::<String>());
    }
}

/// What this thread has taken of the processors: what others do meanwhile is no part of it.
fn own_time() -> Duration {
    let taken = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(taken.tv_sec as u64, taken.tv_nsec as u32)
}

/// `width` groups in each of `depth` levels, one task in each, and arrows to and from every one. One name is wrong.
fn groups_in_groups(depth: usize, width: usize) -> String {
    let mut text = "chain = ['nobody >> l0']\n".to_owned();
    let mut path = String::new();
    for level in 0..depth {
        path += &format!("groups.l{level}.");
        for at in 0..width {
            let others: String = (0..at).map(|other| format!("'w{other}',")).collect();
            text += &format!("[{path}groups.w{at}]\ndepends_on=[{others}]\n[{path}groups.w{at}.tasks.t]\nempty=true\n");
        }
    }
    text
}

fn teardowns_in_layers(layers: usize, width: usize) -> String {
    let layer = |layer: usize| (0..width).map(|at| format!("t{layer}_{at}")).collect::<Vec<_>>().join(",");
    let names: Vec<String> = (0..layers).map(|at| format!("[{}]", layer(at))).collect();
    let mut text = format!("chain = ['{}', 'g >> x >> nobody']\n", names.join(" >> "));
    text += "[groups.g]\nprefix_group_id=false\n[groups.g.tasks.up]\nempty=true\nsetup=true\n[tasks.x]\nempty=true\n";
    for layer in 0..layers {
        for at in 0..width {
            text += &format!("[groups.g.tasks.t{layer}_{at}]\nempty=true\nteardown_of=['up']\n");
        }
    }
    text
}

const SAMPLE: &str = include_str!("sample.toml");

#[test]
fn the_sample_that_is_mutated_is_a_dag() {
    assert_eq!(printed(SAMPLE.as_bytes()), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_mutated_file_is_a_dag_or_has_faults_at_true_places(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..6, any::<u8>()), 1..6)
    ) {
        let mut bytes = SAMPLE.as_bytes().to_vec();
        for (place, kind, byte) in changes {
            let at = place.index(bytes.len());
            match kind {
                0 if bytes.len() > 1 => { bytes.remove(at); }
                1 => bytes.insert(at, b"[]{}\"'=.,#\n\\->< 0"[byte as usize % 17]),
                2 => bytes[at] = byte,
                3 => bytes.truncate(at.max(1)),
                4 => bytes.splice(at..at, "ä\u{0}".bytes()).for_each(drop),
                _ => { let piece = bytes[at..(at + 30).min(bytes.len())].to_vec(); bytes.extend(piece); }
            }
        }
        let lines = bytes.split(|&byte| byte == b'\n').count() as u32;
        match parse(Path::new("d.toml"), &bytes, &Defaults::default()) {
            Ok(dag) => prop_assert_eq!(dag.tasks.len(), dag.graph.len()),
            Err(faults) => {
                prop_assert!(!faults.is_empty());
                for fault in faults {
                    prop_assert!(fault.line <= lines, "{}", fault);
                    prop_assert!(!fault.to_string().is_empty());
                }
            }
        }
    }
}

//! Groups, setups and teardowns: who is who, and what their arrows come to.

use super::tests::{arrows, read};
use super::*;
use crate::model::graph::{Role, TaskIx};
use crate::model::mapping::GroupIx;
use crate::model::state::TriggerRule;

fn ids(dag: &Dag) -> Vec<&str> {
    dag.tasks.iter().map(|task| &*task.task_id).collect()
}

/// A file with one `empty` task for each name, written as a path of groups: `g/h/t`. What stands behind a blank are its keys.
fn file(head: &str, tasks: &[&str]) -> String {
    let table = |line: &&str| {
        let (path, keys) = line.split_once(' ').unwrap_or((line, ""));
        let header = path
            .rsplit_once('/')
            .map_or(String::new(), |(groups, _)| groups.split('/').map(|group| format!("groups.{group}.")).collect());
        format!("[{header}tasks.{}]\nempty = true\n{keys}\n", path.rsplit('/').next().unwrap())
    };
    format!("{head}\n{}", tasks.iter().map(table).collect::<String>())
}

fn arrows_of(head: &str, tasks: &[&str]) -> String {
    arrows(&read(&file(head, tasks)).unwrap_or_else(|faults| panic!("{head}: {}", faults[0]))).join(" ")
}

fn first_fault(head: &str, tasks: &[&str]) -> String {
    let faults = read(&file(head, tasks)).expect_err(head);
    format!("{}:{}: {}: {}", faults[0].line, faults[0].column, faults[0].code, faults[0].message)
}

#[test]
fn ids_are_prefixed_by_the_groups_that_do_not_refuse_it_and_stand_in_the_order_of_the_file() {
    let text = "
[tasks.first]
empty = true
[groups.a]
tooltip = \"outer\"
[groups.a.groups.b.tasks.x]
empty = true
[groups.a.tasks.x]
empty = true
[groups.bare]
prefix_group_id = false
[groups.bare.tasks.y]
empty = true
[groups.bare.groups.c.tasks.y]
empty = true
[groups.a.groups.plain]
prefix_group_id = false
[groups.a.groups.plain.tasks.z]
empty = true
[tasks.last]
empty = true
";
    let dag = read(text).unwrap();
    assert_eq!(ids(&dag), ["first", "a.b.x", "a.x", "y", "c.y", "z", "last"]);
    let groups: Vec<_> = dag.groups.iter().map(|group| (&*group.group_id, group.parent, &*group.tooltip)).collect();
    let (a, bare) = (Some(GroupIx(0)), Some(GroupIx(3)));
    assert_eq!(groups, [("a", None, "outer"), ("a.b", a, ""), ("a.plain", a, ""), ("bare", None, ""), ("c", bare, "")]);
    let holders: Vec<_> = dag.tasks.iter().map(|task| task.group.map(|group| group.0)).collect();
    assert_eq!(holders, [None, Some(1), Some(0), Some(3), Some(4), Some(2), None]);
}

#[test]
fn default_args_of_the_innermost_group_win() {
    let text = "
[default_args]
retries = 1
owner = \"dag\"
grace = \"1s\"
[groups.a.default_args]
retries = 2
owner = \"outer\"
[groups.a.groups.b.default_args]
retries = 3
[groups.a.groups.b.tasks.own]
empty = true
retries = 4
[groups.a.groups.b.tasks.inner]
empty = true
[groups.a.tasks.outer]
empty = true
[groups.c.tasks.other]
empty = true
";
    let dag = read(text).unwrap();
    let of = |id: &str| {
        let task = dag.task(dag.find(id).unwrap());
        (task.retries, &*task.owner, task.grace.as_secs())
    };
    assert_eq!(of("a.b.own"), (4, "outer", 1));
    assert_eq!(of("a.b.inner"), (3, "outer", 1));
    assert_eq!(of("a.outer"), (2, "outer", 1));
    assert_eq!(of("c.other"), (1, "dag", 1));
}

#[test]
fn an_arrow_from_a_group_leaves_its_leaves_and_one_to_it_meets_its_roots() {
    let group = ["g/a", "g/b depends_on = ['a']", "g/c depends_on = ['a']", "x", "y"];
    assert_eq!(arrows_of("chain = ['x >> g >> y']", &group), "g.a>g.b g.a>g.c g.b>y g.c>y x>g.a");
    assert_eq!(arrows_of("chain = ['y << g << x']", &group), "g.a>g.b g.a>g.c g.b>y g.c>y x>g.a");
    assert_eq!(arrows_of("groups.g.depends_on = ['x']", &group), "g.a>g.b g.a>g.c x>g.a");
    let after = ["g/a", "g/b", "x depends_on = ['g']", "h/c"];
    assert_eq!(arrows_of("chain = ['g >> h', '[x, g] >> h']", &after), "g.a>x g.a>h.c g.b>x g.b>h.c x>h.c");
}

#[test]
fn what_a_group_stands_for_follows_from_all_arrows_inside_it_wherever_they_are_written() {
    let tasks = ["o/i/a", "o/i/b", "o/c", "o/j/d", "x"];
    // The arrows between the inner groups decide what the outer one's roots and leaves are.
    let expected = "o.i.a>o.i.b o.i.b>o.c o.c>o.j.d o.j.d>x";
    let chains = ["'o >> x'", "'o.i >> o.c >> o.j'", "'o.i.a >> o.i.b'"];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let chain: Vec<&str> = order.iter().map(|&at| chains[at]).collect();
        assert_eq!(arrows_of(&format!("chain = [{}]", chain.join(", ")), &tasks), expected);
    }
    let groups = ["o/i/a", "o/j/b", "p/k/c", "p/l/d"];
    let head =
        "groups.p.depends_on = ['o']\ngroups.p.groups.l.depends_on = ['k']\ngroups.o.groups.j.depends_on = ['i']";
    assert_eq!(arrows_of(head, &groups), "o.i.a>o.j.b o.j.b>p.k.c p.k.c>p.l.d");
}

#[test]
fn a_name_is_looked_for_in_the_group_then_around_it_then_as_a_whole() {
    let tasks = |name: &str| -> Vec<String> {
        let list = ["a", "g/a", "g/h/a", "g/h/sub/a", "other/a"];
        list.iter().map(|path| (*path).to_owned()).chain([format!("g/h/t depends_on = ['{name}']")]).collect()
    };
    let cases = [
        ("a", "g.h.a>g.h.t"),
        ("sub.a", "g.h.sub.a>g.h.t"),
        ("sub", "g.h.sub.a>g.h.t"),
        ("h.a", "g.h.a>g.h.t"),
        ("g.a", "g.a>g.h.t"),
        ("g.h.a", "g.h.a>g.h.t"),
        ("other.a", "other.a>g.h.t"),
        ("other", "other.a>g.h.t"),
    ];
    for (name, expected) in cases {
        let tasks = tasks(name);
        let tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
        assert_eq!(arrows_of("", &tasks), expected, "{name}");
    }
    assert_eq!(arrows_of("", &["up", "g/h/t depends_on = ['up']"]), "up>g.h.t", "a name of the file");
    assert_eq!(arrows_of("", &["g/up", "g/h/t depends_on = ['up']"]), "g.up>g.h.t", "a name of the group around");
    // A group's own depends_on stands among its neighbours.
    assert_eq!(arrows_of("groups.g.groups.h.depends_on = ['a']", &["a", "g/a", "g/h/a"]), "g.a>g.h.a");
    // Without a prefix the ids are those of the file, and the nearest is meant all the same.
    let bare = ["g/a", "g/bare/a", "g/bare/t depends_on = ['a']", "g/t depends_on = ['a']"];
    assert_eq!(arrows_of("groups.g.groups.bare.prefix_group_id = false", &bare), "g.a>g.t a>t");
}

#[test]
fn teardowns_are_no_leaves_of_a_group_and_what_stands_before_them_is() {
    let teardown = "g/down teardown_of = ['up']";
    let cases: [(&str, &[&str], &str); 5] = [
        // The work before the teardown is the leaf, its setup is not.
        (
            "'g >> x'",
            &["g/up setup = true", "g/work depends_on = ['up']", "g/down teardown_of = ['up']\ndepends_on = ['work']"],
            "g.work>x",
        ),
        // Work beside it stays a leaf.
        ("'g >> x'", &["g/up setup = true", teardown, "g/work"], "g.work>x"),
        // One teardown behind the other.
        (
            "'g >> x', 'g.work >> g.down >> g.last'",
            &["g/up setup = true", "g/work", teardown, "g/last teardown_of = ['up']"],
            "g.work>x",
        ),
        // Work that has work behind it is not last.
        ("'g >> x', 'g.a >> g.b', 'g.a >> g.down'", &["g/up setup = true", "g/a", "g/b", teardown], "g.b>x"),
        // Its failure counting for the run makes it no leaf of the group.
        (
            "'g >> x', 'g.a >> g.down'",
            &["g/up setup = true", "g/a", "g/down teardown_of = ['up']\non_failure_fail_dagrun = true"],
            "g.a>x",
        ),
    ];
    for (chain, tasks, expected) in cases {
        let tasks: Vec<&str> = tasks.iter().copied().chain(["x"]).collect();
        let arrows = arrows_of(&format!("chain = [{chain}]"), &tasks);
        let to_x: Vec<&str> = arrows.split(' ').filter(|arrow| arrow.ends_with(">x")).collect();
        assert_eq!(to_x.join(" "), expected, "{chain} {tasks:?}");
    }
    let alone = ["up setup = true", "g/down teardown_of = ['up']", "x"];
    assert_eq!(
        first_fault("chain = ['g >> x']", &alone),
        "1:16: bad-group: nothing of the group `g` comes before others: it holds teardowns alone"
    );
    assert_eq!(arrows_of("chain = ['x >> g']", &alone), "up>g.down x>g.down", "a teardown may be a root");
}

#[test]
fn setups_and_teardowns_have_their_roles_rules_and_arrows() {
    let tasks = [
        "up setup = true",
        "other setup = true",
        "work depends_on = ['up']",
        "down teardown_of = ['up', 'other', 'up']\ndepends_on = ['work']\non_failure_fail_dagrun = true",
        "late trigger_rule = 'all_done_setup_success'",
    ];
    let dag = read(&file("default_args.trigger_rule = 'all_success'\nfail_fast = true", &tasks)).unwrap();
    assert!(dag.fail_fast);
    assert_eq!(arrows(&dag), ["up>down", "up>work", "other>down", "work>down"]);
    let node = |id: &str| dag.graph.node(dag.find(id).unwrap());
    assert_eq!(node("up").role, Role::Setup);
    assert_eq!(node("work").role, Role::Work);
    let expected = Role::Teardown { setups: vec![TaskIx(0), TaskIx(1)], on_failure_fail_dagrun: true };
    assert_eq!((&node("down").role, node("down").trigger_rule), (&expected, TriggerRule::AllDoneSetupSuccess));
    assert_eq!((&node("late").role, node("late").trigger_rule), (&Role::Work, TriggerRule::AllDoneSetupSuccess));
    assert!(!read(&file("", &["a"])).unwrap().fail_fast);
}

#[test]
fn arrows_between_large_groups_are_bounded() {
    let tasks = |group: &str, count: usize| -> String {
        (0..count).map(|at| format!("[groups.{group}.tasks.t{at}]\nempty = true\n")).collect()
    };
    let text = format!("chain = ['a >> b']\n{}{}", tasks("a", 1_000), tasks("b", 1_001));
    let faults = read(&text).unwrap_err();
    assert_eq!((faults.len(), faults[0].code), (1, "too-many-arrows"));
    let most = format!("chain = ['a >> b']\n{}{}", tasks("a", 1_000), tasks("b", 1_000));
    assert_eq!(read(&most).unwrap().graph.upstream(TaskIx(1_000)).len(), 1_000);
}

#[test]
fn too_many_groups_are_refused_and_their_tasks_count() {
    let many: String = (0..=MAX_GROUPS).map(|at| format!("[groups.g{at}]\n")).collect();
    assert_eq!(read(&many).unwrap_err()[0].message, "the DAG has 10001 groups, more than the limit of 10000");
    let tasks: String = (0..=MAX_TASKS).map(|at| format!("[groups.g{}.tasks.t{at}]\n", at % 7)).collect();
    assert_eq!(read(&tasks).unwrap_err()[0].message, "the DAG has 20001 tasks, more than the limit of 20000");
}

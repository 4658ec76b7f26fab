//! What mappings are read into, whom they multiply, and what they come after.

use serde_json::{Value, json};

use super::tests::{arrows, read};
use crate::model::dag::{Position, Template};
use crate::model::graph::TaskIx;
use crate::model::mapping::{Form, Input, MAX_INSTANCES, Mapping, MappingIx, XcomInput};
use crate::model::state::TriggerRule;

const UPSTREAM: &str = "[tasks.a]\nempty = true\n[tasks.b]\nempty = true\n";

/// The mapping of a task `t` behind `a` and `b`, with these keys.
fn mapping(keys: &str) -> Mapping {
    let dag = read(&format!("{UPSTREAM}[tasks.t]\nempty = true\n{keys}\n"))
        .unwrap_or_else(|faults| panic!("{keys}: {}", faults[0]));
    assert_eq!(dag.graph.node(TaskIx(2)).mappings, [MappingIx(0)], "{keys}");
    dag.mappings[0].clone()
}

fn input(written: &str) -> Input {
    match mapping(&format!("expand.x = {written}")).form {
        Form::Product(mut inputs) => inputs.remove(0).1,
        Form::Kwargs(_) => panic!("expand makes a product"),
    }
}

fn xcom(task: u32, key: &str) -> Input {
    Input::Xcom(XcomInput { task: TaskIx(task), key: key.to_owned() })
}

fn literal(value: Value) -> Input {
    Input::Literal(value)
}

#[test]
fn an_input_has_all_its_forms() {
    let of_a = || xcom(0, "return_value");
    let cases = [
        ("[1, 'two', { three = [3.5] }]", literal(json!([1, "two", { "three": [3.5] }]))),
        ("[]", literal(json!([]))),
        ("{ one = 1, two = [2] }", literal(json!({ "one": 1, "two": [2] }))),
        ("{}", literal(json!({}))),
        ("{ key = 'data', since = 2026-01-01 }", literal(json!({ "key": "data", "since": "2026-01-01" }))),
        ("{ values = { xcom = 'data' } }", literal(json!({ "xcom": "data" }))),
        ("{ values = [1] }", literal(json!([1]))),
        ("{ xcom = 'a' }", of_a()),
        ("{ xcom = 'b', key = 'files' }", xcom(1, "files")),
        (
            "{ zip = [{ xcom = 'a' }, [1, 2]] }",
            Input::Zip { inputs: vec![of_a(), literal(json!([1, 2]))], fillvalue: None },
        ),
        (
            "{ zip = [[1]], fillvalue = { x = 0 } }",
            Input::Zip { inputs: vec![literal(json!([1]))], fillvalue: Some(json!({ "x": 0 })) },
        ),
        (
            "{ concat = [{ zip = [[1]] }, { xcom = 'b' }] }",
            Input::Concat(vec![
                Input::Zip { inputs: vec![literal(json!([1]))], fillvalue: None },
                xcom(1, "return_value"),
            ]),
        ),
    ];
    for (written, expected) in cases {
        assert_eq!(input(written), expected, "{written}");
    }
}

#[test]
fn map_and_filter_stand_over_any_input_and_know_their_place() {
    let template = |text: &str, column| Template { text: text.to_owned(), at: Position { line: 7, column } };
    let each = |input, map, filter| Input::Each { input: Box::new(input), map, filter };
    let map = || Some(template("{{ item * 2 }}", 39));
    assert_eq!(
        input("{ xcom = 'a',       map = '{{ item * 2 }}', filter = '{{ item > 3 }}' }"),
        each(xcom(0, "return_value"), map(), Some(template("{{ item > 3 }}", 66)))
    );
    assert_eq!(input("{ values = [1],     map = '{{ item * 2 }}' }"), each(literal(json!([1])), map(), None));
    assert_eq!(
        input("{ concat = [[1]], filter = '{{ item }}' }"),
        each(Input::Concat(vec![literal(json!([1]))]), None, Some(template("{{ item }}", 40)))
    );
    let nested = input("{ zip = [{ values = [1], map = 'x' }], map = 'y' }");
    assert!(
        matches!(nested, Input::Each { input, .. } if matches!(&*input, Input::Zip { inputs, .. } if matches!(inputs[0], Input::Each { .. })))
    );
}

#[test]
fn names_keep_the_order_of_the_file_and_partial_stands_beside_them() {
    let found = mapping("expand = { z = [1], a = { xcom = 'a' } }\npartial = { c = [1], b = '{{ ds }}' }");
    let Form::Product(inputs) = &found.form else { panic!("expand makes a product") };
    assert_eq!(inputs, &[("z".to_owned(), literal(json!([1]))), ("a".to_owned(), xcom(0, "return_value"))]);
    assert_eq!(serde_json::to_string(&found.partial).unwrap(), r#"{"c":[1],"b":"{{ ds }}"}"#);
    assert_eq!(found.at, Position { line: 7, column: 1 });
}

#[test]
fn kwargs_come_from_a_list_or_from_any_input() {
    let of = |written: &str| match mapping(&format!("expand_kwargs = {written}")).form {
        Form::Kwargs(input) => input,
        Form::Product(_) => panic!("expand_kwargs makes no product"),
    };
    assert_eq!(of("[{ x = 1 }, {}]"), literal(json!([{ "x": 1 }, {}])));
    assert_eq!(of("{ xcom = 'a', key = 'k' }"), xcom(0, "k"));
    assert_eq!(
        of("{ concat = [[{ x = 1 }], { xcom = 'a' }] }"),
        Input::Concat(vec![literal(json!([{ "x": 1 }])), xcom(0, "return_value")])
    );
    assert!(matches!(of("{ values = [1, 2], map = '{{ {\"x\": item} }}' }"), Input::Each { .. }));
}

#[test]
fn the_task_whose_xcom_is_mapped_over_comes_before() {
    let arrows_of = |text: &str| arrows(&read(text).unwrap_or_else(|faults| panic!("{}", faults[0]))).join(" ");
    let keys = "expand = { x = { zip = [{ xcom = 'b' }, { concat = [{ xcom = 'a' }] }] } }";
    assert_eq!(arrows_of(&format!("{UPSTREAM}[tasks.t]\nempty = true\n{keys}\n")), "a>t b>t");
    let group = "[groups.g]\nexpand.x = { xcom = 'a' }\n[groups.g.tasks.first]\nempty = true\n[groups.g.tasks.second]\nempty = true\ndepends_on = ['first']\n";
    assert_eq!(arrows_of(&format!("{UPSTREAM}{group}")), "a>g.first g.first>g.second");
    // A group that is not mapped does not keep its tasks from each other's lists.
    let plain =
        "[groups.g.tasks.list]\nempty = true\n[groups.g.tasks.each]\nempty = true\nexpand.x = { xcom = 'list' }\n";
    assert_eq!(arrows_of(plain), "g.list>g.each");
}

#[test]
fn what_multiplies_a_task_are_the_groups_around_it_from_the_outside_and_then_itself() {
    let text = "
[groups.o]
expand.x = [1, 2]
[groups.o.groups.plain.groups.i]
expand_kwargs = [{ y = 1 }]
[groups.o.groups.plain.groups.i.tasks.deep]
empty = true
expand.z = [1]
[groups.o.groups.plain.tasks.middle]
empty = true
[tasks.outside]
empty = true
[tasks.own]
empty = true
expand.z = [3]
map_index_template = '{{ z }}'
";
    let dag = read(text).unwrap();
    let of = |id: &str| {
        let mappings = &dag.graph.node(dag.find(id).unwrap()).mappings;
        mappings.iter().map(|at| dag.mappings[at.index()].at.line).collect::<Vec<_>>()
    };
    assert_eq!(of("o.plain.i.deep"), [3, 5, 8]);
    assert_eq!(of("o.plain.middle"), [3]);
    assert_eq!(of("outside"), [0_u32; 0]);
    assert_eq!(of("own"), [15]);
    let named = dag.task(dag.find("own").unwrap()).map_index_template.clone().unwrap();
    assert_eq!((&*named.text, named.at.line), ("{{ z }}", 16));
}

#[test]
fn a_list_in_the_file_is_not_bound_by_max_map_length_but_by_what_a_run_can_hold() {
    let numbers = |count: u64| (0..count).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
    let text = |count: u64| format!("[tasks.t]\nempty = true\nexpand.x = [{}]\n", numbers(count));
    assert!(read(&text(MAX_INSTANCES)).is_ok());
    let faults = read(&text(MAX_INSTANCES + 1)).unwrap_err();
    assert_eq!((faults[0].code, faults[0].line), ("too-many-instances", 1));
    let nested = format!(
        "[groups.g]\nexpand.x = [{}]\n[groups.g.tasks.t]\nempty = true\nexpand.y = [{}]\n",
        numbers(1_000),
        numbers(251)
    );
    assert_eq!(
        read(&nested).unwrap_err()[0].message,
        "task `g.t` would have 251000 instances, more than the limit of 250000"
    );
}

#[test]
fn a_rule_that_waits_for_nothing_may_stand_with_a_list_of_the_file() {
    let dag = read("[tasks.t]\nempty = true\ntrigger_rule = 'always'\nexpand.x = [1]\n").unwrap();
    assert_eq!(dag.graph.node(TaskIx(0)).trigger_rule, TriggerRule::Always);
}

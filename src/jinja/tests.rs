//! What a runaway template is stopped by, and what a template of several files becomes.

use std::collections::BTreeMap;

use super::*;
use crate::jinja::fault::LIMIT;
use crate::jinja::meter::MOST_BYTES;

/// Knows some files and one variable.
#[derive(Default)]
struct World {
    files: BTreeMap<&'static str, &'static str>,
}

impl Outside for World {
    fn variable(&self, name: &str) -> Res<Option<Value>> {
        Ok((name == "who").then(|| Value::text("Ann")))
    }

    fn filter(&self, _: &str) -> Option<Function> {
        None
    }

    fn load(&self, name: &str) -> Res<Option<String>> {
        Ok(self.files.get(name).map(|text| (*text).to_owned()))
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn seed(&self) -> u64 {
        7
    }
}

fn rendered(text: &str) -> String {
    rendered_with(text, &World::default()).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
}

fn rendered_with(text: &str, world: &World) -> Res<String> {
    render(text, None, world, UndefinedKind::Strict)
}

/// Renders on a thread with a stack as small as a worker's, and gives the most that was held.
fn with_small_stack(text: String) -> (Result<usize, (&'static str, String)>, usize) {
    let render = move || {
        let result = rendered_with(&text, &World::default());
        (result.map(|text| text.len()).map_err(|fault| (fault.class, fault.message)), meter::peak())
    };
    // The stack of the executor's workers.
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    thread.spawn(render).unwrap().join().expect("the template does not end the thread")
}

#[test]
fn a_runaway_template_ends_with_an_error_and_has_held_no_more_than_its_bound() {
    let doubling =
        |count: usize| format!("{{% set s = 'xxxxxxxx' %}}{}{{{{ s|length }}}}", "{% set s = s ~ s %}".repeat(count));
    let table: Vec<(&str, String)> = vec![
        ("texts doubled by ~", doubling(40)),
        ("texts doubled by +", doubling(40).replace(" ~ ", " + ")),
        ("texts doubled in a loop", "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}".into()),
        ("lists doubled by +", "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = n.l + n.l %}{% endfor %}".into()),
        ("lists that extend themselves", "{% set l = [1] %}{% for i in range(60) %}{% do l.extend(l) %}{% endfor %}".into()),
        ("a list that grows while it is gone through", "{% set l = [1] %}{% for x in l %}{% do l.append(x) %}{% endfor %}".into()),
        ("a dict that grows", "{% set d = {} %}{% for i in range(90000) %}{% for j in range(90000) %}{% do d.update({i * 90000 + j: 'x' * 100}) %}{% endfor %}{% endfor %}".into()),
        ("a namespace that grows", "{% set n = namespace(d={}) %}{% for i in range(90000) %}{% set n.d = {'a': n.d, 'b': n.d} %}{% endfor %}{{ n.d }}".into()),
        ("values that nest", "{% set n = namespace(l=[]) %}{% for i in range(90000) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}".into()),
        ("values that nest, compared", "{% set n = namespace(l=[]) %}{% for i in range(90000) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l == [n.l] }}".into()),
        ("a list that holds itself", "{% set l = [] %}{% do l.append(l) %}{{ l }}".into()),
        ("loops in loops", "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}".into()),
        ("a macro that calls itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into()),
        ("macros that call each other twice", "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}".into()),
        ("a loop that calls itself", "{% for x in [[1]] recursive %}{{ loop([[x]]) }}{% endfor %}".into()),
        ("macros in a loop", "{% for i in range(100000) %}{% macro m() %}{{ i }}{% endmacro %}{% set x = [m] * 100 %}{{ m() }}{{ m() }}{{ m() }}{% endfor %}".into()),
        ("a huge text", "{{ 'x' * 100000000000 }}".into()),
        ("a huge list", "{{ [0] * 100000000000 }}".into()),
        ("a result that is long", "{% for a in range(1000) %}{{ 'x' * 100000 }}{% endfor %}".into()),
        ("a chain of replacements", format!("{{{{ 'aaaaaaaaaa'{} }}}}", "|replace('a', 'aaaaaaaaaa')".repeat(12))),
        ("replacing nothing", "{{ ('x' * 10000)|replace('', 'y' * 10000) }}".into()),
        ("a long separator", "{{ range(100000)|join('x' * 100000) }}".into()),
        ("a join method", "{{ ('x' * 1000000).join('y' * 1000000) }}".into()),
        ("a deep indent", "{{ ('x\\n' * 100000)|indent(100000) }}".into()),
        ("a wide tab", "{{ ('\\t' * 100000).expandtabs(100000) }}".into()),
        ("wide lines", "{{ ('a ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}".into()),
        ("a big power, again and again", "{% set n = namespace(x=2) %}{% for i in range(100) %}{% set n.x = n.x ** 9 %}{% endfor %}".into()),
        ("many slices", "{{ [1]|slice(100000000000)|list }}".into()),
        ("a filled batch", "{{ [1]|batch(100000000000, 0)|list }}".into()),
        ("much filler", "{{ lipsum(100000000) }}".into()),
        ("an echo", "{% set x %}{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}{% endset %}".into()),
        ("many matches", "{% for i in range(100000) %}{{ ('a' * 100000)|replace('b', 'c')|length }}{% endfor %}".into()),
        ("tuples that nest, as a key", "{% set n = namespace(t=()) %}{% for i in range(90000) %}{% set n.t = (n.t,) %}{% endfor %}{% set d = {n.t: 1} %}".into()),
        ("tuples that double, as a key", "{% set n = namespace(t=()) %}{% for i in range(60) %}{% set n.t = (n.t, n.t) %}{% endfor %}{% set d = {n.t: 1} %}".into()),
        ("large keys in tuples", "{% set a = 'x' * 1000000 %}{% set d = {} %}{% for i in range(1000) %}{% do d.update({(i, a): 1}) %}{% endfor %}".into()),
        ("JSON with a deep indent", "{% set n = namespace(l=[]) %}{% for i in range(60) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l|tojson(indent=1000000) }}".into()),
        ("many lines", "{{ ('\\n' * 20000000).splitlines()|length }}".into()),
        ("many pieces", "{{ ('a' * 20000000).split('a')|length }}".into()),
        ("escapes", "{{ ('<' * 30000000)|e }}".into()),
        ("escapes of JSON", "{{ ('<' * 12000000)|tojson }}".into()),
        ("percent signs", "{{ ('ü' * 16000000)|urlencode }}".into()),
        ("many parameters, again and again", format!("{{% macro m({}) %}}{{% endmacro %}}{{% for i in range(10000) %}}{{{{ m() }}}}{{% endfor %}}", (0..2000).map(|n| format!("a{n}=1")).collect::<Vec<_>>().join(","))),
        ("wide formats", "{% for i in range(100000) %}{% set x = '%1000000d' % i %}{% endfor %}".into()),
    ];
    for (name, text) in table {
        let (result, peak) = with_small_stack(text);
        match result {
            Err((class, message)) => assert!([LIMIT, "OverflowError"].contains(&class), "{name}: {class} {message}"),
            Ok(length) => panic!("{name}: a result of {length} bytes instead of an error"),
        }
        assert!(peak <= MOST_BYTES + (MOST_BYTES >> 2), "{name}: {peak} bytes were held at once");
    }
}

#[test]
fn a_native_value_is_bounded_however_often_it_holds_the_same_text() {
    let refused = native("{{ ['x' * 10000000] * 1000 }}", &World::default(), UndefinedKind::Strict, Literals::Kept);
    assert_eq!(refused.unwrap_err().class, LIMIT);
}

#[test]
fn what_is_out_of_the_ordinary_is_what_python_gives() {
    assert_eq!(
        rendered("{{ 1.5|round(-400) }} {{ [1, 2]|batch(0)|list }} {{ []|batch(0)|list }}"),
        "0.0 [[], [1, 2]] []"
    );
}

#[test]
fn a_width_or_range_that_nobody_means_is_refused() {
    let refused = |text: &str| rendered_with(text, &World::default()).unwrap_err();
    assert!(refused("{{ 'a'.center(10000000) }}").message.contains("too large"));
    assert!(refused("{{ '%10000000d' % 1 }}").message.contains("too large"));
    assert!(refused("{{ '{:10000000}'.format(1) }}").message.contains("too large"));
    assert!(refused("{{ '%.100000f' % 1 }}").message.contains("too large"));
    assert_eq!(refused("{{ (-170141183460469231731687303715884105727 - 1)|abs }}").class, "OverflowError");
    assert!(refused("{{ range(1000000000)|list }}").message.contains("MAX_RANGE"));
}

#[test]
fn what_nests_too_deeply_is_refused_before_it_takes_the_stack() {
    for text in [
        format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("{{{{ 1{} }}}}", " + 1".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ {}true }}}}", "not ".repeat(100_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(100_000)),
        format!("{{{{ 'x'{} }}}}", "|upper".repeat(100_000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(100_000)),
        format!("{}x{}", "{% if 1 %}".repeat(100_000), "{% endif %}".repeat(100_000)),
    ] {
        let shown: String = text.chars().take(40).collect();
        let (result, _) = with_small_stack(text);
        assert!(result.is_err(), "{shown}");
    }
}

#[test]
fn what_an_honest_template_does_stays_far_from_the_bounds() {
    let text = "{% set n = namespace(rows=[]) %}{% for i in range(10000) %}{% do n.rows.append({'id': i, 'name': 'row ' ~ i}) %}\
                {% endfor %}{{ n.rows|map(attribute='name')|join(',')|length }}";
    assert_eq!(rendered(text), "88889");
    assert!(meter::peak() < MOST_BYTES / 2, "{} bytes were held", meter::peak());
}

#[test]
fn all_is_given_back_at_the_end_also_of_what_holds_itself() {
    rendered(
        "{% set l = [] %}{% do l.append(l) %}{% set n = namespace() %}{% set n.me = n %}{% macro m() %}{{ m }}{% endmacro %}{% set s = self %}",
    );
    assert_eq!(meter::live(), 0);
    rendered(
        "{% for i in range(100) %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}{% set d = {} %}{% do d.update(a=d) %}",
    );
    assert_eq!(meter::live(), 0);
}

#[test]
fn templates_include_import_and_extend_each_other() {
    let files = BTreeMap::from([
        ("row.txt", "<{{ who }} {{ n }}>\n"),
        ("tools.txt", "{% macro hello(name) %}hello {{ name }}{{ who is defined }}{% endmacro %}{% set answer = 42 %}"),
        ("base.txt", "[{% block head %}base{% endblock %}|{% block body %}{% endblock %}|{{ self.head() }}]"),
        ("middle.txt", "{% extends 'base.txt' %}{% block head %}middle {{ super() }}{% endblock %}"),
        ("loop.txt", "{% include 'loop.txt' %}"),
        ("wrong.txt", "one\n  {{ nope }}"),
    ]);
    let world = World { files };
    let table = [
        ("{% set n = 3 %}{% include 'row.txt' %}", "<Ann 3>"),
        ("{% include ['absent.txt', 'tools.txt'] %}.", "."),
        ("{% include 'absent.txt' ignore missing %}-", "-"),
        ("{% import 'tools.txt' as tools %}{{ tools.hello('x') }} {{ tools.answer }}", "hello xFalse 42"),
        ("{% from 'tools.txt' import hello as hi with context %}{{ hi('x') }}", "hello xTrue"),
        ("{% extends 'middle.txt' %}noise{% block body %}{{ who }}{% endblock %}", "[middle base|Ann|middle base]"),
    ];
    for (text, wanted) in table {
        assert_eq!(rendered_with(text, &world).unwrap(), wanted, "{text}");
    }
    let absent = rendered_with("{% include 'absent.txt' %}", &world).unwrap_err();
    assert_eq!(absent.class, "TemplateNotFound");
    assert_eq!(rendered_with("{% include 'loop.txt' %}", &world).unwrap_err().class, LIMIT);
    let wrong = rendered_with("x {% include 'wrong.txt' %}", &world).unwrap_err();
    assert_eq!(wrong.place, Some(Place { file: Some("wrong.txt".into()), line: 2, column: 6 }));
}

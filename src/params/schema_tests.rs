use serde_json::json;

use super::*;

fn fits(schema: &Value, value: Value) -> bool {
    check(schema, &value).is_ok()
}

#[test]
fn keywords_judge_as_the_draft_says() {
    let cases = [
        (
            json!({ "type": "integer" }),
            vec![json!(1), json!(5.0)],
            vec![json!(true), json!("1"), json!(1.5), json!(null)],
        ),
        (json!({ "type": "number" }), vec![json!(1.5)], vec![json!(false)]),
        (json!({ "type": ["null", "string"] }), vec![json!(null), json!("")], vec![json!(0)]),
        (json!({ "enum": ["a", 3, [1]] }), vec![json!(3.0), json!([1.0])], vec![json!("b"), json!(true)]),
        (json!({ "enum": [1] }), vec![json!(1)], vec![json!(true)]),
        (json!({ "const": { "a": 1 } }), vec![json!({ "a": 1.0 })], vec![json!({ "a": 2 }), json!({})]),
        (json!({ "multipleOf": 0.1 }), vec![json!(0.5), json!("x")], vec![json!(0.25)]),
        (json!({ "multipleOf": 5 }), vec![json!(-5), json!(5.0)], vec![json!(7)]),
        (json!({ "exclusiveMinimum": 0, "maximum": 2 }), vec![json!(0.1), json!(2)], vec![json!(0), json!(2.1)]),
        (json!({ "minLength": 2, "maxLength": 2 }), vec![json!("äö"), json!(1)], vec![json!("a"), json!("abc")]),
        (
            json!({ "items": { "type": "integer" }, "minItems": 1 }),
            vec![json!([1]), json!("x")],
            vec![json!([]), json!(["a"])],
        ),
        (json!({ "prefixItems": [{ "const": 1 }], "items": false }), vec![json!([1]), json!([])], vec![json!([1, 2])]),
        (json!({ "uniqueItems": true }), vec![json!([1, true, "1"])], vec![json!([1, 1.0]), json!([{}, {}])]),
        (
            json!({ "contains": { "const": 1 }, "maxContains": 2 }),
            vec![json!([1, 2, 1])],
            vec![json!([2]), json!([1, 1, 1])],
        ),
        (json!({ "contains": { "const": 1 }, "minContains": 0 }), vec![json!([])], vec![]),
        (
            json!({ "required": ["x"], "maxProperties": 1 }),
            vec![json!({ "x": 1 }), json!(3)],
            vec![json!({}), json!({ "x": 1, "y": 1 })],
        ),
        (
            json!({ "properties": { "x": { "type": "integer" } }, "patternProperties": { "^y": true }, "additionalProperties": false }),
            vec![json!({ "x": 1, "y2": "s" })],
            vec![json!({ "x": "s" }), json!({ "z": 1 })],
        ),
        (json!({ "propertyNames": { "pattern": "^a" } }), vec![json!({ "ab": 1 })], vec![json!({ "b": 1 })]),
        (
            json!({ "dependentRequired": { "a": ["b"] } }),
            vec![json!({ "b": 1 }), json!({ "a": 1, "b": 1 })],
            vec![json!({ "a": 1 })],
        ),
        (json!({ "dependentSchemas": { "a": { "required": ["b"] } } }), vec![json!({})], vec![json!({ "a": 1 })]),
        (
            json!({ "oneOf": [{ "type": "integer" }, { "minimum": 2 }] }),
            vec![json!(1), json!(2.5)],
            vec![json!(3), json!(0.5)],
        ),
        (json!({ "not": { "type": "null" } }), vec![json!(0)], vec![json!(null)]),
        (
            json!({ "if": { "type": "string" }, "then": { "minLength": 1 }, "else": { "type": "integer" } }),
            vec![json!("a"), json!(1)],
            vec![json!(""), json!([])],
        ),
        (
            json!({ "$defs": { "tree": { "properties": { "next": { "$ref": "#/$defs/tree" } }, "required": ["v"] } }, "$ref": "#/$defs/tree" }),
            vec![json!({ "v": 1, "next": { "v": 2 } })],
            vec![json!({ "v": 1, "next": {} })],
        ),
        (
            json!({ "allOf": [{ "properties": { "a": true } }], "properties": { "b": true }, "unevaluatedProperties": false }),
            vec![json!({ "a": 1, "b": 2 })],
            vec![json!({ "c": 1 })],
        ),
        (
            json!({ "anyOf": [{ "prefixItems": [{ "const": 1 }] }, { "prefixItems": [true, { "const": 2 }] }], "unevaluatedItems": false }),
            vec![json!([1]), json!([0, 2])],
            vec![json!([1, 3])],
        ),
        (json!(false), vec![], vec![json!(null)]),
        (json!({ "type": "string", "format": "date" }), vec![json!("2024-02-29")], vec![json!("2024-02-30")]),
    ];
    for (schema, fitting, others) in cases {
        for value in fitting {
            assert!(fits(&schema, value.clone()), "{value} fits {schema}: {:?}", check(&schema, &value));
        }
        for value in others {
            assert!(!fits(&schema, value.clone()), "{value} does not fit {schema}");
        }
    }
}

#[test]
fn a_mismatch_says_where_what_came_and_what_was_expected() {
    let schema = json!({ "properties": { "hosts": { "items": { "type": "string", "minLength": 2 } } } });
    let told = |schema: &Value, value: Value| {
        let Mismatch { path, came, expected } = check(schema, &value).unwrap_err();
        format!("{path} is {came}, must be {expected}")
    };
    assert_eq!(told(&schema, json!({ "hosts": ["ab", 1] })), ".hosts[1] is 1, must be text");
    assert_eq!(told(&schema, json!({ "hosts": ["a"] })), ".hosts[0] is \"a\", must be text of at least 2 characters");
    let any = json!({ "anyOf": [{ "type": "integer" }, { "required": ["x"], "type": "object" }] });
    assert_eq!(told(&any, json!("q")), " is \"q\", must be one of: an integer; a table");
    let long = told(&json!({ "type": "integer" }), json!("x".repeat(1_000)));
    assert!(long.contains('…') && long.len() < 200, "{long}");
}

#[test]
fn a_schema_that_leads_too_far_refuses_instead_of_running_on() {
    let endless = json!({ "$ref": "#" });
    assert!(check(&endless, &json!(1)).unwrap_err().expected.contains("leads too far"));
    let doubling: Map<String, Value> = (0..60)
        .map(|at| (format!("d{at}"), json!({ "allOf": [{ "$ref": format!("#/$defs/d{}", at + 1) }, { "$ref": format!("#/$defs/d{}", at + 1) }] })))
        .chain([("d60".to_owned(), json!({}))])
        .collect();
    assert!(check(&json!({ "$defs": doubling, "$ref": "#/$defs/d0" }), &json!(1)).is_err());
}

use serde_json::json;

use super::*;

#[test]
fn a_command_is_a_list_a_literal_list_or_words() {
    let cases = [
        (json!(["sh", "-c", "echo hi", ""]), vec!["sh", "-c", "echo hi", ""]),
        (json!("['sh', \"-c\", 'a b']"), vec!["sh", "-c", "a b"]),
        (json!(" [\n 'sh',\n 1,\n]\n"), vec!["sh", "1"]),
        (json!("sh -c 'a b'"), vec!["sh", "-c", "a b"]),
        (json!("  "), vec![]),
        (Value::Null, vec![]),
    ];
    for (given, words) in cases {
        assert_eq!(command(Some(&given)).unwrap(), words, "{given}");
    }
    assert_eq!(command(None), Ok(Vec::new()));
    assert!(command(Some(&json!("[sh, -c]"))).unwrap_err().contains("not a list as Python writes it"));
    assert!(command(Some(&json!("['a'"))).unwrap_err().contains("not a list as Python writes it"));
    assert!(command(Some(&json!("echo 'a"))).unwrap_err().contains("a quote `'` in it is not closed"));
}

#[test]
fn a_value_that_no_line_of_a_file_can_hold_goes_another_way() {
    let long = "x".repeat(MAX_LINE);
    let fields = json!({ "environment": {
        "A": " spaced = value # kept ", "LINES": "a\nb", "RETURN": "a\r", "EMPTY": "", "LONG": long.clone(),
    } });
    let (lines, more) = variables(fields.as_object().unwrap());
    assert_eq!(lines, "A= spaced = value # kept \nEMPTY=\n");
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(more, [pair("LINES", "a\nb"), pair("RETURN", "a\r"), pair("LONG", &long)]);
    assert_eq!(variables(&Map::new()), (String::new(), Vec::new()));
}

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::mask::Gathered;
use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn given(variables: &[(&str, &str)], connections: &[(&str, &str, Option<Credential>)]) -> Given {
    let variable = |(name, text): &(&str, &str)| {
        ((*name).to_owned(), GivenVariable { text: (*text).to_owned(), origin: "airflow.toml:1".to_owned() })
    };
    let connection = |(name, uri, credential): &(&str, &str, Option<Credential>)| {
        let connection = Connection::from_uri(uri).unwrap();
        let origin = "airflow.toml:2".to_owned();
        ((*name).to_owned(), GivenConnection { connection, credential: credential.clone(), origin })
    };
    Given {
        variables: variables.iter().map(variable).collect(),
        connections: connections.iter().map(connection).collect(),
        sensitive: Sensitive::default(),
        hidden: Vec::new(),
    }
}

fn masker(secrets: &[&str]) -> Masker {
    let mut gathered = Gathered::default();
    secrets.iter().for_each(|secret| gathered.add(secret));
    gathered.masker(Sensitive::default())
}

#[test]
fn the_environment_comes_before_the_file() {
    let given = given(&[("Region", "eu"), ("Only", "file")], &[("db", "postgres://file-host", None)]);
    let secrets = Secrets::new(
        given,
        environment(&[
            ("AIRFLOW_VAR_REGION", "us"),
            ("AIRFLOW_VAR_MORE", ""),
            ("AIRFLOW_CONN_DB", "postgres://environment-host"),
            ("AIRFLOW_CONN_EMPTY", ""),
            ("PATH", "/bin"),
        ]),
    );
    assert_eq!(secrets.variable("Region"), Some("us"));
    assert_eq!(secrets.variable("region"), Some("us"));
    assert_eq!(secrets.variable("Only"), Some("file"));
    assert_eq!(secrets.variable("only"), None);
    assert_eq!(secrets.variable("more"), Some(""));
    assert_eq!(secrets.connection("db").unwrap().unwrap().host.as_deref(), Some("environment-host"));
    assert_eq!(secrets.connection("empty"), Ok(None));
    assert_eq!(secrets.connection("missing"), Ok(None));
    let listed: Vec<_> = secrets.variables().into_iter().map(|listed| (listed.name, listed.origin)).collect();
    let expected = [("Only", "airflow.toml:1"), ("Region", "AIRFLOW_VAR_REGION"), ("more", "AIRFLOW_VAR_MORE")];
    assert_eq!(listed, expected.map(|(name, origin)| (name.to_owned(), origin.to_owned())));
    let listed: Vec<_> = secrets.connections().into_iter().map(|listed| (listed.name, listed.origin)).collect();
    assert_eq!(listed, [("db".to_owned(), "AIRFLOW_CONN_DB".to_owned())]);
}

#[test]
fn a_connection_of_the_environment_that_does_not_parse_is_named_when_it_is_asked_for_and_hidden_whole() {
    let text = "spark://user:hunter2@local[*]";
    let secrets = Secrets::new(Given::default(), environment(&[("AIRFLOW_CONN_SPARK", text)]));
    let error = secrets.connection("spark").unwrap_err().to_string();
    assert!(error.starts_with("AIRFLOW_CONN_SPARK is no connection: what stands in its brackets"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    assert_eq!(secrets.masker().mask(&format!("bad: {text}!")), "bad: ***!");
}

#[test]
fn a_password_comes_from_a_file_or_a_variable_and_is_read_anew_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    fs::write(&path, "from-file\r\n").unwrap();
    let given = given(
        &[],
        &[
            ("of_file", "x://u@h", Some(Credential::File(path.clone()))),
            ("of_variable", "x://u@h", Some(Credential::Environment("DB_PASSWORD".to_owned()))),
            ("of_nothing", "x://u@h", Some(Credential::Environment("NOT_SET".to_owned()))),
        ],
    );
    let secrets = Secrets::new(given, environment(&[("DB_PASSWORD", "from-variable")]));
    let password = |id: &str| secrets.connection(id).map(|found| found.unwrap().password.unwrap());
    assert_eq!(password("of_file").unwrap(), "from-file");
    assert_eq!(password("of_variable").unwrap(), "from-variable");
    assert_eq!(secrets.masker().mask("from-file from-variable changed"), "*** *** changed");
    fs::write(&path, "changed").unwrap();
    assert_eq!(password("of_file").unwrap(), "changed");
    assert_eq!(secrets.masker().mask("from-variable changed"), "*** ***");
    fs::remove_file(&path).unwrap();
    let error = password("of_file").unwrap_err().to_string();
    assert!(error.starts_with("connection `of_file` (airflow.toml:2): its `password_file` `"), "{error}");
    let error = password("of_nothing").unwrap_err().to_string();
    assert!(error.contains("names NOT_SET, which is not set; set NOT_SET in the environment"), "{error}");
}

#[test]
fn a_password_file_is_a_small_plain_file() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    fs::write(&large, vec![b'x'; 70_000]).unwrap();
    for path in [folder.path().to_owned(), large] {
        let given = given(&[], &[("db", "x://h", Some(Credential::File(path)))]);
        let error = Secrets::new(given, []).connection("db").unwrap_err().to_string();
        assert!(error.contains("is no file of at most 65536 bytes"), "{error}");
    }
}

#[test]
fn names_are_sensitive_as_in_airflow() {
    let sensitive = Sensitive::with(" Pin , ");
    for name in ["db_password", "PASSWORD", "my-api_key", "x_token_y", "proxies", "Authorization", "the_pin_code"] {
        assert!(sensitive.hides(name), "{name}");
    }
    for name in ["pass", "key", "user", "", "greeting"] {
        assert!(!sensitive.hides(name), "{name}");
    }
    assert!(!Sensitive::default().hides("the_pin_code"));
}

#[test]
fn secrets_of_every_kind_are_hidden_and_short_ones_are_not() {
    let variables = [
        ("plain", "visible-value"),
        ("api_key", "key-value-1"),
        ("short_token", "abcd"),
        ("default_password", "airflow"),
        ("cfg", r#"{"host": "visible-host", "password": "inner-pass", "deep": [{"token": "deep-token"}]}"#),
        ("secret_list", r#"["first-of-list", 123456]"#),
    ];
    let uri = "x://user-name:p%40ss%2Fword@host/?region=visible&secret_key=extra-key";
    let secrets = Secrets::new(given(&variables, &[("db", uri, None)]), []);
    let cases = [
        ("visible-value visible-host user-name visible", None),
        ("abcd airflow", None),
        ("key-value-1", Some("***")),
        ("inner-pass, deep-token", Some("***, ***")),
        ("first-of-list 123456", Some("*** ***")),
        ("p@ss/word and in a URI p%40ss%2Fword", Some("*** and in a URI ***")),
        ("extra-key", Some("***")),
    ];
    for (text, masked) in cases {
        assert_eq!(secrets.masker().mask(text), masked.unwrap_or(text));
    }
}

#[test]
fn a_value_is_hidden_whole_under_a_secret_name() {
    let masker = masker(&["hunter22"]);
    let value = json!({
        "user": "ann", "note": "it is hunter22", "password": "x", "count": 7,
        "tokens": { "a": ["b", 1, null, true], "c": "d" },
    });
    assert_eq!(
        masker.redact("", &value),
        json!({
            "user": "ann", "note": "it is ***", "password": "***", "count": 7,
            "tokens": { "a": ["***", "***", null, true], "c": "***" },
        })
    );
    assert_eq!(masker.redact("env.API_TOKEN", &Value::from("x")), Value::from("***"));
}

#[test]
fn the_longest_secret_is_hidden_first_and_forms_of_it_are_too() {
    let masker = masker(&["secret", "secret-and-more", "with \"quotes\" é"]);
    assert_eq!(masker.mask("secret-and-more, secret-and"), "***, ***-and");
    assert_eq!(masker.mask(&json!(["with \"quotes\" é"]).to_string()), "[\"***\"]");
    assert_eq!(masker.mask(r#"with \"quotes\" \u00e9"#), "***");
    assert_eq!(masker.mask("with%20%22quotes%22%20%C3%A9"), "***");
}

#[test]
fn debug_output_shows_no_secret() {
    let secrets = Secrets::new(
        given(&[("api_key", "variable-secret")], &[("db", "x://u:password-secret@h/?k=extra-secret", None)]),
        environment(&[("AIRFLOW_CONN_X", "x://u:environment-secret@h")]),
    );
    let shown = format!("{secrets:?} {:?} {:?}", secrets.connection("db"), secrets.masker());
    assert!(!shown.contains("-secret"), "{shown}");
}

#[test]
fn json_is_written_as_python_writes_it() {
    let cases = [
        (json!({ "a": [1, 2.5, true, null], "b": {} }), r#"{"a": [1, 2.5, true, null], "b": {}}"#),
        (json!("é\u{1f600}\n\u{7f}\"\\"), r#""\u00e9\ud83d\ude00\n\u007f\"\\""#),
        (json!([1e100, 1e-7, 1.5e16]), "[1e+100, 1e-07, 1.5e+16]"),
    ];
    for (value, expected) in cases {
        assert_eq!(dumps(&value), expected);
    }
}

proptest! {
    #[test]
    fn a_log_in_pieces_is_masked_as_a_whole_one(
        text in "[abc]{0,60}",
        cuts in prop::collection::vec(0..60_usize, 0..8),
        secrets in prop::collection::vec("[abc]{5,9}", 0..4),
    ) {
        let masker = Arc::new(masker(&secrets.iter().map(String::as_str).collect::<Vec<_>>()));
        let mut scrubber = Scrubber::new(masker.clone());
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let (mut shown, mut from) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([text.len()]) {
            shown.extend_from_slice(&scrubber.push(&text.as_bytes()[from..cut]));
            from = cut;
        }
        shown.extend(scrubber.finish());
        prop_assert_eq!(String::from_utf8(shown).unwrap(), masker.mask(&text));
    }

    #[test]
    fn no_secret_is_left_in_a_masked_text(
        text in "[abcé]{0,60}",
        secrets in prop::collection::vec("[abcé]{5,9}", 0..4),
    ) {
        let masker = masker(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        let masked = masker.mask(&text);
        for secret in &secrets {
            prop_assert!(!masked.contains(secret.as_str()), "{} is left in {}", secret, masked);
        }
    }

    #[test]
    fn what_a_connection_prints_it_reads_back(
        fields in prop::collection::btree_map("host|login|password|schema", "[ -~é]{1,12}", 0..4),
        port in prop::option::of(1..65_536_i64),
        extra in prop::option::of(prop::collection::btree_map("[ -~é]{0,5}", "[ -~é]{0,5}", 1..4)),
    ) {
        let field = |name: &str| fields.get(name).cloned();
        // Two protocols, or a host that says its own, are taken apart by other rules.
        prop_assume!(!fields.values().any(|text| text.contains("://")));
        let extra = extra.map(|pairs: BTreeMap<String, String>| dumps(&json!(pairs)));
        let connection = Connection {
            conn_type: Some("some_type".to_owned()),
            description: None,
            // The parser's own ideas of case hold for hosts.
            host: Some(field("host").unwrap_or_default().to_lowercase()),
            login: field("login").or_else(|| (field("password").is_some() || (port.is_some() && field("host").is_none())).then(String::new)),
            password: field("password"),
            schema: Some(field("schema").unwrap_or_default()),
            port,
            extra,
        };
        let uri = connection.uri();
        prop_assert_eq!(Connection::from_uri(&uri).map(|read| read.uri()), Ok(uri.clone()));
        let read = Connection::from_uri(&uri).unwrap();
        prop_assert!(read == connection, "{uri}");
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in "\\PC{0,40}", uri in "[a:/@\\[\\]?#%&=.0-9é]{0,30}") {
        let _ = Connection::parse(&text);
        let _ = Connection::from_uri(&uri).map(|connection| connection.uri());
        let _ = Connection::from_json(&uri);
    }
}

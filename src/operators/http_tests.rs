use super::*;
use serde_json::json;

/// One connection, and nothing else.
struct One(&'static str);

impl Lookup for One {
    fn connection(&self, id: &str) -> Result<Option<Connection>, String> {
        if id == "api" { Connection::parse(self.0).map(Some).map_err(|error| error.message) } else { Ok(None) }
    }
}

fn made(connection: &'static str, fields: Value) -> Result<HttpTask, String> {
    task(fields.as_object().unwrap(), &One(connection), Path::new("/home"))
}

#[test]
fn a_connection_gives_address_login_headers_and_settings() {
    let cases = [
        ("http://h", "v1/a", "http://h/v1/a"),
        ("http://h:8080/", "/a", "http://h:8080/a"),
        ("https://h/v1", "a", "https://h/v1/a"),
        ("https://h", "", "https://h/"),
        ("http://h/https", "a?b=1", "https://h/a?b=1"),
        ("http://https%3A%2F%2Fh", "a", "https://h/a"),
        ("http://h", "http://h:80/x", "http://h:80/x"),
    ];
    for (connection, url, expected) in cases {
        let task = made(connection, json!({ "connection": "api", "url": url })).unwrap();
        assert_eq!(task.request.url, expected, "{connection} {url}");
    }
    let connection = "http://me:pass%40word@h?X-Key=k&timeout=7&verify=false";
    let request = made(connection, json!({ "connection": "api", "url": "a" })).unwrap().request;
    let header = |name: &str| request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(header("Authorization"), Some("Basic bWU6cGFzc0B3b3Jk"));
    assert_eq!((header("X-Key"), header("verify")), (Some("k"), None));
    assert_eq!((request.timeout, request.trust), (Duration::from_secs(7), Trust::Anybody));
}

#[test]
fn what_a_connection_cannot_be_used_for_is_said() {
    let error =
        |connection, id: &str, url: &str| made(connection, json!({ "connection": id, "url": url })).unwrap_err();
    assert!(error("http://h", "apo", "a").starts_with("there is no connection `apo`: add it"));
    assert!(error("postgres://h", "api", "a").starts_with("connection `api` is of the type `postgres`"));
    let elsewhere = error("https://me:secret@h", "api", "https://other/a");
    assert!(
        elsewhere.starts_with("`https://other/a` is not at the address of connection `api`, https://h/"),
        "{elsewhere}"
    );
    assert!(error("http://h?cert=a.pem", "api", "a").contains("has `cert` or `proxies`"));
    assert!(
        made("http://h", json!({ "url": "v1/a" })).unwrap_err().contains("does not begin with http:// or https://")
    );
}

#[test]
fn bodies_and_queries_are_what_their_kind_says() {
    let request = |fields| made("", fields).unwrap().request;
    let of = |request: &Request, name: &str| {
        request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let json = request(json!({ "url": "http://h", "json": { "a": [1, "ä"] } }));
    assert_eq!(
        (json.body.as_deref(), of(&json, "Content-Type").as_deref()),
        (Some("{\"a\":[1,\"ä\"]}"), Some("application/json"))
    );
    let form = request(json!({ "url": "http://h", "body": { "a": "x y", "b": [1, 2], "c": null } }));
    assert_eq!(form.body.as_deref(), Some("a=x+y&b=1&b=2"));
    let text = request(
        json!({ "url": "http://h", "body": "x", "headers": { "content-type": "text/csv" }, "params": { "q": true } }),
    );
    assert_eq!((text.body.as_deref(), of(&text, "Content-Type"), &*text.url), (Some("x"), None, "http://h/?q=true"));
}

#[test]
fn base64_fills_up_its_last_four() {
    let all = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
    assert_eq!(all, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
}

use proptest::prelude::*;

use super::*;

/// What comes of a text that is all there at once: the request that is handed on, or the status of the refusal.
fn judge(text: &str) -> Result<Option<String>, String> {
    told(examine(text.as_bytes(), &mut Look::default()))
}

fn told(judged: Result<Option<Plain>, Vec<u8>>) -> Result<Option<String>, String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let plain = judged.map_err(|refusal| text(refusal)[9..12].to_owned())?;
    Ok(plain.map(|plain| text(plain.request)))
}

#[test]
fn what_is_whole_is_handed_on_in_plain_form() {
    let given = "HEAD /status?dag_id=a HTTP/1.0\r\nhost: localhost:8080\r\nConnection: keep-alive, Upgrade\r\nX-Any: \t b\r\n\
                 ORIGIN:http://localhost:8080 \r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
    let plain = examine(given.as_bytes(), &mut Look::default()).unwrap().unwrap();
    assert!(plain.is_head);
    let expected = "HEAD /status?dag_id=a HTTP/1.1\r\nhost: localhost:8080\r\nORIGIN: http://localhost:8080\r\n\r\n";
    assert_eq!(String::from_utf8(plain.request).unwrap(), expected);
    // Each Host: the route refuses two.
    let two = judge("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").unwrap().unwrap();
    assert_eq!(two, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let get = |headers: &str| judge(&format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n"));
    for length in ["+3", "-1", "", "3, 3", "3 3", "0x3", "3\r\nContent-Length: 3", "3\r\ncontent-length: 4"] {
        assert_eq!(get(&format!("Content-Length: {length}")), Err("400".to_owned()), "{length}");
    }
    for coding in
        ["Transfer-Encoding: chunked", "Content-Length: 3\r\nTRANSFER-ENCODING: chunked", "transfer-encoding: x"]
    {
        assert_eq!(get(coding), Err("501".to_owned()), "{coding}");
    }
    for header in
        ["no colon", ": empty", "Host : a", " folded: a", "a: b\r\n folded", "a\u{e4}: b", "(a): b", "a: \u{7f}"]
    {
        assert_eq!(get(header), Err("400".to_owned()), "{header:?}");
    }
    for line in [
        "GET /",
        "GET / HTTP/1.1 x",
        "GET  / HTTP/1.1",
        "G\u{e4}T / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET /\u{e4} HTTP/1.1",
        "",
    ] {
        assert_eq!(judge(&format!("{line}\r\nHost: a\r\n\r\n")), Err("400".to_owned()), "{line:?}");
    }
    for version in ["HTTP/2", "HTTP/1.2", "HTTP/0.9", "http/1.1"] {
        assert_eq!(judge(&format!("GET / {version}\r\n\r\n")), Err("505".to_owned()), "{version}");
    }
    assert_eq!(judge("GET / HTTP/1.1\nHost: a\n\n"), Ok(None));
    assert_eq!(judge("GET / HTTP/1.1\r\nA: b\nContent-Length: 3\r\n\r\n"), Err("400".to_owned()));
    assert_eq!(judge("\u{16}\u{3}\u{1}"), Err("400".to_owned()));
}

#[test]
fn a_head_and_a_body_are_bounded() {
    let head = |length: usize| {
        let fixed = "GET / HTTP/1.1\r\nA: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(length - fixed))
    };
    assert!(judge(&head(MAX_HEAD)).unwrap().is_some());
    assert_eq!(judge(&head(MAX_HEAD + 1)), Err("431".to_owned()));
    assert_eq!(judge(&head(MAX_HEAD + 5)[..MAX_HEAD + 1]), Err("431".to_owned()));
    let body = |length: &str| judge(&format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(body(&MAX_BODY.to_string()), Ok(None));
    for length in [&(MAX_BODY + 1).to_string(), "18446744073709551615", "99999999999999999999999"] {
        assert_eq!(body(length), Err("413".to_owned()), "{length}");
    }
}

proptest! {
    #[test]
    fn pieces_mean_what_the_whole_means(
        text in prop_oneof![
            "[A-Z]{1,5} /[a-z]{0,9} HTTP/1\\.[01]\r\n(Host: [a-z]{1,9}\r\n){0,2}(Content-Length: [0-9]{1,2}\r\n){0,2}\r\n[a-z]{0,99}",
            "[A-Z :/\r\n\t0-9]{0,60}",
        ],
        cuts in prop::collection::vec(1_usize..20, 1..60),
    ) {
        let bytes = text.as_bytes();
        let mut look = Look::default();
        let (mut end, mut cuts) = (0, cuts.into_iter().cycle());
        let by_pieces = loop {
            end = (end + cuts.next().unwrap()).min(bytes.len());
            let judged = told(examine(&bytes[..end], &mut look));
            if end == bytes.len() || judged != Ok(None) {
                break judged;
            }
        };
        prop_assert_eq!(by_pieces, judge(&text));
    }

    #[test]
    fn nothing_makes_it_fall_and_what_is_handed_on_is_one_request(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut request = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        request.extend(bytes);
        request.extend(b"\r\n\r\n");
        if let Ok(Some(plain)) = examine(&request, &mut Look::default()) {
            let text = String::from_utf8(plain.request).unwrap();
            prop_assert!(text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1);
            prop_assert!(text.starts_with("GET / HTTP/1.1\r\nHost: a\r\n"));
        }
    }
}

#[test]
fn an_answer_has_its_end_where_its_length_says() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
    for end in 0..whole.len() {
        assert!(!is_whole(&whole.as_bytes()[..end], false).unwrap(), "{end}");
    }
    assert!(is_whole(whole.as_bytes(), false).unwrap());
    assert!(is_whole(&whole.as_bytes()[..whole.len() - 2], true).unwrap());
    for broken in [whole.replace('2', "1"), whole.replace("Content", "Some"), whole.replace(": 2", ": x")] {
        assert!(is_whole(broken.as_bytes(), false).is_err(), "{broken}");
    }
}

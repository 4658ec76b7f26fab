use super::*;
use crate::api::testing::{get, site};
use crate::model::{ProcessIdentity, TaskState};
use crate::scheduler::explain::{Finding, Holder};

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

#[test]
fn status_has_exactly_the_promised_fields() {
    let answer = answer(&site(2), &get("/status"));
    assert_eq!((answer.status, answer.content_type), (200, JSON));
    let shown = body(&answer);
    let fields: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields.join(" "),
        "status version pid uptime_seconds home scheduler tasks pools dag_counts dags import_errors recent_failures missed_deadlines recent_callback_failures waiting running host"
    );
    assert_eq!(shown["dags"][1]["dag_id"], "dag_1");
    assert_eq!(shown["status"], "healthy");
}

#[test]
fn status_tells_when_a_holder_usually_ends_and_what_a_running_task_has_used() {
    let since = Timestamp::now() - Duration::from_secs(30);
    let holder = Holder {
        dag_id: "etl".into(),
        run_id: "r".into(),
        task_id: Some("load".into()),
        map_index: -1,
        state: "running".to_owned(),
        units: 1,
        since: Some(since),
        expected_end: None,
    };
    let finding = Finding { gate: Some("pool_full".to_owned()), held_by: vec![holder], wants: 1, ..Finding::default() };
    let waits = TaskFinding {
        dag_id: "etl".into(),
        run_id: "r".into(),
        task_id: "next".into(),
        map_index: -1,
        state: TaskState::Scheduled,
        try_number: 1,
        finding,
    };
    let running = RunningTry {
        dag_id: "etl".into(),
        run_id: "r".into(),
        task_id: "load".into(),
        map_index: 3,
        try_number: 2,
        started_at: Some(since),
        // Nobody has this number.
        process: ProcessIdentity { pid: i32::MAX, start_ticks: 1, boot_id: "boot".to_owned() },
        is_paused: true,
    };
    let present = Present { waiting: Some(vec![waits]), running: Some(vec![running]) };
    let site = Site { present: Box::new(move |_| present.clone()), ..site(1) };
    let shown = body(&answer(&site, &get("/status")));
    let waits = &shown["waiting"][0];
    let end = json!(json::Instant(since + Duration::from_secs(90)));
    assert_eq!(
        [&waits["until"], &waits["held_by"][0]["expected_end"], &waits["is_expected"]],
        [&end, &end, &json!(true)]
    );
    assert!(waits["line"].as_str().unwrap().contains("; should clear "), "{waits}");
    let fields: Vec<&str> = shown["running"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields.join(" "),
        "dag_id run_id task_id map_index try_number start_date is_paused pid memory processes user_cpu system_cpu max_rss read_bytes \
         write_bytes voluntary_switches involuntary_switches"
    );
    assert_eq!([&shown["running"][0]["is_paused"], &shown["running"][0]["memory"]], [&json!(true), &Value::Null]);
    let page = String::from_utf8(answer(&site, &get("/")).body).unwrap();
    assert!(page.contains("<h2 id=\"running\">Running</h2>") && page.contains("etl.load[3]"), "{page}");
}

#[test]
fn a_dag_id_selects_that_dag_or_none() {
    let site = site(3);
    assert_eq!(body(&answer(&site, &get("/status?dag_id=dag%5F2")))["dags"].as_array().unwrap().len(), 1);
    let unknown = answer(&site, &get("/status?dag_id=nope"));
    assert_eq!((unknown.status, body(&unknown)["dags"].as_array().unwrap().len()), (200, 0));
}

#[test]
fn a_bad_query_names_the_parameter() {
    for (target, named) in [("/status?dagid=x", "`dagid`"), ("/health?x=1", "`x`"), ("/status?dag_id=%f", "`dag_id`")] {
        let refused = answer(&site(1), &get(target));
        assert_eq!((refused.status, refused.content_type), (400, "application/problem+json"), "{target}");
        assert!(body(&refused)["detail"].as_str().unwrap().contains(named), "{target}");
    }
}

#[test]
fn an_unknown_path_is_told_the_known_ones() {
    let missing = answer(&site(1), &get("/stats"));
    assert_eq!(missing.status, 404);
    assert!(body(&missing)["detail"].as_str().unwrap().contains("/status, /health"));
    assert_eq!(body(&answer(&site(1), &get("/api/v2/dags"))), json!({"error": "API route not found"}));
}

#[test]
fn http_changes_nothing() {
    let request = Request { method: "POST".to_owned(), ..get("/status") };
    let refused = answer(&site(1), &request);
    assert_eq!((refused.status, &refused.headers[..]), (405, &[("Allow", "GET, HEAD".to_owned())][..]));
}

#[test]
fn only_our_own_names_and_pages_are_answered() {
    let ask = |hosts: &[&str], origin: Option<&str>| {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        answer(&site(1), &Request { hosts, origin: origin.map(str::to_owned), ..get("/health") }).status
    };
    for host in ["localhost:8080", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"] {
        assert_eq!(ask(&[host], Some(&format!("http://{host}"))), 200, "{host}");
    }
    for host in ["evil.example:8080", "localhost", "localhost:80", "127.0.0.1.evil.example:8080", ""] {
        assert_eq!(ask(&[host], None), 403, "{host}");
    }
    assert_eq!(ask(&[], None), 403);
    assert_eq!(ask(&["localhost:8080", "localhost:8080"], None), 403);
    for origin in ["http://evil.example", "null", "https://localhost:8080", "http://localhost:9090"] {
        assert_eq!(ask(&["localhost:8080"], Some(origin)), 403, "{origin}");
    }
}

#[test]
fn health_is_told_without_the_database() {
    let mut site = site(1);
    site.source = Arc::new(crate::api::testing::Broken);
    assert_eq!(answer(&site, &get("/health")).status, 200);
    assert_eq!(answer(&site, &get("/status")).status, 503);
    site.health.raise("database", "disk full");
    let sick = answer(&site, &get("/health"));
    assert_eq!((sick.status, body(&sick)), (503, json!({"status": "unhealthy", "reasons": ["database: disk full"]})));
    assert_eq!(body(&answer(&site, &get("/api/v2/monitor/health")))["metadatabase"]["status"], "unhealthy");
}

#[test]
fn what_can_only_be_looked_at_is_told_by_the_status() {
    let site = site(1);
    site.health.raise("sensors", "`/in/*` is looked at every 60 s instead of watched: the limit is reached");
    let status = body(&answer(&site, &get("/status")));
    assert_eq!(status["status"], "sensors: `/in/*` is looked at every 60 s instead of watched: the limit is reached");
}

#[test]
fn a_turn_that_does_not_end_is_unhealthy() {
    let mut site = site(1);
    site.turn_running_for = Box::new(|| Some(STALL_AFTER));
    assert_eq!(answer(&site, &get("/health")).status, 200);
    site.turn_running_for = Box::new(|| Some(STALL_AFTER * 2));
    assert_eq!(answer(&site, &get("/health")).status, 503);
    let airflow = body(&answer(&site, &get("/api/v2/monitor/health")));
    assert_eq!(airflow["scheduler"]["status"], "unhealthy");
    assert_eq!(airflow["metadatabase"]["status"], "healthy");
}

#[test]
fn the_page_shows_the_status_and_escapes_it() {
    let answer = answer(&site(1), &get("/"));
    let html = String::from_utf8(answer.body).unwrap();
    assert_eq!(answer.status, 200, "{html}");
    assert!(html.contains("<code>dag_0</code>"));
    assert!(html.contains("exit_code &lt;3&gt;"), "{html}");
    assert!(!html.contains("exit_code <3>"));
    let log = "logs/dag_id=sales/run_id=manual__1/task_id=load/attempt=3.on_failure_2.log".replace('/', "&#x2f;");
    for part in ["on_failure 2", "<code>sales.load</code>", "no answer from &lt;team&gt;", &log] {
        assert!(html.contains(part), "{part}: {html}");
    }
    assert!(html.contains("<meter"));
    assert!(html.contains("<td>12ms</td>") && html.contains("at 00:00 every day"), "{html}");
    let (name, policy) = &answer.headers[0];
    assert_eq!(*name, "Content-Security-Policy");
    let nonce = html.split("<script nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(nonce.len() == 32 && policy.contains(&format!("script-src 'nonce-{nonce}'")), "{policy}");
    assert!(!policy.contains("unsafe-inline"));
}

#[test]
fn no_two_pages_have_the_same_nonce() {
    let site = site(6);
    let policies = [answer(&site, &get("/")), answer(&site, &get("/"))].map(|page| page.headers[0].1.clone());
    assert_ne!(policies[0], policies[1]);
}

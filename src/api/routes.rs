//! What is answered to which request. Knows no server: a request comes in as plain data and an answer leaves as bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::json::{self, HealthAnswer, Host, RunningTask, Status};
use crate::api::source::{Source, SourceError, Which};
use crate::health::Health;
use crate::model::{DagId, TaskId};
use crate::observe::LiveUsage;
use crate::observe::host::HostProbe;
use crate::scheduler::command::RunningTry;
use crate::scheduler::explain::TaskFinding;
use crate::scheduler::gauge::GaugeBoard;
use crate::ui;

/// Beyond this many, `/status` lists those last active (CONTRACTS 9).
const MAX_DAGS: usize = 1_000;

/// A turn that runs for longer is said to be stalled.
pub const STALL_AFTER: Duration = Duration::from_secs(10);

const JSON: &str = "application/json";
const PATHS: [&str; 4] = ["/", "/status", "/health", "/api/v2/monitor/health"];

/// What the scheduler alone knows, of one DAG or of all: at most 20 of each. Null: it did not answer at once.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// What waits for a slot.
    pub waiting: Option<Vec<TaskFinding>>,
    pub running: Option<Vec<RunningTry>>,
}

/// Asks the scheduler, of the DAG of that id or of all.
pub type AskPresent = dyn Fn(Option<&str>) -> Present + Send + Sync;

/// All that the answers are made of. Cheap to share; no lock of it is held while the disk is asked.
pub struct Site {
    pub source: Arc<dyn Source>,
    pub gauges: GaugeBoard,
    pub health: Health,
    pub host: HostProbe,
    /// For how long the scheduler's present turn has been running; null while it waits for events. Must not block.
    pub turn_running_for: Box<dyn Fn() -> Option<Duration> + Send + Sync>,
    pub present: Box<AskPresent>,
    /// What runs has used.
    pub live: LiveUsage,
    pub home: String,
    pub started: Instant,
}

/// A request, as far as any route needs to know it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// All Host headers.
    pub hosts: Vec<String>,
    pub origin: Option<String>,
    /// The port that we listen on.
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    fn json(status: u16, content_type: &'static str, body: &impl Serialize) -> Self {
        let mut body = serde_json::to_vec(body).expect("answers have text keys only");
        body.push(b'\n');
        Self { status, content_type, headers: Vec::new(), body }
    }

    /// An error of the request, in Airflow's form below `/api/v2` and else as RFC 9457.
    pub(super) fn problem(path: &str, status: u16, title: &str, detail: String) -> Self {
        if path.starts_with("/api/v2") {
            // Airflow: an unknown path is `error`, everything else `detail`.
            let body = if status == 404 { json!({"error": "API route not found"}) } else { json!({"detail": detail}) };
            return Self::json(status, JSON, &body);
        }
        let body = json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
        Self::json(status, "application/problem+json", &body)
    }

    /// As it goes over the wire; of HEAD's without the body. `reason`: the words behind the status. It ends its connection.
    pub(super) fn into_bytes(self, reason: &str, is_head: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n",
            self.status,
            self.content_type,
            self.body.len(),
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// Answers a request. The body of HEAD is left to the caller to drop.
pub fn answer(site: &Site, request: &Request) -> Response {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if let Some(refusal) = refuse_stranger(request, path) {
        return refusal;
    }
    if !PATHS.contains(&path) {
        return Response::problem(
            path,
            404,
            "Not Found",
            format!("there is no `{path}`; there are {}", PATHS.join(", ")),
        );
    }
    if request.method != "GET" && request.method != "HEAD" {
        let detail = "only GET and HEAD are answered here; changes are made with the `minflow` command".to_owned();
        let mut response = Response::problem(path, 405, "Method Not Allowed", detail);
        response.headers.push(("Allow", "GET, HEAD".to_owned()));
        return response;
    }
    let which = match parse_query(path, query) {
        Ok(which) => which,
        Err(detail) => return Response::problem(path, 400, "Bad Request", detail),
    };
    match path {
        "/health" => health(site),
        "/api/v2/monitor/health" => Response::json(200, JSON, &airflow_health(site)),
        _ => match status(site, &which) {
            Ok(status) if path == "/status" => Response::json(200, JSON, &status),
            Ok(status) => page(&status),
            Err(error) => {
                Response::problem(path, 503, "Service Unavailable", format!("cannot read the database: {error}"))
            }
        },
    }
}

/// A web page elsewhere must not reach us by a name that it lets point here, nor read answers (DNS rebinding).
fn refuse_stranger(request: &Request, path: &str) -> Option<Response> {
    let port = request.port;
    let is_ours = |host: &str| {
        let name = host.strip_suffix(&format!(":{port}")).or_else(|| (port == 80).then_some(host));
        name.is_some_and(|name| ["127.0.0.1", "[::1]"].contains(&name) || name.eq_ignore_ascii_case("localhost"))
    };
    if request.hosts.len() != 1 || !is_ours(&request.hosts[0]) {
        let detail = format!("the Host header must be localhost:{port}, 127.0.0.1:{port} or [::1]:{port}");
        return Some(Response::problem(path, 403, "Forbidden", detail));
    }
    let origin = request.origin.as_deref()?;
    if origin.strip_prefix("http://").is_some_and(is_ours) {
        return None;
    }
    Some(Response::problem(path, 403, "Forbidden", "requests of other web pages are not answered".to_owned()))
}

fn parse_query(path: &str, query: &str) -> Result<Which, String> {
    let mut which = Which::UpTo(MAX_DAGS);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = unescape(name).ok_or_else(|| format!("the query `{query}` is not valid"))?;
        if path != "/status" || name != "dag_id" {
            let known = if path == "/status" { "it takes `dag_id`" } else { "it takes none" };
            return Err(format!("unknown query parameter `{name}` of `{path}`; {known}"));
        }
        if matches!(which, Which::One(_)) {
            return Err("the query parameter `dag_id` is given twice; give it once".to_owned());
        }
        let value = unescape(value).ok_or("the query parameter `dag_id` is not percent-encoded UTF-8")?;
        which = Which::One(value);
    }
    Ok(which)
}

/// Percent-decodes; null if what comes out is no text or an escape is cut off.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// What is wrong now; asks neither the loop nor the database, so that a stalled commit shows.
fn reasons(site: &Site) -> Vec<String> {
    let mut reasons = site.health.reasons();
    if let Some(running_for) = (site.turn_running_for)().filter(|&running_for| running_for > STALL_AFTER) {
        reasons.push(format!(
            "scheduler: a turn has been running for {} s; is the disk of the home slow or full?",
            running_for.as_secs()
        ));
    }
    reasons
}

fn health(site: &Site) -> Response {
    let reasons = reasons(site);
    let (code, status) = if reasons.is_empty() { (200, "healthy") } else { (503, "unhealthy") };
    Response::json(code, JSON, &HealthAnswer { status, reasons })
}

/// Airflow 3: always 200, each component by itself. minflow has no triggerer yet, which Airflow shows as null.
fn airflow_health(site: &Site) -> Value {
    let reasons = reasons(site);
    let is_hit = |name: &str| reasons.iter().any(|reason| reason.starts_with(name));
    let word = |is_unhealthy: bool| if is_unhealthy { "unhealthy" } else { "healthy" };
    // An idle loop sleeps; it is alive as long as its last turn is over, so its heart beats now.
    let heartbeat = if is_hit("scheduler") { site.gauges.read().last_turn_at } else { Some(jiff::Timestamp::now()) };
    let heartbeat = heartbeat.map(json::Instant);
    json!({
        "metadatabase": {"status": word(is_hit("database"))},
        "scheduler": {"status": word(is_hit("scheduler")), "latest_scheduler_heartbeat": heartbeat},
        "triggerer": {"status": null, "latest_triggerer_heartbeat": null},
        "dag_processor": {"status": word(is_hit("dags")), "latest_dag_processor_heartbeat": heartbeat},
    })
}

fn status(site: &Site, which: &Which) -> Result<Status, SourceError> {
    let facts = site.source.read(which)?;
    let present = (site.present)(match which {
        Which::One(dag_id) => Some(dag_id),
        Which::UpTo(_) => None,
    });
    let waiting = present.waiting.map(|mut waiting| {
        expect(&mut waiting, &*site.source, Timestamp::now());
        waiting.iter().map(json::TaskFinding::from).collect()
    });
    let running = present.running.map(|running| {
        let samples = site.live.of(running.iter().map(|one| &one.process), Instant::now());
        running.iter().zip(&samples).map(|(one, sample)| RunningTask::new(one, sample.as_ref())).collect()
    });
    let gauges = site.gauges.read();
    let reasons = reasons(site);
    let host = site.host.sample();
    Ok(Status {
        status: if reasons.is_empty() { "healthy".to_owned() } else { reasons.join("; ") },
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        uptime_seconds: (site.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        home: site.home.clone(),
        scheduler: (&*gauges).into(),
        tasks: (&*gauges).into(),
        pools: gauges.pools.iter().map(json::Pool::from).collect(),
        dag_counts: facts.dag_counts,
        dags: facts.dags,
        dags_truncated: facts.dags_truncated,
        import_errors: facts.import_errors,
        recent_failures: facts.recent_failures,
        missed_deadlines: facts.missed_deadlines,
        recent_callback_failures: facts.failed_callbacks,
        waiting,
        running,
        host: Host {
            cpu_percent: host.cpu_percent,
            load1: host.load1,
            memory_total: host.memory_total,
            memory_available: host.memory_available,
            disk_total: host.disk_total,
            disk_free: host.disk_free,
        },
    })
}

/// Works out when gates should open, by what their first holders usually take.
fn expect(waiting: &mut [TaskFinding], source: &dyn Source, now: Timestamp) {
    /// Of how many tasks it is asked, for one answer.
    const ASKED: usize = 20;
    let holders = waiting.iter().flat_map(|waits| &waits.finding.held_by);
    let tasks = holders.filter_map(|holder| Some((holder.dag_id.clone(), holder.task_id.clone()?)));
    let tasks: BTreeSet<(DagId, TaskId)> = tasks.collect();
    let asked: Vec<_> = tasks.iter().take(ASKED).map(|(dag_id, task_id)| (dag_id, task_id)).collect();
    let usual = source.usual(&asked);
    let known: BTreeMap<_, _> = asked.into_iter().zip(usual).collect();
    for waits in waiting {
        waits.finding.expect(&mut |dag_id, task_id| *known.get(&(dag_id, task_id?))?, now);
    }
}

/// Hashed with keys that the standard library draws at random, so nobody guesses it.
fn nonce() -> String {
    use std::hash::BuildHasher;
    let draw = || std::hash::RandomState::new().hash_one(Instant::now());
    format!("{:016x}{:016x}", draw(), draw())
}

fn page(status: &Status) -> Response {
    let nonce = nonce();
    match ui::render(status, &nonce) {
        Ok(html) => Response {
            status: 200,
            content_type: "text/html; charset=utf-8",
            headers: vec![("Content-Security-Policy", ui::content_security_policy(&nonce))],
            body: html.into_bytes(),
        },
        Err(error) => Response::problem("/", 500, "Internal Server Error", format!("the page cannot be made: {error}")),
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;

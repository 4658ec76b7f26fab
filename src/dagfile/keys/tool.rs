//! The keys of the operators whose work is told by a table alone.

use super::key;
use crate::config::keys::ADDRESSES;
use crate::keytable::{Fallback, Key, Kind, Table};
use crate::model::docker::{AutoRemove, MountKind, Pull};
use crate::model::tool::Taken;

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
const STATUSES: Kind = Kind::List(&Kind::Either(&[Kind::Integer { min: 100, max: 599 }, Kind::Text]));

/// What a request is.
const REQUEST: &[Key] = &[
    key("method", Kind::OneOf(METHODS), Fallback::Toml("\"GET\""), "How it is asked"),
    key("url", Kind::Template, Fallback::Nothing, "What is asked; with a `connection` what comes after its address"),
    key("connection", Kind::Template, Fallback::Nothing, "The id of a connection of the type `http` or `https`"),
    key("headers", Kind::Map("header", &Kind::Template), Fallback::Toml("{}"), "Headers of the request"),
    key(
        "params",
        Kind::Map("parameter", &Kind::Any),
        Fallback::Toml("{}"),
        "What is added to the url's query; of a list each element",
    ),
    key(
        "body",
        Kind::Either(&[Kind::Template, Kind::Map("field", &Kind::Any)]),
        Fallback::Nothing,
        "The body: text, or the fields of a form",
    ),
    key("json", Kind::Any, Fallback::Nothing, "Instead, a body of JSON; texts in it are templates"),
    key("timeout", Kind::Duration { min: 1 }, Fallback::Toml("\"30s\""), "For all of it, to the end of the answer"),
];

const EXPECTED: &[Key] = &[key(
    "expect_status",
    STATUSES,
    Fallback::Toml("[\"200..299\"]"),
    "The statuses that are no failure: numbers, or ranges as text",
)];

/// What is made of an answer.
const ANSWER: &[Key] = &[
    key(
        "response",
        Kind::OneOf(Taken::NAMES),
        Fallback::Toml("\"text\""),
        "What becomes the XCom: the body as text, the body as JSON, or nothing",
    ),
    key(
        "response_check",
        Kind::Template,
        Fallback::Nothing,
        "A template over `response`, `status` and `headers` that must give what is true",
    ),
    key("response_filter", Kind::Template, Fallback::Nothing, "A template over the same that gives the XCom"),
];

pub static HTTP: Table = Table {
    name: "http",
    keys: &[
        REQUEST,
        EXPECTED,
        &[key(
            "retry_status",
            STATUSES,
            Fallback::Toml("[429, 502, 503, 504]"),
            "Of those that are: which `retries` may mend. Any other fails without another try",
        )],
        ANSWER,
    ],
};

/// `http` of a sensor.
pub static AWAITED_HTTP: Table = Table {
    name: "http of a sensor",
    keys: &[
        REQUEST,
        EXPECTED,
        &[
            key(
                "wait_status",
                STATUSES,
                Fallback::Toml("[404]"),
                "The statuses that mean: not yet. Any other that is not expected fails the try, and `retries` may follow",
            ),
            key(
                "contains",
                Kind::Text,
                Fallback::Nothing,
                "A regular expression that the body must match somewhere; else it is not there yet",
            ),
        ],
        ANSWER,
    ],
};

pub static EMAIL: Table = Table {
    name: "email",
    keys: &[&[
        key(
            "to",
            ADDRESSES,
            Fallback::Nothing,
            "Whom it goes to: a list, or a text with commas; an address, or `Ann <ann@example.com>`",
        ),
        key("cc", ADDRESSES, Fallback::Nothing, "Who gets it as well"),
        key("bcc", ADDRESSES, Fallback::Nothing, "Who gets it and is not seen by the others"),
        key("subject", Kind::Template, Fallback::Nothing, "What it is about, in one line"),
        key("body", Kind::Template, Fallback::Nothing, "Its text"),
        key(
            "html",
            Kind::Template,
            Fallback::Nothing,
            "Its text as HTML; with `body`, which is for readers that show none, or without",
        ),
        key(
            "files",
            Kind::List(&Kind::Template),
            Fallback::Toml("[]"),
            "What is attached, relative to the run's folder; 25 MiB in all",
        ),
        key(
            "connection",
            Kind::Template,
            Fallback::Words("the server of `[smtp]`"),
            "The id of a connection of the type `smtp`",
        ),
    ]],
};

pub static DOCKER: Table = Table {
    name: "docker",
    keys: &[&[
        key("image", Kind::Template, Fallback::Nothing, "The image, with its registry and its tag if it needs them"),
        key(
            "command",
            Kind::Either(&[Kind::Template, Kind::List(&Kind::Template)]),
            Fallback::Words("the image's own"),
            "What it runs: a list of words, or a text that is parted into words as a shell does it",
        ),
        key(
            "mounts",
            Kind::List(&Kind::Either(&[Kind::Template, Kind::Table(&MOUNT)])),
            Fallback::Toml("[]"),
            "What it sees of the host beside the run's folder: `\"SOURCE:TARGET\"`, `\"SOURCE:TARGET:ro\"`, or tables",
        ),
        key(
            "environment",
            Kind::Map("variable", &Kind::Template),
            Fallback::Toml("{}"),
            "Its variables, beside `MINFLOW_…` and `AIRFLOW_CTX_…`; `env` is that of the `docker` command",
        ),
        key(
            "working_dir",
            Kind::Template,
            Fallback::Words("the image's own"),
            "The folder in the container where the command begins; `\"{{ run_dir }}\"` is the run's",
        ),
        key("network", Kind::Template, Fallback::Words("the engine's own"), "The network that it joins"),
        key(
            "user",
            Kind::Either(&[Kind::Template, Kind::Integer { min: 0, max: i32::MAX as i64 }]),
            Fallback::Words("the image's own"),
            "Whom it runs as: a name or a number, `\"1000:1000\"` with the group",
        ),
        key(
            "auto_remove",
            Kind::Either(&[Kind::OneOf(AutoRemove::NAMES), Kind::Bool]),
            Fallback::Toml("\"force\""),
            "Whether the container is removed when it has ended: `\"success\"` only with exit code 0, `\"force\"` always",
        ),
        key(
            "pull",
            Kind::OneOf(Pull::NAMES),
            Fallback::Toml("\"missing\""),
            "Whether the image is asked for from its registry: where the host lacks it, always, or never",
        ),
    ]],
};

pub static MOUNT: Table = Table {
    name: "a mount",
    keys: &[&[
        key(
            "source",
            Kind::Template,
            Fallback::Nothing,
            "A path, relative to the DAG file's folder, or a volume's name",
        ),
        key("target", Kind::Template, Fallback::Nothing, "Where the container sees it"),
        key(
            "type",
            Kind::OneOf(MountKind::NAMES),
            Fallback::Words("`\"bind\"` of a path, `\"volume\"` of a name"),
            "What it is",
        ),
        key("read_only", Kind::Bool, Fallback::Toml("false"), "Whether the container cannot change it"),
    ]],
};

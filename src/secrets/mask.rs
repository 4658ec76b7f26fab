//! What is hidden: the names that call for it, and the texts that are shown as `***` wherever they turn up.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::connection::dumps;
use super::uri::quote;

/// What stands for a secret.
pub const HIDDEN: &str = "***";

/// Airflow's names: what holds one of them, in any case, is secret.
const NAMES: [&str; 14] = [
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "keyfile_dict",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxies",
    "proxy",
    "secret",
    "service_account",
    "token",
];

/// In characters. Hiding shorter texts would hide much that is none (Airflow: `min_length_masked_secret`).
const MIN_LENGTH: usize = 5;
/// Airflow's example password, which would hide its name everywhere.
const NO_SECRET: &str = "airflow";

/// Which names of variables, fields and keys call for secrecy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sensitive {
    /// `core.sensitive_var_conn_names`, in lower case.
    more: Vec<String>,
}

impl Sensitive {
    /// Airflow's names and those of a list with commas.
    pub fn with(list: &str) -> Self {
        Self { more: list.split(',').map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect() }
    }

    pub fn hides(&self, name: &str) -> bool {
        let name = name.trim().to_lowercase();
        NAMES.iter().any(|part| name.contains(part)) || self.more.iter().any(|part| name.contains(part.as_str()))
    }
}

/// The secrets of one home.
#[derive(Clone, Default)]
pub struct Masker {
    sensitive: Sensitive,
    /// Longest first, so that a secret that holds another is hidden whole.
    secrets: Vec<Box<[u8]>>,
    /// Whether a byte is the first of one.
    is_first: Box<[bool]>,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masker of {} secrets", self.secrets.len())
    }
}

/// Gathers secrets.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    texts: BTreeSet<String>,
}

impl Gathered {
    /// A text as it is, as a URI holds it, and as JSON does.
    pub fn add(&mut self, secret: &str) {
        let json = |text: String| text[1..text.len() - 1].to_owned();
        let plain = Value::from(secret);
        for form in [secret.to_owned(), quote(secret), json(plain.to_string()), json(dumps(&plain))] {
            if form.chars().count() >= MIN_LENGTH && form.to_lowercase() != NO_SECRET {
                self.texts.insert(form);
            }
        }
    }

    /// All texts and numbers inside a value.
    pub fn add_all(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text),
            Value::Number(number) => self.add(&number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.add_all(item)),
            Value::Object(pairs) => pairs.values().for_each(|item| self.add_all(item)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Those whose name calls for it.
    pub fn add_named(&mut self, name: &str, value: &Value, sensitive: &Sensitive) {
        match value {
            _ if sensitive.hides(name) => self.add_all(value),
            Value::Object(pairs) => pairs.iter().for_each(|(name, item)| self.add_named(name, item, sensitive)),
            Value::Array(items) => items.iter().for_each(|item| self.add_named(name, item, sensitive)),
            _ => {}
        }
    }

    pub fn masker(self, sensitive: Sensitive) -> Masker {
        let mut secrets: Vec<Box<[u8]>> = self.texts.into_iter().map(|text| text.into_bytes().into()).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut is_first = vec![false; 256];
        for secret in &secrets {
            is_first[usize::from(secret[0])] = true;
        }
        Masker { sensitive, secrets, is_first: is_first.into() }
    }
}

/// What stands at a place of a text.
enum Found {
    Secret(usize),
    /// So far a secret's beginning; the text ends here.
    Beginning,
    Nothing,
}

impl Masker {
    pub fn sensitive(&self) -> &Sensitive {
        &self.sensitive
    }

    /// A text without the secrets.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.secrets.is_empty() || self.find(text.as_bytes()).is_none() {
            return Cow::Borrowed(text);
        }
        let mut masked = Vec::with_capacity(text.len());
        self.scan(text.as_bytes(), true, &mut masked);
        Cow::Owned(String::from_utf8(masked).expect("whole texts were replaced in a text"))
    }

    /// As [`Masker::mask`], in place.
    pub fn mask_in(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.mask(text) {
            *text = masked;
        }
    }

    /// A value without the secrets: what has a secret name is hidden whole, texts are masked. `name` is its own, or empty.
    pub fn redact(&self, name: &str, value: &Value) -> Value {
        let hides = self.sensitive.hides(name);
        match value {
            Value::Object(pairs) => {
                let redacted =
                    |(key, item): (&String, &Value)| (key.clone(), self.redact(if hides { name } else { key }, item));
                Value::Object(pairs.iter().map(redacted).collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(|item| self.redact(name, item)).collect(),
            Value::String(_) | Value::Number(_) if hides => Value::from(HIDDEN),
            Value::String(text) => Value::from(&*self.mask(text)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|&at| {
            self.is_first[usize::from(bytes[at])] && matches!(self.at(&bytes[at..], true), Found::Secret(_))
        })
    }

    fn at(&self, rest: &[u8], is_last: bool) -> Found {
        for secret in &self.secrets {
            if rest.starts_with(secret) {
                return Found::Secret(secret.len());
            }
            if !is_last && secret.starts_with(rest) {
                return Found::Beginning;
            }
        }
        Found::Nothing
    }

    /// Writes `bytes` without the secrets; gives how many were taken. Unless they are the last, a secret's beginning at the end
    /// is left.
    fn scan(&self, bytes: &[u8], is_last: bool, out: &mut Vec<u8>) -> usize {
        let (mut at, mut shown) = (0, 0);
        while at < bytes.len() {
            if !self.is_first[usize::from(bytes[at])] {
                at += 1;
                continue;
            }
            match self.at(&bytes[at..], is_last) {
                Found::Secret(length) => {
                    out.extend_from_slice(&bytes[shown..at]);
                    out.extend_from_slice(HIDDEN.as_bytes());
                    at += length;
                    shown = at;
                }
                Found::Beginning => break,
                Found::Nothing => at += 1,
            }
        }
        out.extend_from_slice(&bytes[shown..at]);
        at
    }
}

/// Masks what comes in pieces, such as a log that is followed: a secret may begin in one and end in the next.
#[derive(Debug)]
pub struct Scrubber {
    masker: Arc<Masker>,
    /// What may be a secret's beginning.
    held: Vec<u8>,
}

impl Scrubber {
    pub fn new(masker: Arc<Masker>) -> Self {
        Self { masker, held: Vec::new() }
    }

    /// What can be shown when `piece` has come.
    pub fn push<'p>(&mut self, piece: &'p [u8]) -> Cow<'p, [u8]> {
        if self.masker.secrets.is_empty() {
            return Cow::Borrowed(piece);
        }
        self.held.extend_from_slice(piece);
        let mut out = Vec::with_capacity(self.held.len());
        let taken = self.masker.scan(&self.held, false, &mut out);
        self.held.drain(..taken);
        Cow::Owned(out)
    }

    /// What was held back, when nothing more comes.
    pub fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if self.masker.secrets.is_empty() {
            return held;
        }
        let mut out = Vec::with_capacity(held.len());
        self.masker.scan(&held, true, &mut out);
        out
    }
}

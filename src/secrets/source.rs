//! Where variables and connections come from: the environment before airflow.toml, as in Airflow the environment before the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::connection::Connection;
use super::mask::{Gathered, Masker, Sensitive};

/// Before the name of a variable, in capitals.
pub const VARIABLE_PREFIX: &str = "AIRFLOW_VAR_";
/// Before the id of a connection, in capitals.
pub const CONNECTION_PREFIX: &str = "AIRFLOW_CONN_";

/// What is larger is no password.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// What airflow.toml gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub variables: BTreeMap<String, GivenVariable>,
    pub connections: BTreeMap<String, GivenConnection>,
    pub sensitive: Sensitive,
    /// Other texts that are secret, such as the URL of a webhook.
    pub hidden: Vec<String>,
}

/// A variable of airflow.toml.
#[derive(Clone, PartialEq, Eq)]
pub struct GivenVariable {
    /// What is no text in the file is JSON.
    pub text: String,
    /// File and line.
    pub origin: String,
}

impl fmt::Debug for GivenVariable {
    // What it says may be secret and stays out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenVariable").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// A connection of airflow.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenConnection {
    pub connection: Connection,
    /// Where its password is, if not in `connection`.
    pub credential: Option<Credential>,
    /// File and line.
    pub origin: String,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// In a file, without the end of its last line. Absolute.
    File(PathBuf),
    /// In this variable of the environment.
    Environment(String),
}

/// Why a variable or a connection that exists cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretError {
    pub message: String,
    pub help: String,
}

impl SecretError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for SecretError {}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// As airflow.toml writes it; in small letters if only the environment has it.
    pub name: String,
    pub value: T,
    /// The variable of the environment, or file and line.
    pub origin: String,
}

/// The variables and connections of one home.
pub struct Secrets {
    given: Given,
    /// What of the environment bears on them.
    environment: BTreeMap<String, String>,
    masker: Mutex<Arc<Masker>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("given", &self.given).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Of `environment` only what bears on variables and connections is kept.
    pub fn new(given: Given, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let names: Vec<&String> = given
            .connections
            .values()
            .filter_map(|given| match &given.credential {
                Some(Credential::Environment(name)) => Some(name),
                _ => None,
            })
            .collect();
        let bears = |name: &String| {
            name.starts_with(VARIABLE_PREFIX) || name.starts_with(CONNECTION_PREFIX) || names.contains(&name)
        };
        let environment = environment.into_iter().filter(|(name, _)| bears(name)).collect();
        let secrets = Self { given, environment, masker: Mutex::default() };
        *secrets.masker.lock() = Arc::new(secrets.gather().masker(secrets.given.sensitive.clone()));
        secrets
    }

    /// With the environment of this process.
    pub fn of_process(given: Given) -> Self {
        // What is no UTF-8 cannot be shown in a template.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(given, std::env::vars_os().filter_map(text))
    }

    /// The text of a variable.
    pub fn variable(&self, key: &str) -> Option<&str> {
        let of_environment = self.environment.get(&format!("{VARIABLE_PREFIX}{}", key.to_uppercase()));
        of_environment.or_else(|| self.given.variables.get(key).map(|given| &given.text)).map(String::as_str)
    }

    /// # Errors
    /// It exists, but is no connection, or its password cannot be read.
    pub fn connection(&self, conn_id: &str) -> Result<Option<Connection>, SecretError> {
        let name = format!("{CONNECTION_PREFIX}{}", conn_id.to_uppercase());
        if let Some(text) = self.environment.get(&name).filter(|text| !text.is_empty()) {
            return Connection::parse(text)
                .map(Some)
                .map_err(|error| SecretError::new(format!("{name} is no connection: {}", error.message), error.help));
        }
        let Some(given) = self.given.connections.get(conn_id) else { return Ok(None) };
        let mut connection = given.connection.clone();
        if let Some(credential) = &given.credential {
            let password = self.read(credential).map_err(|error| SecretError {
                message: format!("connection `{conn_id}` ({}): {}", given.origin, error.message),
                ..error
            })?;
            // A file may hold another password than when minflow started.
            self.hide(&password);
            connection.password = Some(password);
        }
        Ok(Some(connection))
    }

    fn read(&self, credential: &Credential) -> Result<String, SecretError> {
        match credential {
            Credential::File(path) => read_password(path),
            Credential::Environment(name) => self.environment.get(name).cloned().ok_or_else(|| {
                let help = format!("set {name} in the environment in which minflow is started");
                SecretError::new(format!("`password_env` names {name}, which is not set"), help)
            }),
        }
    }

    /// All variables, in order of their names.
    pub fn variables(&self) -> Vec<Listed<String>> {
        let listed = self.list(VARIABLE_PREFIX, self.given.variables.iter().map(|(name, given)| (name, &given.origin)));
        let value = |name: &str| self.variable(name).unwrap_or_default().to_owned();
        listed.into_iter().map(|(name, origin)| Listed { value: value(&name), name, origin }).collect()
    }

    /// All connections, in order of their ids.
    pub fn connections(&self) -> Vec<Listed<Result<Connection, SecretError>>> {
        let given = self.given.connections.iter().map(|(name, given)| (name, &given.origin));
        let listed = self.list(CONNECTION_PREFIX, given);
        let value = |name: &str| self.connection(name).transpose();
        let entry = |(name, origin): (String, String)| Some(Listed { value: value(&name)?, name, origin });
        listed.into_iter().filter_map(entry).collect()
    }

    /// Names and origins: those of the file, and those that only the environment has.
    fn list<'a>(&self, prefix: &str, given: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(String, String)> {
        let mut of_environment: BTreeMap<&str, &String> = BTreeMap::new();
        for name in self.environment.keys() {
            of_environment.extend(name.strip_prefix(prefix).map(|bare| (bare, name)));
        }
        let mut listed = BTreeMap::new();
        let mut shadowed = Vec::new();
        for (name, origin) in given {
            let upper = name.to_uppercase();
            let found = of_environment.get(upper.as_str());
            listed.insert(name.clone(), found.map_or(origin, |name| name).clone());
            shadowed.push(upper);
        }
        of_environment.retain(|bare, _| !shadowed.iter().any(|name| name == bare));
        listed.extend(of_environment.into_iter().map(|(bare, name)| (bare.to_lowercase(), name.clone())));
        listed.into_iter().collect()
    }

    /// Hides what is secret in texts. The same until a password changes.
    pub fn masker(&self) -> Arc<Masker> {
        self.masker.lock().clone()
    }

    fn hide(&self, password: &str) {
        if self.masker().mask(password) == password {
            let mut gathered = self.gather();
            gathered.add(password);
            *self.masker.lock() = Arc::new(gathered.masker(self.given.sensitive.clone()));
        }
    }

    /// Every secret that can be had now. What cannot is met by whoever asks for it.
    fn gather(&self) -> Gathered {
        let sensitive = &self.given.sensitive;
        let mut gathered = Gathered::default();
        self.given.hidden.iter().for_each(|text| gathered.add(text));
        for Listed { name, value, .. } in self.variables() {
            if sensitive.hides(&name) {
                gathered.add(&value);
            }
            if let Ok(value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(&value) {
                gathered.add_named(&name, &value, sensitive);
            }
        }
        let shadowed = self.given.connections.values().map(|given| &given.connection);
        for connection in shadowed {
            add_connection(&mut gathered, connection, sensitive);
        }
        for given in self.given.connections.values() {
            if let Some(Ok(password)) = given.credential.as_ref().map(|credential| self.read(credential)) {
                gathered.add(&password);
            }
        }
        for (name, text) in &self.environment {
            match Connection::parse(text) {
                Ok(connection) if name.starts_with(CONNECTION_PREFIX) => {
                    add_connection(&mut gathered, &connection, sensitive);
                }
                // Nobody can tell its password from the rest.
                Err(_) if name.starts_with(CONNECTION_PREFIX) => gathered.add(text),
                _ => {}
            }
        }
        gathered
    }
}

fn add_connection(gathered: &mut Gathered, connection: &Connection, sensitive: &Sensitive) {
    if let Some(password) = &connection.password {
        gathered.add(password);
    }
    gathered.add_named("", &connection.extra_dejson(), sensitive);
}

fn read_password(path: &Path) -> Result<String, SecretError> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let message = format!("its `password_file` `{shown}` cannot be read: {error}");
        SecretError::new(message, "minflow's user must be able to read it")
    };
    let is_file = fs::metadata(path).map_err(unreadable)?.is_file();
    let mut text = String::new();
    if is_file {
        let file = fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_PASSWORD_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    }
    if !is_file || text.len() as u64 > MAX_PASSWORD_BYTES {
        let message = format!("its `password_file` `{shown}` is no file of at most {MAX_PASSWORD_BYTES} bytes");
        return Err(SecretError::new(message, "name a file that holds the password and nothing else"));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

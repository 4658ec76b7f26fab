//! Variables and connections, where they come from, and what of them is hidden (SEMANTICS 23).
//!
//! Knows what Airflow's connection URIs and JSON mean, which names call for secrecy, and how texts are shown without secrets.
//! Knows neither DAGs nor airflow.toml: `config` hands in what stands there. The environment comes as a function; files with
//! passwords are read when a connection is asked for.

mod connection;
mod mask;
mod source;
mod uri;

#[cfg(test)]
mod tests;

pub use connection::{Connection, ConnectionError, dumps};
pub use mask::{HIDDEN, Masker, Scrubber, Sensitive};
pub use source::{
    CONNECTION_PREFIX, Credential, Given, GivenConnection, GivenVariable, Listed, SecretError, Secrets, VARIABLE_PREFIX,
};

//! What minflow tells and is told from outside: HTTP for reading, the home's socket for commands.
//!
//! HTTP reads only. Commands come over the unix socket, whose file mode and peer credentials are the permission.

pub mod client;
pub mod database;
pub mod guard;
pub mod json;
pub mod protocol;
pub mod routes;
pub mod server;
pub mod socket;
pub mod source;
#[cfg(test)]
pub(crate) mod testing;

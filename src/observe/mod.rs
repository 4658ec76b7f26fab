//! What minflow measures of the host and of itself.

pub mod host;

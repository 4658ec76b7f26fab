//! What minflow measures of the host and of itself.

pub mod host;
pub mod pressure;
mod usage;

pub use usage::{LiveUsage, Sample, Sampler};

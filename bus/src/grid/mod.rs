//! What the grid itself has: images, runtimes, secrets.

pub mod image;
pub mod runtimes;
pub mod secrets;

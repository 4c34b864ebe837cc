//! What the grid itself stores: images, runtimes, secrets.

pub mod image;
pub mod runtimes;
pub mod secrets;

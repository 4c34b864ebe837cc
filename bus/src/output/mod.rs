//! What an attempt leaves behind: its output files and its log.

pub mod frame;
pub mod manifest;
pub mod patterns;

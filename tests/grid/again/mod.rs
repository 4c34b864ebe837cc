//! Running again, and running the same way each time: options that a script or a project carries.

mod options;
mod rerun;
mod reuse;

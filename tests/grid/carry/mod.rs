//! What runs here runs there: scripts as people write them, side by side, with all that they read and leave.

mod as_here;
mod back;
mod changed;
mod compressed;
mod faithful;
mod found;
mod hostile;
mod many;
mod outputs;
mod projects;
mod refused;
mod resumed;
mod scripts;

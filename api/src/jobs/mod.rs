//! Jobs over HTTP: submit, read, list, cancel, requeue, rerun.

pub(crate) mod advice;
mod cancel;
mod cancel_many;
mod chosen_id;
mod command;
mod dependencies;
mod get;
mod inputs;
mod list;
mod requeue;
mod rerun;
mod reuse;
mod submit;
pub(crate) mod watch;

pub(crate) use self::{
    cancel::cancel,
    cancel_many::cancel_many,
    command::{apply_command, check_reason, reason},
    get::{get, history},
    inputs::{InputCheck, check_inputs},
    list::{caught_up, list},
    requeue::{requeue, requeue_many},
    rerun::rerun,
    reuse::earlier,
    submit::{NewJob, check_references, store_inline, submit, submit_all},
};

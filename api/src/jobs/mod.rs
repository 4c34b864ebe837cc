//! Jobs over HTTP: handing them in, looking at them, ending them.

mod cancel;
mod get;
mod list;
mod submit;

pub(crate) use self::{
    cancel::cancel,
    get::{get, history},
    list::list,
    submit::{NewJob, check_inputs, store_inline, submit},
};

//! `rgrid`: the one binary. Client verbs, every service as a verb, and `rgrid up` for all of them on one machine.

mod args;
mod bench;
mod commands;
mod connect;
mod failure;
mod find;
mod machine;
mod output;
mod paths;
mod project;
pub(crate) mod run;
pub(crate) mod saving;
mod service;
mod text;
mod trust;
mod up;
mod values;

use std::{future::Future, pin::Pin, process::ExitCode};

use anyhow::Context as _;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::runtime::{Builder, Runtime};

use crate::{
    args::Verb,
    commands::{
        attach::attach,
        cancel::cancel,
        completions::completions,
        cordon::{cordon, uncordon},
        docs::docs,
        doctor::doctor,
        download::download,
        drain::drain,
        history::history,
        image::image,
        list::list,
        log::log,
        logs::logs,
        requeue::requeue,
        rerun::rerun,
        retry::retry,
        runtimes::runtimes,
        secret::secret,
        status::status,
        storage::storage,
        trust::trust,
        undo::undo,
        version::version,
        workers::workers,
    },
    run::{interrupt::interruptible, run},
    service::telemetry,
};

fn main() -> ExitCode {
    // A worker's commands are watched over by this same program, started anew; that one must stay small and single-threaded.
    if let Some(code) = runner::executor::process::helper::run_if_asked() {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    args::read()
        .and_then(|cli| start(cli.verb))
        .unwrap_or_else(|error| failure::report(&error))
}

type Running = Pin<Box<dyn Future<Output = anyhow::Result<ExitCode>>>>;

fn start(verb: Verb) -> anyhow::Result<ExitCode> {
    let is_service = matches!(verb, Verb::Api(_) | Verb::Projector(_) | Verb::Watcher(_) | Verb::Runner(_));
    if is_service {
        keep_memory_private();
        telemetry::start()?;
    } else {
        telemetry::start_if_asked()?;
    }
    let runtime = match &verb {
        // A supervisor mostly sleeps: it gets by without threads of its own.
        Verb::Up(_) | Verb::Down(_) => Builder::new_current_thread().enable_all().build(),
        // These wait far more than they compute, and a short job is a dozen wake-ups: from thread to thread each costs a core twice.
        Verb::Watcher(_) | Verb::Projector(_) | Verb::Runner(_) => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    }
    .context("cannot start the runtime")?;
    let ended = runtime.block_on(running(verb));
    leave(runtime);
    ended
}

/// A service holds keys and secrets, and must not leave them in a core dump: neither in a file nor with what the kernel pipes it to.
fn keep_memory_private() {
    let limit = getrlimit(Resource::Core);
    // Lowering it is never refused. A runner's commands may raise theirs again.
    setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit }).ok();
    // Who is not root could not be told any more how much memory its own services take.
    if rustix::process::geteuid().is_root() {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    }
}

/// The way of each verb.
fn running(verb: Verb) -> Running {
    match verb {
        Verb::Run(args) => Box::pin(run(*args)),
        Verb::Rerun(args) => Box::pin(rerun(args)),
        Verb::Attach(args) => Box::pin(attach(args)),
        Verb::List(args) => Box::pin(list(args)),
        Verb::Status(args) => Box::pin(status(args)),
        Verb::Logs(args) => Box::pin(logs(args)),
        Verb::Download(args) => Box::pin(interruptible(Box::pin(download(args)))),
        Verb::Undo(args) => Box::pin(undo(args)),
        Verb::Cancel(args) => Box::pin(cancel(args)),
        Verb::Retry(args) => Box::pin(retry(args)),
        Verb::Requeue(args) => Box::pin(requeue(args)),
        Verb::History(args) => Box::pin(history(args)),
        Verb::Secret(args) => Box::pin(secret(args)),
        Verb::Image(args) => Box::pin(interruptible(Box::pin(image(args)))),
        Verb::Runtimes(args) => Box::pin(runtimes(args)),
        Verb::Storage(args) => Box::pin(storage(args)),
        Verb::Log(args) => Box::pin(log(args)),
        Verb::Workers(args) => Box::pin(workers(args)),
        Verb::Cordon(args) => Box::pin(cordon(args)),
        Verb::Drain(args) => Box::pin(drain(args)),
        Verb::Uncordon(args) => Box::pin(uncordon(args)),
        Verb::Doctor(args) => Box::pin(doctor(args)),
        Verb::Up(args) => Box::pin(up::up(args)),
        Verb::Down(args) => Box::pin(up::down(args)),
        Verb::Bench(args) => Box::pin(bench::bench(args)),
        Verb::Api(args) => Box::pin(service::api(args)),
        Verb::Projector(args) => Box::pin(service::projector(args)),
        Verb::Watcher(args) => Box::pin(service::watcher(args)),
        Verb::Runner(args) => Box::pin(service::runner(*args)),
        Verb::Trust(args) => Box::pin(async move { trust(&args) }),
        Verb::Docs(args) => Box::pin(async move { docs(&args) }),
        Verb::Completions(args) => Box::pin(async move { completions(&args, args::command()) }),
        Verb::Version(args) => Box::pin(async move { version(&args) }),
    }
}

/// A write to a terminal or pipe that nobody reads must not hold up the end of the program.
fn leave(runtime: Runtime) {
    runtime.shutdown_background();
}

//! The command line.

use std::{env, ffi::OsString};

use clap::{Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    bench::BenchArgs,
    commands::{
        attach::AttachArgs,
        cancel::CancelArgs,
        completions::CompletionsArgs,
        cordon::{CordonArgs, UncordonArgs},
        docs::DocsArgs,
        doctor::DoctorArgs,
        download::DownloadArgs,
        drain::DrainArgs,
        history::HistoryArgs,
        image::ImageArgs,
        list::ListArgs,
        log::LogArgs,
        logs::LogsArgs,
        requeue::RequeueArgs,
        rerun::RerunArgs,
        retry::RetryArgs,
        runtimes::RuntimesArgs,
        secret::SecretArgs,
        status::StatusArgs,
        storage::StorageArgs,
        trust::TrustArgs,
        undo::UndoArgs,
        version::VersionArgs,
        workers::WorkersArgs,
    },
    run::{self, RunArgs},
    service::{ApiArgs, ProjectorArgs, RunnerArgs, WatcherArgs},
    up::{DownArgs, UpArgs},
};

const EXAMPLES: &str = "\
Examples:
  rgrid up --detach                      start a grid on this machine
  rgrid run report.py data/*.csv         run a script on it; outputs land in the current directory
  rgrid run -d --memory 2GB train.py     run one in the background; prints the job's id
  rgrid logs -f last                     watch what the last job prints
  rgrid history last                     see who did what with it, and when
  rgrid doctor                           what is wrong, since when, and what to do
  rgrid down                             stop the grid

Machines join with one command: rgrid runner --nats nats://… (see `rgrid runner --help`).

Exit codes: that of the script for `rgrid run`; else 0, 1 if something could not be done, 2 if something must be written otherwise.";

/// Run scripts on machines of yours exactly as they would run here
///
/// `rgrid run script.py data.csv` runs a script somewhere on the grid as `python script.py data.csv` would run it here: the same
/// arguments, the same files, the same output and exit code, and what it writes comes back to the current directory.
#[derive(Debug, Parser)]
#[command(name = "rgrid", version, after_long_help = EXAMPLES, after_help = EXAMPLES, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(Box<RunArgs>),
    Rerun(RerunArgs),
    Attach(AttachArgs),
    List(ListArgs),
    Status(StatusArgs),
    Logs(LogsArgs),
    Download(DownloadArgs),
    Undo(UndoArgs),
    Cancel(CancelArgs),
    Retry(RetryArgs),
    Requeue(RequeueArgs),
    History(HistoryArgs),
    Secret(SecretArgs),
    Trust(TrustArgs),
    Runtimes(RuntimesArgs),
    Storage(StorageArgs),
    Log(LogArgs),
    Image(ImageArgs),
    Workers(WorkersArgs),
    Cordon(CordonArgs),
    Drain(DrainArgs),
    Uncordon(UncordonArgs),
    Doctor(DoctorArgs),
    Up(UpArgs),
    Down(DownArgs),
    Bench(BenchArgs),
    Api(ApiArgs),
    Projector(ProjectorArgs),
    Watcher(WatcherArgs),
    Runner(Box<RunnerArgs>),
    Docs(DocsArgs),
    Completions(CompletionsArgs),
    Version(VersionArgs),
}

/// The whole command line, as clap knows it.
pub(crate) fn command() -> Command {
    Cli::command()
}

/// Reads the command line, and of a run what its script and project say.
///
/// # Errors
/// A usage error in one of those. One in the command line itself ends the program here, as `--help` does.
pub(crate) fn read() -> anyhow::Result<Cli> {
    let words: Vec<OsString> = env::args_os().collect();
    let matches = command().get_matches_from(&words);
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let (Verb::Run(args), Some((_, given))) = (&mut cli.verb, matches.subcommand()) {
        // Behind the program and the verb.
        **args = run::resolve(given, words.get(2..).unwrap_or_default())?;
    }
    Ok(cli)
}

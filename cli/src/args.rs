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
  rgrid up --detach                      start a grid on this machine, in the background
  rgrid run report.py data/*.csv         run a script; its outputs are saved in the current directory
  rgrid run -d --memory 2GB train.py     run a script in the background; prints the job's id
  rgrid logs -f last                     follow the output of the last job
  rgrid history last                     show its events
  rgrid doctor                           show problems, and what to do about them
  rgrid down                             stop the grid

A machine joins the grid with one command: rgrid runner --nats nats://… (see `rgrid runner --help`).

Exit codes: for `rgrid run`, the script's exit code. For all other commands: 0 success, 1 failure, 2 usage error.";

/// Run scripts on your own machines exactly as they would run here
///
/// `rgrid run script.py data.csv` runs a script on one of the grid's machines as `python script.py data.csv` would run it here: with the same arguments and files, and with the same output and exit code. The files that the script writes are saved in the current directory.
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

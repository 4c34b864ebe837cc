//! `rgrid logs`: what a job printed, or prints.

use std::process::ExitCode;

use bus::{ids::Attempt, output::frame::Stream};
use clap::{Args, ValueEnum};
use client::{Follow, Item, Wanted};
use serde_json::json;

use crate::{
    connect::Connect,
    find::{batch_by_id, find_job},
    output::{Streams, print_json},
    run::{batch, messages},
};

const EXAMPLES: &str = "\
Examples:
  rgrid logs last                    all of its output so far
  rgrid logs -f last                 follow it until it ends
  rgrid logs last --stream stderr
  rgrid logs last --attempt 1        the output of a lost attempt
  rgrid logs -f last-batch           follow all jobs of a batch, each line with its job's name";

/// Print a job's output: its standard output to standard output, its standard error to standard error
///
/// For a batch, each line begins with the name of its job. The jobs are printed one after the other or, with --follow, as their output arrives.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct LogsArgs {
    /// The job: an id, a part of an id, or `last`; or a batch's id, or `last-batch`
    #[arg(value_name = "JOB")]
    job: String,
    /// Keep printing until the job ends
    #[arg(long, short)]
    follow: bool,
    /// Print the log of attempt N [default: the last attempt; with --follow, later attempts too]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// Print only this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<Which>,
    /// Print one JSON object per line: chunks of output {"stream", "time_us", "text" or "base64"}, and the markers {"attempt"}, {"gap"}, {"waiting"} and {"job"}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    Stdout,
    Stderr,
}

pub(crate) async fn logs(args: LogsArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let stream = args.stream.map(|which| match which {
        Which::Stdout => Stream::Stdout,
        Which::Stderr => Stream::Stderr,
    });
    let wanted = Wanted {
        attempt: args.attempt.map(Attempt),
        from_first: false,
        stream,
        to_the_end: args.follow,
    };
    if let Some(batch) = batch_by_id(&client, &args.job).await? {
        batch::logs(&client, &batch, wanted, args.json).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let job = find_job(&client, &args.job).await?;
    let mut follow = Follow::new(&client, job, wanted, messages::connection_lost);
    let mut streams = Streams::new();
    loop {
        let item = follow.next().await?;
        if args.json {
            print_item(&item)?;
        }
        match item {
            Item::Piece(_) if args.json => {}
            Item::Piece(piece) => streams.write(piece).await?,
            Item::Gap(gap) => messages::gap(job, gap.bytes),
            Item::Waiting(job) if !args.json => messages::waiting(&job),
            Item::Attempt(_) | Item::Waiting(_) => {}
            Item::End(_) | Item::Stop => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn print_item(item: &Item) -> anyhow::Result<()> {
    match item {
        Item::Piece(piece) => print_json(piece),
        Item::Attempt(attempt) => print_json(attempt),
        Item::Waiting(job) => print_json(&json!({ "waiting": job })),
        Item::Gap(gap) => print_json(&json!({ "gap": gap })),
        Item::End(job) => print_json(&json!({ "job": job })),
        Item::Stop => Ok(()),
    }
}

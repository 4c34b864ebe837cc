//! The options of `rgrid bench`.

use clap::{Args, ValueEnum};

use crate::{connect::Connect, values::ByteSize};

const EXAMPLES: &str = "\
Examples:
  rgrid bench --embedded                 everything, on a grid started for it
  rgrid bench process --jobs 1000 --json

Measurements, and their JSON:
  latency   jobs that run /bin/true, one after the other: from submission to start, and to end
            {\"submit_to_started_ms\":{\"p50\",\"p99\"},\"submit_to_finished_ms\":{\"p50\",\"p99\"}}
  process   jobs that run /bin/true, submitted in one request; floor: the same with xargs -P<cpus>
            {\"jobs\",\"wall_s\",\"projected_s\",\"floor_s\",\"ratio\"}
  noop      jobs that start no process: submitted, claimed, finished, projected
            {\"jobs\",\"wall_s\",\"jobs_per_s\",\"projected_s\"}
  upload    files of 10 kB to 1 GB, uploaded to the store and downloaded, hashed at both ends
            {\"sizes\":[{\"bytes\",\"put_ms\",\"get_ms\"}]}
  docker    containers that do nothing, one after the other; floor: the same with docker run --rm
            {\"jobs\",\"median_s\",\"floor_s\",\"ratio\"}
  all       an object of these, by name

wall_s is the time from the submission until the client has seen the last job end; projected_s is how much later the tables were up to date.";

/// Measure a grid's performance, and compare it with the same work run directly on the machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// What to measure
    #[arg(value_name = "WHAT", default_value = "all")]
    pub(super) what: What,
    /// How many jobs [default: noop 10000, process 1000, latency 300, docker 20]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) jobs: Option<u32>,
    /// The largest file to send and fetch
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    pub(super) max_size: ByteSize,
    /// The container image [default: rgrid/python:3 if this machine has it, otherwise debian:stable-slim]
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// Start a grid for this run, and stop it afterwards
    #[arg(long)]
    pub(super) embedded: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) connect: Connect,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    All,
    Latency,
    Process,
    Noop,
    Upload,
    Docker,
}

impl What {
    /// What is to be measured, one after the other.
    pub(super) fn parts(self) -> Vec<Self> {
        match self {
            Self::All => vec![Self::Latency, Self::Process, Self::Noop, Self::Upload, Self::Docker],
            one => vec![one],
        }
    }

    /// Its name, on the command line and in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Latency => "latency",
            Self::Process => "process",
            Self::Noop => "noop",
            Self::Upload => "upload",
            Self::Docker => "docker",
        }
    }
}

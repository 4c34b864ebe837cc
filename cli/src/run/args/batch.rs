//! The options of `rgrid run` that make many jobs of one command line.

use std::ffi::OsString;

use clap::Args;

use crate::values::Steps;

const MANY: &str = "Batches";

/// What the members of a batch are, and how they run together.
#[derive(Debug, Default, Args)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct BatchArgs {
    /// Run one job for each file that the (quoted) pattern matches; the file replaces {} or is added as the last argument; can be repeated
    #[arg(long, value_name = "GLOB", help_heading = MANY, conflicts_with_all = ["each_line", "array"])]
    pub(crate) batch: Vec<String>,
    /// Combine several --batch by position: the first file of each makes one job, the second of each the next, as {1}, {2} …
    #[arg(long, requires = "batch", help_heading = MANY)]
    pub(crate) zip: bool,
    /// Run one job for each line of a file, or of standard input (-); the line replaces {} or is added as the last argument
    #[arg(long, value_name = "FILE", help_heading = MANY, conflicts_with = "array")]
    pub(crate) each_line: Option<OsString>,
    /// Run one job for each number; the number replaces {}, and is set as the variable RGRID_ARRAY_INDEX
    #[arg(long, value_name = "FROM-TO[:STEP]", help_heading = MANY)]
    pub(crate) array: Option<Steps>,
    /// Run one job for each value, passed as --NAME VALUE or in the place of {NAME}; several --param make every combination
    #[arg(long, value_name = "NAME=V1,V2…", help_heading = MANY)]
    pub(crate) param: Vec<String>,
    /// The maximum number of jobs that run at the same time, over all workers [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = MANY)]
    pub(crate) parallel: Option<u32>,
    /// Start no more jobs after N jobs have failed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = MANY)]
    pub(crate) max_failures: Option<u32>,
    /// After one job has failed, start no more jobs and cancel the running ones
    #[arg(long, help_heading = MANY, conflicts_with = "max_failures")]
    pub(crate) fail_fast: bool,
    /// Save outputs directly in ./outputs, without a directory for each job
    #[arg(long, help_heading = MANY)]
    pub(crate) flat: bool,
}

impl BatchArgs {
    /// Whether one command line makes many jobs.
    pub(crate) fn is_batch(&self) -> bool {
        !self.batch.is_empty() || self.each_line.is_some() || self.array.is_some() || !self.param.is_empty()
    }

    /// The option that means nothing without a batch, if one is given.
    pub(crate) const fn unused_option(&self) -> Option<&'static str> {
        if self.parallel.is_some() {
            Some("--parallel")
        } else if self.max_failures.is_some() {
            Some("--max-failures")
        } else if self.fail_fast {
            Some("--fail-fast")
        } else if self.flat {
            Some("--flat")
        } else {
            None
        }
    }
}

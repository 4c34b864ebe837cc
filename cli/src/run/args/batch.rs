//! The options of `rgrid run` that make many jobs of one command line.

use std::ffi::OsString;

use clap::Args;

use crate::values::Steps;

const MANY: &str = "Many at once";

/// What the members of a batch are, and how they run together.
#[derive(Debug, Default, Args)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct BatchArgs {
    /// A job for each file that the (quoted) pattern matches: it stands for {}, or comes last; may be given several times
    #[arg(long, value_name = "GLOB", help_heading = MANY, conflicts_with_all = ["each_line", "array"])]
    pub(crate) batch: Vec<String>,
    /// The first of each --batch makes a job, the second of each another, and so on: {1}, {2} …
    #[arg(long, requires = "batch", help_heading = MANY)]
    pub(crate) zip: bool,
    /// A job for each line of a file, or of standard input (-): it stands for {}, or comes last
    #[arg(long, value_name = "FILE", help_heading = MANY, conflicts_with = "array")]
    pub(crate) each_line: Option<OsString>,
    /// A job for each number: it stands for {}, and in the variable RGRID_ARRAY_INDEX
    #[arg(long, value_name = "FROM-TO[:STEP]", help_heading = MANY)]
    pub(crate) array: Option<Steps>,
    /// A job for each value, passed as --NAME VALUE or in the place of {NAME}; several make every combination
    #[arg(long, value_name = "NAME=V1,V2…", help_heading = MANY)]
    pub(crate) param: Vec<String>,
    /// At most so many of them run at once, over all workers [default: as many as there is room for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = MANY)]
    pub(crate) parallel: Option<u32>,
    /// Start no further one once so many have failed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = MANY)]
    pub(crate) max_failures: Option<u32>,
    /// Start no further one once one has failed, and end those that run
    #[arg(long, help_heading = MANY, conflicts_with = "max_failures")]
    pub(crate) fail_fast: bool,
    /// Outputs straight into ./outputs, and not into a directory for each job
    #[arg(long, help_heading = MANY)]
    pub(crate) flat: bool,
}

impl BatchArgs {
    /// Whether one command line makes many jobs.
    pub(crate) fn asked(&self) -> bool {
        !self.batch.is_empty() || self.each_line.is_some() || self.array.is_some() || !self.param.is_empty()
    }

    /// The option that means nothing without a batch, if one is given.
    pub(crate) const fn idle(&self) -> Option<&'static str> {
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

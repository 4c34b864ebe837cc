//! `rgrid completions`: what a shell needs to complete our command line.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output::print_as_it_is;

const EXAMPLES: &str = "\
Examples:
  rgrid completions bash > ~/.local/share/bash-completion/completions/rgrid
  rgrid completions zsh > ~/.zfunc/_rgrid
  rgrid completions fish > ~/.config/fish/completions/rgrid.fish";

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script for `command`, the whole command line.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "rgrid", &mut script);
    print_as_it_is(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

//! `rgrid run`: a script somewhere on the grid, as if it ran here.

mod args;
pub(crate) mod batch;
mod dry_run;
mod follow;
mod follow_options;
mod grid_runtimes;
pub(crate) mod interrupt;
pub(crate) mod messages;
mod missing_files;
mod plan;
mod save_context;
mod save_outputs;
mod scan;
mod stage;
mod submission;
pub(crate) mod submit;
mod wait;

use std::{env, path::Path, process::ExitCode};

use anyhow::Context as _;

pub(crate) use self::{
    args::{RunArgs, layers::resolve},
    follow::follow,
    follow_options::FollowOptions,
    save_context::Brought,
};
use self::{
    plan::{Plan, plan, wishes::Wishes},
    submit::Answered,
};
use crate::{
    failure::usage,
    output::{print_json, print_line},
};

pub(crate) async fn run(mut args: RunArgs) -> anyhow::Result<ExitCode> {
    grid_runtimes::resolve(&mut args).await?;
    if args.many.asked() {
        return Box::pin(batch::run(args)).await;
    }
    if let Some(option) = args.many.idle() {
        return Err(usage(format!(
            "{option} is for many jobs; say which with --batch, --each-line, --array or --param"
        )));
    }
    let cwd = env::current_dir().context("cannot tell which directory this is; change to one that exists")?;
    let mut plan = plan_of(&args, &cwd)?;
    args.policy.check()?;
    args.files.check_outputs()?;
    let client = args.connect.client()?;
    let policies = args.policy.resolve(&client).await?;
    // Held to the end: what was piped in is a temporary file.
    let stdin = args.files.stdin().await?;
    plan.stdin = stdin.as_ref().map(|stdin| stdin.path.clone());
    if args.dry_run {
        return dry_run::show(&client, &args, plan, &policies).await;
    }
    plan.scanned.tell(args.verbose);
    let mut brought = Brought::of(&args, &mut plan, &cwd);
    let (submitted, mut interrupts) = match Box::pin(submit::submit(&client, &args, plan, &policies)).await? {
        Answered::Accepted(accepted) => {
            brought.given = accepted.given;
            (accepted.job, accepted.interrupts)
        }
        Answered::Interrupted(signal) => return Ok(signal.into()),
    };
    if submitted.reused {
        crate::output::say!("the same ran before: this is the result of job {}", submitted.id);
    }
    if args.detach {
        submitted.warning.iter().for_each(|warning| messages::warning(warning));
        if args.json {
            print_json(&submitted)?;
        } else {
            print_line(&submitted.id.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.verbose && !submitted.reused {
        let how = if submitted.existed && args.idempotency_key.is_some() {
            "existed already, under this key"
        } else {
            "is submitted"
        };
        crate::output::say!("job {} {how}", submitted.id);
    }
    let shown = FollowOptions {
        no_download: args.no_download,
        keep_deleted: args.files.keep_deleted,
        json: args.json,
        verbose: args.verbose,
    };
    follow(&client, shown, &submitted, &brought, &mut interrupts).await
}

fn plan_of(args: &RunArgs, cwd: &Path) -> anyhow::Result<Plan> {
    plan(cwd, &args.words, &wishes(args))
}

fn wishes(args: &RunArgs) -> Wishes<'_> {
    Wishes {
        runtime: args.named_runtime(),
        runtimes: args.runtimes.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect(),
        program: args.program,
        no_input: &args.no_input,
        files: Some(&args.files),
    }
}

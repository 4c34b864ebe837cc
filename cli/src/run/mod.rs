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
    save_context::SaveContext,
};
use self::{
    plan::{Plan, options::PlanOptions, plan},
    submit::SubmitOutcome,
};
use crate::{
    failure::usage,
    output::{print_json, print_line},
};

pub(crate) async fn run(mut args: RunArgs) -> anyhow::Result<ExitCode> {
    grid_runtimes::resolve(&mut args).await?;
    if args.many.is_batch() {
        return Box::pin(batch::run(args)).await;
    }
    if let Some(option) = args.many.unused_option() {
        return Err(usage(format!(
            "{option} is for batches; use it with --batch, --each-line, --array or --param"
        )));
    }
    let cwd = env::current_dir().context("cannot determine the current directory; change to a directory that exists")?;
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
    plan.scanned.report(args.verbose);
    let mut context = SaveContext::of(&args, &mut plan, &cwd);
    let (submitted, mut interrupts) = match Box::pin(submit::submit(&client, &args, plan, &policies)).await? {
        SubmitOutcome::Accepted(accepted) => {
            context.inputs_sent = accepted.inputs_sent;
            (accepted.job, accepted.interrupts)
        }
        SubmitOutcome::Interrupted(signal) => return Ok(signal.into()),
    };
    if submitted.reused {
        crate::output::say!("the same job ran before: this is the result of job {}", submitted.id);
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
            "already exists with this key"
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
    follow(&client, shown, &submitted, &context, &mut interrupts).await
}

fn plan_of(args: &RunArgs, cwd: &Path) -> anyhow::Result<Plan> {
    plan(cwd, &args.words, &options(args))
}

fn options(args: &RunArgs) -> PlanOptions<'_> {
    PlanOptions {
        runtime: args.named_runtime(),
        runtimes: args.runtimes.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect(),
        program: args.program,
        no_input: &args.no_input,
        files: Some(&args.files),
    }
}

//! `rgrid run`: a script somewhere on the grid, as if it ran here.

mod args;
pub(crate) mod batch;
mod batch_args;
mod dependencies;
mod deployed;
mod draft;
mod dry;
mod environment;
mod extras;
mod files;
mod first_line;
mod found;
mod gather;
mod home;
pub(crate) mod interrupt;
mod layers;
mod missed;
mod place;
mod plan;
mod planner;
mod policy;
mod runtime;
mod saving;
pub(crate) mod say;
mod script;
mod stage;
pub(crate) mod submit;
mod wait;

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bus::job::State;
use client::Client;
use model::{JobView, Submitted};
use serde_json::json;

pub(crate) use self::{args::RunArgs, layers::hear};
use self::{
    home::{Home, Within},
    interrupt::Interrupts,
    missed::{Known, LastWords, Missed},
    plan::{Plan, Wishes, plan},
    submit::Answered,
    wait::{Manner, Waited, wait},
};
use crate::{
    bring::{Asked, Sent},
    failure::usage,
    output::{print_json, print_line},
};

/// The exit code of a program whose output nobody reads, 128 + SIGPIPE.
const UNREAD: u8 = 141;

pub(crate) async fn run(mut args: RunArgs) -> anyhow::Result<ExitCode> {
    deployed::resolve(&mut args).await?;
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
        return dry::show(&client, &args, plan, &policies).await;
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
        submitted.warning.iter().for_each(|warning| say::warning(warning));
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
    let shown = Shown {
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

/// What a job was given of this machine.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// What of it stands elsewhere there.
    homes: Vec<Home>,
    /// The directory that stands for the job's own: its outputs are saved there.
    base: PathBuf,
    /// Where what it leaves may go.
    within: Within,
    /// What the user asked for by name, of what others would run unasked.
    asked: Asked,
    /// What it was given, to tell what is here as it was sent.
    given: Sent,
    /// The paths of all of it, and where they are meant from; nothing where that is not known, or the user left things out, and knows.
    known: Option<Known>,
}

impl Brought {
    fn of(args: &RunArgs, plan: &mut Plan, cwd: &Path) -> Self {
        let paths = plan.inputs.iter().map(|input| &input.path);
        let paths = paths.chain(plan.links.iter().map(|link| &link.path)).chain(&plan.dirs);
        let kept = args.no_input.iter().filter_map(|path| path.to_str());
        let sent = paths.map(ToString::to_string).chain(kept.map(ToOwned::to_owned)).collect();
        Self {
            homes: std::mem::take(&mut plan.homes),
            base: plan.root.path.clone(),
            within: std::mem::take(&mut plan.within),
            asked: args.heard.asked.clone(),
            given: Sent::default(),
            known: args.files.exclude.is_empty().then(|| known(args, plan, cwd, sent)),
        }
    }

    /// What was not, and the job missed.
    fn missed(&self, words: &LastWords) -> Vec<Missed> {
        self.known.as_ref().map_or_else(Vec::new, |known| words.missed(known))
    }
}

fn known(args: &RunArgs, plan: &Plan, cwd: &Path, sent: BTreeSet<String>) -> Known {
    let cwd = cwd.canonicalize().unwrap_or_else(|_| cwd.to_owned());
    let script = args.words.first().filter(|_| !args.program).map(|script| cwd.join(script));
    Known {
        root: cwd.join(&plan.root.path),
        script_dir: script.and_then(|script| script.canonicalize().ok()?.parent().map(Path::to_owned)),
        cwd,
        sent,
    }
}

/// How a job is shown while it runs and when it has ended.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(crate) struct Shown {
    /// Its outputs stay in the store.
    pub(crate) no_download: bool,
    /// What it removed of its inputs stays here.
    pub(crate) keep_deleted: bool,
    /// As one JSON object on standard output.
    pub(crate) json: bool,
    /// With where it runs, and what came back.
    pub(crate) verbose: bool,
}

/// Shows a job until it ends, fetches its outputs, and ends as it ended.
///
/// # Errors
/// If it cannot be followed, or its outputs cannot be had.
pub(crate) async fn follow(
    client: &Client,
    args: Shown,
    submitted: &Submitted,
    brought: &Brought,
    interrupts: &mut Interrupts,
) -> anyhow::Result<ExitCode> {
    let manner = Manner {
        on_stderr: args.json,
        verbose: args.verbose,
    };
    match Box::pin(wait(client, submitted, manner, interrupts)).await? {
        Waited::Ended(job, words) => {
            let ending = Box::pin(end(client, args, &job, (brought, &words)));
            match interrupts.unless(ending).await {
                Ok(ended) => ended,
                Err(signal) => {
                    say::unsaved(job.id);
                    Ok(signal.into())
                }
            }
        }
        Waited::Detached(signal) => {
            say::detached(submitted.id);
            // Not 0: what follows in a script must not believe that the job is done.
            Ok(signal.into())
        }
        Waited::Left(signal) => Ok(signal.into()),
        Waited::Unread => Ok(ExitCode::from(UNREAD)),
    }
}

/// The job ended: its outputs come here, and its end becomes ours.
async fn end(client: &Client, args: Shown, job: &JobView, (brought, words): (&Brought, &LastWords)) -> anyhow::Result<ExitCode> {
    // Before anything is saved that the job itself made.
    let missed = if job.exit_code.is_some() {
        brought.missed(words)
    } else {
        Vec::new()
    };
    let saved = if args.no_download {
        saving::Saved::default()
    } else {
        Box::pin(saving::save(client, args, job, brought)).await?
    };
    if args.json {
        let mut value = serde_json::to_value(job)?;
        value["outputs"] = json!(saved.outputs);
        value["saved"] = saved.report.to_json();
        print_json(&value)?;
    }
    // A script's own exit code says it all, as it does here.
    if let Some(message) = &job.message {
        crate::output::say!("job {}: {message}", job.id);
    } else if job.exit_code.is_none() {
        crate::output::say!("job {} is {}", job.id, job.state);
    }
    missed.iter().for_each(say::missed);
    saved.say(job.id, args.verbose);
    Ok(exit_code(job, saved.report.is_whole()))
}

/// The script's own exit code; 1 where it is 0 and an output could not be saved.
fn exit_code(job: &JobView, is_whole: bool) -> ExitCode {
    let code = match job.state {
        State::Succeeded => i32::from(!is_whole),
        _ => job.exit_code.unwrap_or(1),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

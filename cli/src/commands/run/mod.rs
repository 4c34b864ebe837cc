//! `rgrid run`: a script somewhere on the grid, as if it ran here.

mod args;
pub(crate) mod batch;
mod batch_args;
mod besides;
mod dependencies;
mod deployed;
mod dry;
mod environment;
mod files;
mod first_line;
mod gather;
mod home;
mod imports;
mod interrupt;
mod layers;
mod missed;
mod place;
mod plan;
mod policy;
mod runtime;
pub(crate) mod say;
mod script;
mod submit;
mod wait;

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use api::view::{ArtifactView, Artifacts, JobView, Submitted};
use bus::{job::State, spec::RelPath};
use serde_json::json;

pub(crate) use self::{args::RunArgs, layers::hear};
use self::{
    home::Home,
    missed::LastWords,
    plan::{Plan, Wishes, plan},
    wait::{Manner, Waited, wait},
};
use crate::{
    client::{Client, save_links, save_outputs},
    failure::usage,
    output::{counted, print_json, print_line, size},
};

/// The exit code of an interrupted program, 128 + SIGINT.
const INTERRUPTED: u8 = 130;
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
    let client = args.connect.client()?;
    let policies = args.policy.resolve(&client).await?;
    // Held to the end: what was piped in is a temporary file.
    let stdin = args.files.stdin().await?;
    plan.stdin = stdin.as_ref().map(|stdin| stdin.path.clone());
    if args.dry_run {
        return dry::show(&client, &args, plan, &policies).await;
    }
    let brought = Brought::of(&args, &mut plan, &cwd);
    let submitted = Box::pin(submit::submit(&client, &args, plan, &policies)).await?;
    if submitted.reused {
        eprintln!("rgrid: the same ran before: this is the result of job {}", submitted.id);
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
        let how = if submitted.existed {
            "existed already, under this key"
        } else {
            "is submitted"
        };
        eprintln!("rgrid: job {} {how}", submitted.id);
    }
    let shown = Shown {
        detach_on_interrupt: args.detach_on_interrupt,
        no_download: args.no_download,
        json: args.json,
        verbose: args.verbose,
    };
    follow(&client, shown, &submitted, &brought).await
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
    /// Its links.
    links: Vec<RelPath>,
    /// The paths of all of it, and the directory that they are from; nothing where that is not known, or the user left things out, and
    /// knows.
    sent: Option<(PathBuf, BTreeSet<String>)>,
}

impl Brought {
    fn of(args: &RunArgs, plan: &mut Plan, cwd: &Path) -> Self {
        let paths = plan.inputs.iter().map(|input| &input.path);
        let paths = paths.chain(plan.links.iter().map(|link| &link.path)).chain(&plan.dirs);
        let kept = args.no_input.iter().filter_map(|path| path.to_str());
        let sent = paths.map(ToString::to_string).chain(kept.map(ToOwned::to_owned)).collect();
        Self {
            homes: std::mem::take(&mut plan.homes),
            links: plan.links.iter().map(|link| link.path.clone()).collect(),
            sent: args.files.exclude.is_empty().then(|| (cwd.to_owned(), sent)),
        }
    }

    /// What was not, and the job missed.
    fn missed(&self, words: &LastWords) -> Vec<String> {
        let sent = self.sent.as_ref();
        sent.map_or_else(Vec::new, |(cwd, sent)| words.missed(sent, |name| cwd.join(name).exists()))
    }
}

/// How a job is shown while it runs and when it has ended.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(crate) struct Shown {
    /// An interrupt detaches without asking.
    pub(crate) detach_on_interrupt: bool,
    /// Its outputs stay in the store.
    pub(crate) no_download: bool,
    /// As one JSON object on standard output.
    pub(crate) json: bool,
    /// With where it runs, and what came back.
    pub(crate) verbose: bool,
}

/// Shows a job until it ends, fetches its outputs, and ends as it ended.
///
/// # Errors
/// If it cannot be followed, or its outputs cannot be had.
pub(crate) async fn follow(client: &Client, args: Shown, submitted: &Submitted, brought: &Brought) -> anyhow::Result<ExitCode> {
    let manner = Manner {
        detach_on_interrupt: args.detach_on_interrupt,
        on_stderr: args.json,
        verbose: args.verbose,
    };
    match Box::pin(wait(client, submitted, manner)).await? {
        Waited::Ended(job, words) => Box::pin(end(client, args, &job, (brought, &words))).await,
        Waited::Detached => {
            say::detached(submitted.id);
            // Not 0: what follows in a script must not believe that the job is done.
            Ok(ExitCode::from(INTERRUPTED))
        }
        Waited::Left => Ok(ExitCode::from(INTERRUPTED)),
        Waited::Unread => Ok(ExitCode::from(UNREAD)),
    }
}

/// The job ended: its outputs come here, and its end becomes ours.
async fn end(client: &Client, args: Shown, job: &JobView, (brought, words): (&Brought, &LastWords)) -> anyhow::Result<ExitCode> {
    let outputs = if args.no_download {
        Vec::new()
    } else {
        save(client, args, job, brought).await?
    };
    if args.json {
        let mut value = serde_json::to_value(job)?;
        value["outputs"] = json!(outputs);
        print_json(&value)?;
    }
    // A script's own exit code says it all, as it does here.
    if let Some(message) = &job.message {
        eprintln!("rgrid: job {}: {message}", job.id);
    } else if job.exit_code.is_none() {
        eprintln!("rgrid: job {} is {}", job.id, job.state);
    }
    if job.state != State::Succeeded && job.exit_code.is_some() {
        for name in brought.missed(words) {
            let quoted = shell_words::quote(&name);
            eprintln!("rgrid: {name} is here, and was not sent along; --include {quoted} sends it");
        }
    }
    Ok(exit_code(job))
}

async fn save(client: &Client, args: Shown, job: &JobView, brought: &Brought) -> anyhow::Result<Vec<ArtifactView>> {
    let left_any = job
        .attempts
        .last()
        .and_then(|attempt| attempt.manifest.as_ref())
        .is_some_and(|manifest| manifest.files + manifest.links > 0);
    if !left_any {
        return Ok(Vec::new());
    }
    let found: Artifacts = client.get(&format!("/v1/jobs/{}/artifacts", job.id), &()).await?;
    let (mut files, mut bytes) = (0, 0);
    let mut broke = None;
    for (dir, back) in home::sort(&brought.homes, (found.artifacts.clone(), found.links), &brought.links)? {
        // What cannot be saved in one place does not keep the rest from theirs.
        match save_outputs(client, job.id, back.files, (&dir, &back.sent_links)).await {
            Ok(saved) => (files, bytes) = (files + saved.paths.len(), bytes + saved.bytes),
            Err(error) => broke = broke.or(Some(error)),
        }
        broke = save_links(&back.links, &dir, true).err().or(broke);
    }
    if let Some(error) = broke {
        return Err(error);
    }
    if args.verbose {
        eprintln!("rgrid: {} ({}) came back", counted(files, "output"), size(bytes));
    }
    Ok(found.artifacts)
}

fn exit_code(job: &JobView) -> ExitCode {
    let code = match job.state {
        State::Succeeded => 0,
        _ => job.exit_code.unwrap_or(1),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

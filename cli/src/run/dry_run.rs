//! `--dry-run`: what would be sent and run.

use std::{
    collections::{HashMap, HashSet},
    process::ExitCode,
};

use bus::{
    ids::Digest,
    spec::{dependencies::Dependencies, submission::Submission},
};
use client::{Client, hash};
use model::{Hashes, Missing};
use serde::Serialize;
use serde_json::json;

use super::{
    RunArgs,
    args::{policy::Policies, resolved::Origin},
    plan::Plan,
    submission,
};
use crate::{
    failure::usage,
    output::{harmless, print, print_json, progress, size},
};

/// The most contents that the grid is asked for at once.
const AT_ONCE: usize = 10_000;

/// A file that would go along.
#[derive(Debug, Serialize)]
struct DryRunFile {
    /// Where it would stand.
    path: String,
    /// Where it is here.
    source: String,
    /// Its size in bytes.
    size: u64,
    sha256: Digest,
    /// Whether the grid has its content; nothing where the grid does not answer.
    on_grid: Option<bool>,
    /// Why it goes along, where nobody named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Prints what a run would come to.
///
/// # Errors
/// If a file cannot be read, or the job could not be submitted so.
pub(crate) async fn show(client: &Client, args: &RunArgs, plan: Plan, policies: &Policies) -> anyhow::Result<ExitCode> {
    let declared = plan.dependencies.as_ref();
    let sources = declared.iter().flat_map(|declared| declared.sources().cloned()).collect();
    let hashed = hash(sources, &progress("reading", 0)).await?;
    let hashed = hashed.into_iter().map(|file| (file.source.clone(), file)).collect();
    let submission = Submission {
        dependencies: declared.map(|declared| declared.resolve(&hashed)).transpose()?,
        env: submission::with_shebang_env(plan.env.clone(), args),
        command: plan.command.clone(),
        runtime: plan.runtime.clone(),
        ..submission::submission(args, policies)
    };
    submission.clone().accept().map_err(|refusal| usage(refusal.0))?;
    let stdin = plan
        .stdin
        .as_ref()
        .and_then(|path| std::fs::metadata(path).ok())
        .map(|meta| meta.len());
    let links = plan.links.len();
    let notes = plan.scanned.notes.clone();
    let dir = plan.root.dir.clone();
    let files = files(client, plan).await?;
    if args.json {
        let mut job = serde_json::to_value(&submission)?;
        job["env"] = json!(submission.env.keys().collect::<Vec<_>>());
        print_json(&json!({
            "namespace": args.namespace,
            "job": job,
            "files": files,
            "links": links,
            "not_sent": notes,
            "dir": dir,
            "stdin_bytes": stdin,
            "options": args.resolved.origins,
        }))?;
    } else {
        print(&words(client, args, &submission, (&files, links, stdin)))?;
        notes.iter().for_each(|note| super::messages::warning(note));
    }
    Ok(ExitCode::SUCCESS)
}

async fn files(client: &Client, plan: Plan) -> anyhow::Result<Vec<DryRunFile>> {
    let whys: HashMap<String, String> = plan
        .scanned
        .files
        .iter()
        .map(|(path, why)| (plan.root.path_of(path), why.to_string()))
        .collect();
    let bar = progress("reading", plan.inputs.iter().map(|input| input.size).sum());
    let hashed = hash(plan.inputs.iter().map(|input| input.source.clone()).collect(), &bar).await?;
    bar.finish();
    let mut missing: Option<HashSet<Digest>> = Some(HashSet::new());
    for some in hashed.chunks(AT_ONCE) {
        let sha256 = some.iter().map(|file| file.sha256).collect();
        let answer: Result<Missing, _> = client.post("/v1/files/missing", &Hashes { sha256, sizes: Vec::new() }).await;
        match (answer, &mut missing) {
            (Ok(answer), Some(missing)) => missing.extend(answer.missing),
            _ => missing = None,
        }
    }
    let sent = hashed.into_iter().zip(plan.inputs).map(|(file, input)| DryRunFile {
        why: whys.get(input.path.as_str()).cloned(),
        path: input.path.to_string(),
        source: file.source.display().to_string(),
        size: file.size,
        sha256: file.sha256,
        on_grid: missing.as_ref().map(|missing| !missing.contains(&file.sha256)),
    });
    Ok(sent.collect())
}

fn words(client: &Client, args: &RunArgs, job: &Submission, (files, links, stdin): (&[DryRunFile], usize, Option<u64>)) -> String {
    let mut lines = vec![format!("command:   {}", shell_words::join(&job.command))];
    let mut line = |name: &str, text: Option<String>| lines.extend(text.map(|text| format!("{:<11}{text}", format!("{name}:"))));
    line("runtime", job.runtime.clone());
    line("packages", job.dependencies.as_ref().map(Dependencies::called));
    line(
        "python",
        job.dependencies
            .as_ref()
            .filter(|dependencies| dependencies.packages > 0)
            .and_then(|dependencies| dependencies.python.clone()),
    );
    line("image", job.image.clone());
    line("executor", job.executor.map(|executor| executor.to_string()));
    line("grid", Some(client.url().to_owned()));
    line("namespace", Some(args.namespace.clone()));
    line("queue", Some(job.queue.clone().unwrap_or_else(|| "default".to_owned())));
    line("variables", some(job.env.keys()));
    line("secrets", some(job.secrets.keys()));
    let all: u64 = files.iter().map(|file| file.size).sum();
    let there = files.iter().filter(|file| file.on_grid == Some(true)).count();
    let count = if files.len() == 1 {
        "1 file".to_owned()
    } else {
        format!("{} files", files.len())
    };
    line("files", Some(format!("{count}, {}, {there} already stored", size(all))));
    line("links", (links > 0).then(|| links.to_string()));
    line("stdin", stdin.map(size));
    for file in files {
        let state = match file.on_grid {
            Some(true) => "there already",
            Some(false) => "would be sent",
            None => "the grid does not answer",
        };
        let why = file.why.as_ref().map(|why| format!("  ({why})")).unwrap_or_default();
        lines.push(format!("  {}  {}  {state}{why}", file.path, size(file.size)));
    }
    if !args.resolved.origins.is_empty() {
        lines.push("options:".to_owned());
    }
    for Origin { option, value, from } in &args.resolved.origins {
        let space = if value.is_empty() { "" } else { " " };
        lines.push(format!("  {option}{space}{value}  ({from})"));
    }
    lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n") + "\n"
}

fn some<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

//! From a plan to a job: hash, send what is missing, submit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use api::view::Submitted;
use bus::{
    ids::Digest,
    spec::{InputFile, Resources},
    submission::Submission,
    tree::{Content, MAX_INLINE_INPUTS, MAX_INLINE_PATHS, Tree, TreeRef},
};
use reqwest::Method;

use super::{
    RunArgs,
    dependencies::Declared,
    layers::Heard,
    plan::{Input, Plan},
    policy::Policies,
};
use crate::{
    client::{Client, Hashed, hash, put_bytes, upload},
    output::Bar,
    values::{ByteSize, Cpus, Pair, Span},
};

/// Submits a job, with its files in the store.
///
/// # Errors
/// If a file cannot be read or sent, or the grid refuses the job.
pub(super) async fn submit(client: &Client, args: &RunArgs, plan: Plan, policies: &Policies) -> anyhow::Result<Submitted> {
    let submissions = stage(client, args, vec![plan], policies).await?;
    let request = client
        .request(Method::POST, "/v1/jobs")
        .query(&[("namespace", &args.namespace)])
        .query(if args.reuse { &[("reuse", "true")][..] } else { &[] })
        .json(&submissions.first());
    Ok(client.json(request).await?)
}

/// Sends the files of all these plans that the store lacks, each once, and makes a submission of each plan.
///
/// # Errors
/// If a file cannot be read or sent.
pub(super) async fn stage(client: &Client, args: &RunArgs, plans: Vec<Plan>, policies: &Policies) -> anyhow::Result<Vec<Submission>> {
    let mut sources: BTreeSet<PathBuf> = plans
        .iter()
        .flat_map(|plan| plan.inputs.iter().map(|input| input.source.clone()))
        .collect();
    sources.extend(plans.iter().filter_map(|plan| plan.stdin.clone()));
    let declared = || plans.iter().filter_map(|plan| plan.dependencies.as_ref());
    sources.extend(declared().flat_map(Declared::sources).cloned());
    let made: BTreeSet<Vec<u8>> = declared().flat_map(Declared::made).cloned().collect();
    let size_of = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let bar = Bar::new("reading", sources.iter().map(size_of).sum());
    let hashed = hash(sources.into_iter().collect(), &bar).await?;
    bar.finish();
    if !hashed.is_empty() {
        let sent = upload(client, hashed.clone()).await?;
        if args.verbose || sent.is_much() {
            eprintln!("rgrid: {sent}");
        }
    }
    for content in made {
        put_bytes(client, Digest::of(&content), content).await?;
    }
    let hashed: HashMap<PathBuf, Hashed> = hashed.into_iter().map(|file| (file.source.clone(), file)).collect();
    let mut submissions = Vec::with_capacity(plans.len());
    for plan in plans {
        let stdin = plan.stdin.as_ref().map(|path| read_of(&hashed, path)).transpose()?;
        let stdin = stdin.map(|file| Content {
            sha256: file.sha256,
            size: file.size,
        });
        let inputs = plan.inputs.into_iter().map(|input| as_input(input, &hashed));
        let inputs = inputs.collect::<anyhow::Result<Vec<InputFile>>>()?;
        let named: usize = inputs.iter().map(|input| input.path.as_str().len()).sum();
        let many = inputs.len() > MAX_INLINE_INPUTS || named > MAX_INLINE_PATHS;
        let (inputs, files) = if many { (Vec::new(), inputs) } else { (inputs, Vec::new()) };
        let tree = Tree {
            files,
            links: plan.links,
            dirs: plan.dirs,
        };
        submissions.push(Submission {
            command: plan.command,
            runtime: plan.runtime,
            dependencies: plan.dependencies.map(|declared| declared.resolve(&hashed)).transpose()?,
            inputs,
            tree: send_list(client, &tree).await?,
            stdin,
            name: args.name.clone().or(plan.named),
            env: with_own(plan.env, args),
            ..submission(args, policies)
        });
    }
    Ok(submissions)
}

/// What was read of a file that goes along. A job without it would be another job.
///
/// # Errors
/// If it was not read, with its name.
pub(super) fn read_of<'a>(hashed: &'a HashMap<PathBuf, Hashed>, source: &Path) -> anyhow::Result<&'a Hashed> {
    hashed
        .get(source)
        .ok_or_else(|| anyhow!("cannot send {}: its content was not read; run again", source.display()))
}

fn as_input(input: Input, hashed: &HashMap<PathBuf, Hashed>) -> anyhow::Result<InputFile> {
    let file = read_of(hashed, &input.source)?;
    Ok(InputFile {
        sha256: file.sha256,
        size: file.size,
        executable: input.executable(),
        mode: (!matches!(input.mode, 0o644 | 0o755)).then_some(input.mode),
        path: input.path,
    })
}

/// Stores a list of inputs; nothing where there is nothing to be listed.
async fn send_list(client: &Client, tree: &Tree) -> anyhow::Result<Option<TreeRef>> {
    if tree.is_empty() {
        return Ok(None);
    }
    let (json, reference) = tree.to_json();
    put_bytes(client, reference.sha256, json).await?;
    Ok(Some(reference))
}

/// The variables of a script's own first line, behind those that the user gives it.
pub(super) fn with_own(own: BTreeMap<String, String>, args: &RunArgs) -> BTreeMap<String, String> {
    let Heard { env, secrets, .. } = &args.heard;
    let own = own.into_iter().filter(|(name, _)| !secrets.contains_key(name));
    own.chain(env.clone()).collect()
}

/// What the options say of the job; what it runs is left open.
pub(super) fn submission(args: &RunArgs, policies: &Policies) -> Submission {
    let pairs = |pairs: &[Pair]| pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
    Submission {
        image: args.named_image().map(str::to_owned),
        executor: args.executor.map(Into::into),
        name: args.name.clone(),
        outputs: args.files.outputs(),
        keep_outputs_ms: args.files.keep_outputs.map(Span::millis),
        env: args.heard.env.clone(),
        secrets: args.heard.secrets.clone(),
        resources: resources(args.cpu, args.memory),
        timeout_ms: policies.timeout_ms,
        queue_timeout_ms: policies.queue_timeout_ms,
        total_timeout_ms: policies.total_timeout_ms,
        grace_ms: policies.grace_ms,
        retry: policies.retry.clone(),
        max_losses: policies.max_losses,
        start: policies.start.clone(),
        queue: args.queue.clone(),
        priority: args.priority.into(),
        labels: pairs(&args.label),
        key: args.idempotency_key.clone(),
        ..Submission::default()
    }
}

fn resources(cpu: Option<Cpus>, memory: Option<ByteSize>) -> Option<Resources> {
    if cpu.is_none() && memory.is_none() {
        return None;
    }
    let default = Resources::default();
    Some(Resources {
        cpu_milli: cpu.map_or(default.cpu_milli, |cpus| cpus.0),
        memory_bytes: memory.map(|size| size.0),
        cpu_limit: cpu.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_not_read_is_an_error_that_names_it() -> anyhow::Result<()> {
        let file = |name: &str| Hashed {
            source: name.into(),
            sha256: Digest::of(name.as_bytes()),
            size: 1,
            modified: None,
        };
        let hashed: HashMap<PathBuf, Hashed> = [("a.csv".into(), file("a.csv"))].into_iter().collect();
        let input = |name: &str| -> anyhow::Result<Input> {
            Ok(Input {
                source: name.into(),
                path: name.parse()?,
                mode: 0o644,
                size: 1,
            })
        };
        assert_eq!(as_input(input("a.csv")?, &hashed)?.sha256, Digest::of(b"a.csv"));
        let error = as_input(input("b.csv")?, &hashed).expect_err("it was not read").to_string();
        assert!(error.contains("cannot send b.csv: its content was not read"), "{error}");
        Ok(())
    }
}

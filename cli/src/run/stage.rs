//! Stages inputs: uploads a plan's files to the store, and builds the submission that names them.

use std::{
    collections::{BTreeSet, HashMap},
    io::IsTerminal as _,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use bus::{
    ids::Digest,
    spec::{
        InputFile,
        submission::Submission,
        tree::{Content, MAX_INLINE_INPUTS, MAX_INLINE_PATHS, Tree, TreeRef},
    },
};
use client::{Client, Hashed, hash, put_bytes, upload};
use model::MemberSubmission;

use super::{
    RunArgs,
    args::policy::Policies,
    plan::{
        Member, Plan,
        dependencies::Declared,
        draft::JobRoot,
        input::{Input, hashed_of},
    },
    submission::{submission, with_shebang_env},
};
use crate::{
    output::{progress, uploaded},
    saving::SentInputs,
};

/// Uploads the files of a plan and of its members that the store lacks, each once. Returns the submission of the shared part, and the
/// members' own parts.
///
/// # Errors
/// If a file cannot be read or sent.
pub(crate) async fn stage(
    client: &Client,
    args: &RunArgs,
    plan: Plan,
    members: Vec<Member>,
    policies: &Policies,
) -> anyhow::Result<(Submission, Vec<MemberSubmission>, SentInputs)> {
    let hashed = send(client, args, &plan, &members).await?;
    let content = |path: &PathBuf| {
        hashed_of(&hashed, path).map(|file| Content {
            sha256: file.sha256,
            size: file.size,
        })
    };
    let stdin = plan.stdin.as_ref().map(content).transpose()?;
    let shared = Tree {
        files: as_inputs(plan.inputs, &hashed)?,
        links: plan.links,
        dirs: plan.dirs,
    };
    let inputs_sent = SentInputs::new(&[], &shared);
    let (inputs, tree) = list(client, shared.clone()).await?;
    let mut own = Vec::with_capacity(members.len());
    for member in members {
        own.push(submission_of(client, member, &hashed, &shared, tree.is_some()).await?);
    }
    let base = submission(args, policies);
    let submission = Submission {
        command: plan.command,
        runtime: plan.runtime,
        dependencies: plan.dependencies.map(|declared| declared.resolve(&hashed)).transpose()?,
        env: with_shebang_env(plan.env, args),
        inputs,
        tree,
        stdin,
        outputs: base
            .outputs
            .map(|globs| globs.into_iter().map(|glob| from_root(&glob, &plan.root)).collect()),
        dir: plan.root.dir,
        name: args.name.clone().or(plan.named),
        ..base
    };
    Ok((submission, own, inputs_sent))
}

/// Converts a glob relative to the current directory into one relative to the job's directory.
fn from_root(glob: &str, root: &JobRoot) -> String {
    match &root.dir {
        Some(dir) if matches!(glob, "." | "./") => globset::escape(dir.as_str()),
        Some(dir) if glob.contains('/') => format!("{}/{}", globset::escape(dir.as_str()), glob.trim_start_matches("./")),
        _ => glob.to_owned(),
    }
}

/// Uploads of this many bytes or files are reported on a terminal.
const WORTH_TELLING: u64 = 4 << 20;
const MANY: usize = 100;

/// Whether the upload is large enough to be reported on a terminal.
fn is_much(sent: &client::Sent) -> bool {
    std::io::stderr().is_terminal() && (sent.bytes >= WORTH_TELLING || sent.files >= MANY)
}

async fn send(client: &Client, args: &RunArgs, plan: &Plan, members: &[Member]) -> anyhow::Result<HashMap<PathBuf, Hashed>> {
    let inputs = plan.inputs.iter().chain(members.iter().flat_map(|member| &member.inputs));
    let mut sources: BTreeSet<PathBuf> = inputs.map(|input| input.source.clone()).collect();
    sources.extend(plan.stdin.clone());
    sources.extend(plan.dependencies.iter().flat_map(Declared::sources).cloned());
    let size_of = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let bar = progress("reading", sources.iter().map(size_of).sum());
    let hashed = hash(sources.into_iter().collect(), &bar).await?;
    bar.finish();
    if !hashed.is_empty() {
        let sent = upload(client, hashed.clone()).await?;
        if args.verbose || is_much(&sent) {
            crate::output::say!("{}", uploaded(&sent));
        }
    }
    for content in plan.dependencies.iter().flat_map(Declared::made) {
        put_bytes(client, Digest::of(content), content.clone()).await?;
    }
    Ok(hashed.into_iter().map(|file| (file.source.clone(), file)).collect())
}

/// A member's own part of the submission. A list of links and directories replaces the shared list, so it includes the shared entries too.
async fn submission_of(
    client: &Client,
    member: Member,
    hashed: &HashMap<PathBuf, Hashed>,
    shared: &Tree,
    is_listed: bool,
) -> anyhow::Result<MemberSubmission> {
    let own = Tree {
        files: as_inputs(member.inputs, hashed)?,
        links: member.links,
        dirs: member.dirs,
    };
    let (mut inputs, mut tree) = (Vec::new(), None);
    if own.links.is_empty() && own.dirs.is_empty() && is_few(&own.files) {
        inputs = own.files;
    } else {
        let mut all = own;
        if is_listed {
            all.files.extend(shared.files.iter().cloned());
            all.links.extend(shared.links.iter().cloned());
            all.dirs.extend(shared.dirs.iter().cloned());
        }
        tree = send_list(client, &all).await?;
    }
    Ok(MemberSubmission {
        item: String::new(),
        command: member.command,
        inputs,
        tree,
        env: Default::default(),
    })
}

fn as_inputs(inputs: Vec<Input>, hashed: &HashMap<PathBuf, Hashed>) -> anyhow::Result<Vec<InputFile>> {
    inputs.into_iter().map(|input| as_input(input, hashed)).collect()
}

fn as_input(input: Input, hashed: &HashMap<PathBuf, Hashed>) -> anyhow::Result<InputFile> {
    let file = hashed_of(hashed, &input.source)?;
    Ok(InputFile {
        sha256: file.sha256,
        size: file.size,
        executable: input.executable(),
        mode: (!matches!(input.mode, 0o644 | 0o755)).then_some(input.mode),
        modified_ms: file.modified.and_then(ms_of),
        path: input.path,
    })
}

fn ms_of(time: SystemTime) -> Option<i64> {
    let (span, is_before) = match time.duration_since(UNIX_EPOCH) {
        Ok(span) => (span, false),
        Err(before) => (before.duration(), true),
    };
    let ms = i64::try_from(span.as_millis()).ok()?;
    Some(if is_before { -ms } else { ms })
}

fn is_few(files: &[InputFile]) -> bool {
    let named: usize = files.iter().map(|file| file.path.as_str().len()).sum();
    files.len() <= MAX_INLINE_INPUTS && named <= MAX_INLINE_PATHS
}

/// A few files are listed in the job itself. Many files, links and directories are listed in a tree in the store.
async fn list(client: &Client, mut tree: Tree) -> anyhow::Result<(Vec<InputFile>, Option<TreeRef>)> {
    let inputs = if is_few(&tree.files) {
        std::mem::take(&mut tree.files)
    } else {
        Vec::new()
    };
    Ok((inputs, send_list(client, &tree).await?))
}

/// Stores a tree of inputs; `None` if it is empty.
async fn send_list(client: &Client, tree: &Tree) -> anyhow::Result<Option<TreeRef>> {
    if tree.is_empty() {
        return Ok(None);
    }
    let (json, reference) = tree.to_json();
    put_bytes(client, reference.sha256, json).await?;
    Ok(Some(reference))
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

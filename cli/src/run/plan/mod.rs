//! From the words of the command line to the job's command and the files that go along.

pub(crate) mod dependencies;
pub(crate) mod draft;
pub(crate) mod extra_inputs;
pub(crate) mod gather;
pub(crate) mod input;
pub(crate) mod job_path;
pub(crate) mod original_path;
pub(crate) mod planner;
pub(crate) mod runtime;
pub(crate) mod scanned;
pub(crate) mod shebang;
pub(crate) mod wishes;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use bus::spec::{RelPath, tree::Link};

use self::{
    dependencies::Declared,
    draft::Root,
    input::{Input, named},
    original_path::{Home, Within},
    planner::Planner,
    scanned::Scanned,
    wishes::Wishes,
};
use crate::failure::usage;

/// What is to be run, with which files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What the script's first line tells its runtime, the script as the job calls it, and its arguments.
    pub(crate) command: Vec<String>,
    /// What runs it; nothing for a program.
    pub(crate) runtime: Option<String>,
    /// The files that go along.
    pub(crate) inputs: Vec<Input>,
    /// The links that go along: where each will be, and what it says.
    pub(crate) links: Vec<Link>,
    /// The directories that go along with nothing in them.
    pub(crate) dirs: Vec<RelPath>,
    /// The directory of here that the job's work directory stands for, and where the command starts in it.
    pub(crate) root: Root,
    /// Variables that its first line sets.
    pub(crate) env: BTreeMap<String, String>,
    /// The packages that it needs.
    pub(crate) dependencies: Option<Declared>,
    /// What it reads from standard input.
    pub(crate) stdin: Option<PathBuf>,
    /// What goes along from elsewhere, or to elsewhere.
    pub(crate) homes: Vec<Home>,
    /// Where what it leaves may go.
    pub(crate) within: Within,
    /// What to call it, where its command does not begin with the script.
    pub(crate) named: Option<String>,
    /// What was found that the script needs.
    pub(crate) scanned: Scanned,
}

/// What is a job's own, of several with one script.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) command: Vec<String>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) links: Vec<Link>,
    pub(crate) dirs: Vec<RelPath>,
}

/// Plans a run from a directory.
///
/// # Errors
/// A usage error where a word cannot be meant so.
pub(crate) fn plan(cwd: &Path, words: &[OsString], wishes: &Wishes<'_>) -> anyhow::Result<Plan> {
    Ok(plan_all(cwd, &[words.to_vec()], wishes, true)?.0)
}

/// Plans runs of one script from a directory, each with words of its own: what they share is looked at once.
///
/// # Errors
/// A usage error where a word cannot be meant so.
pub(crate) fn plan_batch(cwd: &Path, runs: &[Vec<OsString>], wishes: &Wishes<'_>) -> anyhow::Result<(Plan, Vec<Member>)> {
    plan_all(cwd, runs, wishes, false)
}

fn plan_all(cwd: &Path, runs: &[Vec<OsString>], wishes: &Wishes<'_>, is_one: bool) -> anyhow::Result<(Plan, Vec<Member>)> {
    let runs = runs
        .iter()
        .map(|words| words.iter().map(|word| text(word)).collect::<anyhow::Result<Vec<&str>>>())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let Some(script) = runs.first().and_then(|words| words.first()).copied() else {
        return Err(usage("name a script"));
    };
    check_no_input(&runs, wishes)?;
    let mut planner = Planner::new(cwd, script, &runs, wishes)?;
    planner.aliases()?;
    // First those that keep their path, so that nothing from elsewhere takes it; then whole directories, in which others may be.
    for here in [true, false] {
        for words in &runs {
            words.iter().for_each(|word| planner.reserve(word, here));
        }
    }
    let (mut command, runtime) = if wishes.program {
        (vec![script.to_owned()], None)
    } else {
        planner.script(script)?
    };
    let called = command.last().cloned().unwrap_or_default();
    let named = (command.len() > 1).then(|| called.clone());
    // Of one run, its arguments come before what is found, as the user wrote them.
    let own = if is_one { planner.arguments(&runs[0][1..])? } else { Vec::new() };
    planner.add_extras()?;
    let scanned = planner.scan(script, &called, runtime.as_deref(), &runs)?;
    planner.room()?;
    let dependencies = planner.dependencies(script, runtime.as_deref(), &called)?;
    let mut shared = planner.draft.take();
    let drafts = if is_one {
        Vec::new()
    } else {
        planner.members(&command, &runs, &mut shared)?
    };
    let root = Root::around(&planner.ground.cwd, drafts.iter().map(|(_, draft)| draft).chain([&shared]));
    let (inputs, links, dirs) = shared.finish(&root)?;
    let members = drafts.into_iter().map(|(command, draft)| {
        let (inputs, links, dirs) = draft.finish(&root)?;
        Ok(Member {
            command,
            inputs,
            links,
            dirs,
        })
    });
    let members = members.collect::<anyhow::Result<Vec<_>>>()?;
    command.extend(own);
    let plan = Plan {
        command,
        runtime,
        inputs,
        links,
        dirs,
        homes: std::mem::take(&mut planner.homes)
            .into_iter()
            .map(|home| home.within(&root))
            .collect(),
        within: Within::of(&root, &planner.above),
        root,
        env: planner.env,
        dependencies,
        stdin: None,
        named,
        scanned,
    };
    Ok((plan, members))
}

fn check_no_input(runs: &[Vec<&str>], wishes: &Wishes<'_>) -> anyhow::Result<()> {
    let names = |path: &OsString| {
        runs.iter()
            .flat_map(|words| &words[1..])
            .any(|word| named(word).any(|name| name == path.as_os_str()))
    };
    match wishes.no_input.iter().find(|path| !names(path)) {
        Some(path) => Err(usage(format!(
            "--no-input {} names none of the script's arguments; write it exactly as the argument",
            path.display()
        ))),
        None => Ok(()),
    }
}

fn text(word: &OsStr) -> anyhow::Result<&str> {
    word.to_str().ok_or_else(|| {
        usage(format!(
            "the argument `{}` is not text (UTF-8), and cannot be sent; rename the file, or write it otherwise",
            word.display()
        ))
    })
}

#[cfg(test)]
mod tests;

//! Plans a run: the words of the command line become the job's command and its inputs.

pub(crate) mod dependencies;
pub(crate) mod draft;
pub(crate) mod extra_inputs;
pub(crate) mod gather;
pub(crate) mod input;
pub(crate) mod job_path;
pub(crate) mod options;
pub(crate) mod original_path;
pub(crate) mod planner;
pub(crate) mod runtime;
pub(crate) mod scanned;
pub(crate) mod shebang;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use bus::spec::{RelPath, tree::Link};

use self::{
    dependencies::Declared,
    draft::JobRoot,
    input::{Input, named},
    options::PlanOptions,
    original_path::{OriginalPath, SaveScope},
    planner::Planner,
    scanned::Scanned,
};
use crate::failure::usage;

/// A planned job: its command and its inputs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The options of the script's first line, the script's path in the job's directory, and its arguments.
    pub(crate) command: Vec<String>,
    /// The runtime; `None` for a program.
    pub(crate) runtime: Option<String>,
    /// The input files.
    pub(crate) inputs: Vec<Input>,
    /// The links to create in the job's directory.
    pub(crate) links: Vec<Link>,
    /// The empty directories to create in the job's directory.
    pub(crate) dirs: Vec<RelPath>,
    /// The local directory that corresponds to the job's directory, and where the command starts in it.
    pub(crate) root: JobRoot,
    /// Variables that the script's first line sets.
    pub(crate) env: BTreeMap<String, String>,
    /// The packages that the script needs.
    pub(crate) dependencies: Option<Declared>,
    /// The file that the script reads as standard input.
    pub(crate) stdin: Option<PathBuf>,
    /// Inputs that have another path in the job's directory than here.
    pub(crate) original_paths: Vec<OriginalPath>,
    /// Where outputs may be saved.
    pub(crate) save_scope: SaveScope,
    /// The job's name, if its command does not begin with the script.
    pub(crate) named: Option<String>,
    /// What was found that the script needs.
    pub(crate) scanned: Scanned,
}

/// One member of a batch: its own command and inputs.
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
/// A usage error if a word of the command line is invalid.
pub(crate) fn plan(cwd: &Path, words: &[OsString], options: &PlanOptions<'_>) -> anyhow::Result<Plan> {
    Ok(plan_all(cwd, &[words.to_vec()], options, true)?.0)
}

/// Plans a batch: several runs of one script with different arguments. Shared inputs are planned once.
///
/// # Errors
/// A usage error if a word of the command line is invalid.
pub(crate) fn plan_batch(cwd: &Path, runs: &[Vec<OsString>], options: &PlanOptions<'_>) -> anyhow::Result<(Plan, Vec<Member>)> {
    plan_all(cwd, runs, options, false)
}

fn plan_all(cwd: &Path, runs: &[Vec<OsString>], options: &PlanOptions<'_>, is_one: bool) -> anyhow::Result<(Plan, Vec<Member>)> {
    let runs = runs
        .iter()
        .map(|words| words.iter().map(|word| text(word)).collect::<anyhow::Result<Vec<&str>>>())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let Some(script) = runs.first().and_then(|words| words.first()).copied() else {
        return Err(usage("name a script"));
    };
    check_no_input(&runs, options)?;
    let mut planner = Planner::new(cwd, script, &runs, options)?;
    planner.aliases()?;
    // First those that keep their path, so that nothing from elsewhere takes it; then whole directories, in which others may be.
    for here in [true, false] {
        for words in &runs {
            words.iter().for_each(|word| planner.reserve(word, here));
        }
    }
    let (mut command, runtime) = if options.program {
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
    let root = JobRoot::around(&planner.scope.cwd, drafts.iter().map(|(_, draft)| draft).chain([&shared]));
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
        original_paths: std::mem::take(&mut planner.original_paths)
            .into_iter()
            .map(|home| home.save_scope(&root))
            .collect(),
        save_scope: SaveScope::of(&root, &planner.above),
        root,
        env: planner.env,
        dependencies,
        stdin: None,
        named,
        scanned,
    };
    Ok((plan, members))
}

fn check_no_input(runs: &[Vec<&str>], options: &PlanOptions<'_>) -> anyhow::Result<()> {
    let names = |path: &OsString| {
        runs.iter()
            .flat_map(|words| &words[1..])
            .any(|word| named(word).any(|name| name == path.as_os_str()))
    };
    match options.no_input.iter().find(|path| !names(path)) {
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
            "the argument `{}` is not text (UTF-8), and cannot be sent; rename the file, or change the argument",
            word.display()
        ))
    })
}

#[cfg(test)]
mod tests;

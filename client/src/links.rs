//! The symbolic links among a job's outputs: made only where they stay inside, whatever stands there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path},
};

use anyhow::ensure;
use bus::spec::tree::Link;

use super::download::ensure_inside;

/// Refuses a link of a job's that may lead out, or that would stand behind another link of the same job.
///
/// # Errors
/// If it is one.
pub fn check_link(link: &Link, named: &BTreeSet<&str>) -> anyhow::Result<()> {
    let path = link.path.as_str();
    let behind = path.match_indices('/').any(|(at, _)| named.contains(&path[..at]));
    ensure!(link.leads_to().is_some() && !behind, "the link may lead out of the job's directory");
    Ok(())
}

/// Refuses a link that would lead out where it stands here, once its directory is there: that one may stand behind a link of here.
///
/// # Errors
/// If it would.
pub fn check_climb(link: &Link, into: &Path, target: &Path) -> anyhow::Result<()> {
    let parent = target.parent().unwrap_or(into);
    ensure_inside(into, parent)?;
    ensure!(
        climbs(link) <= depth(into, parent),
        "the link would lead out of the directory, since it stands behind another link here"
    );
    Ok(())
}

/// How far up a link's words lead before they lead down.
fn climbs(link: &Link) -> usize {
    link.target.split('/').filter(|part| *part == "..").count()
}

/// How far below a directory a path really lies, that is inside it, once every link on the way is followed.
fn depth(into: &Path, path: &Path) -> usize {
    let into = if into.as_os_str().is_empty() { Path::new(".") } else { into };
    let path = into.join(path.strip_prefix(into).unwrap_or(path));
    let count = |path: &Path| path.components().filter(|part| matches!(part, Component::Normal(_))).count();
    let Some((there, real)) = path.ancestors().find_map(|at| Some((at, at.canonicalize().ok()?))) else {
        return 0;
    };
    let made = path.strip_prefix(there).map_or(0, count);
    // Without the directory itself, nothing in it is a link.
    let lies = fs::canonicalize(into).map_or(0, |root| real.strip_prefix(&root).map_or(0, count));
    let above = into.strip_prefix(there).map_or(0, count);
    (lies + made).saturating_sub(above)
}

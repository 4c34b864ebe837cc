//! The symbolic links among a job's outputs: made only where they stay inside, whatever stands there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use bus::tree::Link;

use super::download::{ensure_inside, target};

/// Makes the symbolic links of a job's outputs, below the directory that its files were saved in. None is made that would lead out,
/// or that would stand behind one, or where something stands that is no link; a link that differs is replaced if that is meant. Says
/// which were made.
///
/// # Errors
/// Before any is made, if one may not be; and at the first that cannot be made.
pub(crate) fn save_links(links: &[Link], into: &Path, overwrite: bool) -> anyhow::Result<Vec<PathBuf>> {
    let named: BTreeSet<&str> = links.iter().map(|link| link.path.as_str()).collect();
    let mut missing = Vec::new();
    for link in links {
        let (path, target) = (link.path.as_str(), target(into, link.path.as_str())?);
        let behind = path.match_indices('/').any(|(at, _)| named.contains(&path[..at]));
        ensure!(
            link.leads_to().is_some() && !behind,
            "the job has a link named `{path}` that may lead out of its directory; no link of it was made"
        );
        ensure_inside(into, target.parent().unwrap_or(into))?;
        let there = fs::read_link(&target).ok();
        if there.as_deref() == Some(Path::new(&link.target)) {
            continue;
        }
        ensure!(
            there.is_none() || overwrite,
            "{} is a link here that leads elsewhere; replace it with --overwrite, or save elsewhere with -o DIR",
            target.display()
        );
        missing.push((link, target, there.is_some()));
    }
    for (link, target, replaces) in &missing {
        // What was made meanwhile, one of these perhaps.
        let parent = target.parent().unwrap_or(into);
        ensure_inside(into, parent)?;
        ensure!(
            climbs(link) <= depth(into, parent),
            "the link {} would lead out of the directory, since it stands behind another link here, and was not made; save elsewhere with -o DIR",
            target.display()
        );
        let make = || {
            fs::create_dir_all(parent)?;
            if *replaces {
                fs::remove_file(target)?;
            }
            std::os::unix::fs::symlink(&link.target, target)
        };
        make().with_context(|| format!("cannot make the link {}", target.display()))?;
    }
    Ok(missing.into_iter().map(|(_, target, _)| target).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::download::is_inside;

    #[test]
    fn no_link_is_made_that_leads_out_or_where_a_file_stands() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let link = |path: &str, target: &str| -> anyhow::Result<Link> {
            Ok(Link {
                path: path.parse()?,
                target: target.to_owned(),
            })
        };
        for target in ["/etc", "../x", "a/../../x"] {
            assert!(save_links(&[link("l", target)?], temp.path(), true).is_err(), "{target}");
        }
        fs::write(temp.path().join("mine"), "mine")?;
        assert!(save_links(&[link("mine", "x")?], temp.path(), true).is_err());
        save_links(&[link("d/l", "../mine")?], temp.path(), false)?;
        assert!(save_links(&[link("d/l", "other")?], temp.path(), false).is_err());
        save_links(&[link("d/l", "other")?], temp.path(), true)?;
        assert_eq!(fs::read_link(temp.path().join("d/l"))?, Path::new("other"));
        Ok(())
    }

    #[test]
    fn links_that_lead_out_only_together_are_not_made_nor_written_behind() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let (into, outside) = (temp.path().join("to"), temp.path().join("outside"));
        fs::create_dir_all(&into)?;
        fs::create_dir_all(&outside)?;
        let link = |path: &str, target: &str| Link {
            path: path.parse().expect("a path"),
            target: target.to_owned(),
        };
        let chains = [
            // `..` behind a link is the parent of where that one leads.
            vec![link("a/b/up", "../.."), link("l2", "a/b/up/../outside"), link("l2/planted", "x")],
            vec![link("d", "e"), link("d/l", "../x")],
        ];
        // Of two jobs, the first of which did no harm.
        save_links(&[link("p/q/r", "../.."), link("p/s", "../nowhere")], &into, true)?;
        for second in [link("p/q/r/e", "../outside"), link("p/q/r/e", "../../outside/x")] {
            assert!(save_links(&[second], &into, true).is_err());
        }
        save_links(&[link("p/q/r/fine", "p/q"), link("p/q/up", "../../x")], &into, true)?;
        save_links(&[link("new/l", "../x"), link("l", "x")], &temp.path().join("not/yet/there"), true)?;
        for chain in chains {
            assert!(save_links(&chain, &into, true).is_err(), "{chain:?}");
        }
        assert_eq!(fs::read_dir(&outside)?.count(), 0);
        // One that is there already, whoever made it.
        std::os::unix::fs::symlink("../outside", into.join("out"))?;
        assert!(save_links(&[link("out/planted", "x")], &into, true).is_err());
        assert!(!is_inside(&into, &into.join("out/file")) && !is_inside(&into, &into.join("out")));
        assert!(is_inside(&into, &into.join("new/file")));
        std::os::unix::fs::symlink("/nowhere", into.join("dangling"))?;
        assert!(!is_inside(&into, &into.join("dangling")));
        assert_eq!(fs::read_dir(&outside)?.count(), 0);
        Ok(())
    }
}

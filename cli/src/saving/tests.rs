//! What is made of links and files that mean harm, without a grid.

use std::{fs, path::Path};

use anyhow::Result;

use super::*;

fn client() -> Result<Client> {
    // Nothing here asks it for anything.
    Ok(Client::new(&"http://127.0.0.1:1".parse()?, None)?)
}

fn link(path: &str, target: &str) -> Link {
    Link {
        path: path.parse().expect("a path"),
        target: target.to_owned(),
    }
}

async fn save(links: &[Link], into: &Path, mode: SaveMode) -> Result<Report> {
    let target = SaveTarget {
        job: JobId::new(),
        into,
        base: into,
        mode,
        sent: &SentInputs::default(),
        removes: false,
        asked: &NamedOutputs::Nothing,
    };
    Ok(save_all(&client()?, target, JobOutputs::here(Vec::new(), links.to_vec())).await)
}

#[tokio::test]
async fn no_link_is_made_that_leads_out_and_none_is_replaced_without_a_word() -> Result<()> {
    let temp = tempfile::tempdir()?;
    for target in ["/etc", "../x", "a/../../x"] {
        assert!(
            !save(&[link("l", target)], temp.path(), SaveMode::Overwrite).await?.is_whole(),
            "{target}"
        );
    }
    fs::write(temp.path().join("mine"), "mine")?;
    assert!(!save(&[link("mine", "x")], temp.path(), SaveMode::Careful).await?.is_whole());
    assert!(save(&[link("d/l", "../mine")], temp.path(), SaveMode::Careful).await?.is_whole());
    assert!(!save(&[link("d/l", "other")], temp.path(), SaveMode::Careful).await?.is_whole());
    assert!(save(&[link("d/l", "other")], temp.path(), SaveMode::Overwrite).await?.is_whole());
    assert_eq!(fs::read_link(temp.path().join("d/l"))?, Path::new("other"));
    // A run keeps what was not sent; a failed one leaves it where it is.
    let report = save(&[link("mine", "x")], temp.path(), SaveMode::AsRun { failed: true }).await?;
    assert_eq!(
        (report.beside.len(), fs::read_to_string(temp.path().join("mine"))?.as_str()),
        (1, "mine")
    );
    let report = save(&[link("mine", "x")], temp.path(), SaveMode::AsRun { failed: false }).await?;
    assert_eq!(
        (report.replaced.len(), fs::read_link(temp.path().join("mine"))?.as_path()),
        (1, Path::new("x"))
    );
    Ok(())
}

#[tokio::test]
async fn links_that_lead_out_only_together_are_not_made_nor_written_behind() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let (into, outside) = (temp.path().join("to"), temp.path().join("outside"));
    fs::create_dir_all(&into)?;
    fs::create_dir_all(&outside)?;
    let chains = [
        // `..` behind a link is the parent of where that one leads.
        vec![link("a/b/up", "../.."), link("l2", "a/b/up/../outside"), link("l2/planted", "x")],
        vec![link("d", "e"), link("d/l", "../x")],
    ];
    let overwrite = SaveMode::Overwrite;
    // Of two jobs, the first of which did no harm.
    let harmless = [link("p/q/r", "../.."), link("p/s", "../nowhere")];
    assert!(save(&harmless, &into, overwrite).await?.is_whole());
    for second in [link("p/q/r/e", "../outside"), link("p/q/r/e", "../../outside/x")] {
        assert!(!save(&[second], &into, overwrite).await?.is_whole());
    }
    let fine = [link("p/q/r/fine", "p/q"), link("p/q/up", "../../x")];
    assert!(save(&fine, &into, overwrite).await?.is_whole());
    let new = [link("new/l", "../x"), link("l", "x")];
    assert!(save(&new, &temp.path().join("not/yet/there"), overwrite).await?.is_whole());
    for chain in chains {
        assert!(!save(&chain, &into, overwrite).await?.is_whole(), "{chain:?}");
    }
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    // One that is there already, no matter who made it.
    std::os::unix::fs::symlink("../outside", into.join("out"))?;
    assert!(!save(&[link("out/planted", "x")], &into, overwrite).await?.is_whole());
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn what_others_would_run_unasked_is_held_back_and_named() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let report = save(
        &[link(".envrc", "x"), link("a/.vscode", "x"), link("b/fine", "x")],
        temp.path(),
        SaveMode::Overwrite,
    )
    .await?;
    let held: Vec<&str> = report.unsaved.iter().map(|one| one.path.as_str()).collect();
    assert_eq!((held, report.saved.len()), (vec![".envrc", "a/.vscode"], 1));
    assert!(
        report.unsaved[0].why.contains("direnv") && report.unsaved[0].why.contains("--output"),
        "{report:?}"
    );
    assert!(!temp.path().join("a").exists(), "not even its directory is made");
    // What is here already, as the job left it, is no concern.
    std::os::unix::fs::symlink("x", temp.path().join(".envrc"))?;
    assert!(save(&[link(".envrc", "x")], temp.path(), SaveMode::Careful).await?.is_whole());
    Ok(())
}

#[tokio::test]
async fn a_hostile_grids_names_lead_nowhere_else() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let into = temp.path().join("here");
    fs::create_dir(&into)?;
    let absolute = temp.path().join("absolute").display().to_string();
    for path in ["../up", "a/../../up", "/etc/x", absolute.as_str(), "", ".", "a//b", "a/./b"] {
        let file: Result<ArtifactView, _> =
            serde_json::from_value(serde_json::json!({ "path": path, "sha256": Digest::of(b""), "size": 0 }));
        let link: Result<Link, _> = serde_json::from_value(serde_json::json!({ "path": path, "target": "x" }));
        assert!(file.is_err() && link.is_err(), "{path}");
    }
    assert_eq!(fs::read_dir(temp.path())?.count(), 1);
    Ok(())
}

#[tokio::test]
async fn nothing_is_saved_among_rgrids_own_files() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let report = save(
        &[link(".rgrid/replaced/x", "y"), link("a/.rgrid/l", "y")],
        temp.path(),
        SaveMode::Overwrite,
    )
    .await?;
    assert_eq!((report.unsaved.len(), report.saved.len()), (1, 1));
    assert!(!temp.path().join(".rgrid").exists());
    Ok(())
}

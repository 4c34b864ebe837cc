//! What workers keep.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};
use store::PackagesEntry;

use super::{INSTALLED, STORED, logged, saying, wheel};
use crate::cli::here::Here;

/// A wheel of 450 KB, of which two fit.
fn large(here: &Here, word: &str) -> Result<String> {
    let body = format!(
        "def said(): return '{word}'\n{}\n",
        "# 45 bytes of a comment that is nobody's code.\n".repeat(9_600)
    );
    wheel(&here.path().join("wheels"), "hail", "1.0", &body, "")
}

#[tokio::test]
async fn what_is_too_much_goes_and_comes_back_from_the_store() -> Result<()> {
    let mut grid = Grid::start_only(&[Part::Api, Part::Projector, Part::Watcher]).await?;
    grid.run_with(Part::Runner(1), &["--cache-bytes", "1MB"])?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import hail\nprint(hail.said())\n")?;
    for word in ["a", "b", "c"] {
        let file = large(&here, word)?;
        here.write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
        let came = here.rgrid(&["run", "s.py"])?;
        assert_eq!((came.code, came.out()), (0, format!("{word}\n")), "{}", came.err());
    }
    logged(&grid, Part::Runner(1), STORED, 3).await?;
    let packages = grid.dir().join("runner-1/packages");
    grid.eventually("they fit", async || {
        let there = fs::read_dir(&packages)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        (there.filter(|name| name.len() == 64).count() <= 2).then_some(())
    })
    .await?;
    let file = large(&here, "a")?;
    here.write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
    let came = here.rgrid(&["run", "s.py"])?;
    assert_eq!((came.code, came.out().as_str()), (0, "a\n"));
    ensure!(came.err().contains("fetching 1 package"), "{}", came.err());
    assert_eq!(grid.log(Part::Runner(1)).matches(INSTALLED).count(), 3);
    Ok(())
}

/// A grid over a directory, whose worker has installed and stored a package for a script.
async fn stored() -> Result<(tempfile::TempDir, Grid, Here)> {
    let store = tempfile::TempDir::new()?;
    let env = vec![("RGRID_STORE", format!("file://{}", store.path().display()))];
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
    grid.run(Part::Runner(1))?;
    let here = Here::of(&grid)?;
    let file = saying(&here, "hail", "hello")?;
    here.write("s.py", "import hail\nprint(hail.said())\n")?
        .write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
    ensure!(here.rgrid(&["run", "s.py"])?.code == 0);
    logged(&grid, Part::Runner(1), STORED, 1).await?;
    Ok((store, grid, here))
}

#[tokio::test]
async fn stored_packages_that_are_damaged_are_installed_anew() -> Result<()> {
    let (store, mut grid, here) = stored().await?;
    grid.kill(Part::Runner(1))?;
    for (number, damage) in [(2, None), (3, Some("no archive")), (4, Some("nothing"))] {
        let entry = fs::read_dir(store.path().join("packages"))?.next().context("an entry")??.path();
        let said: serde_json::Value = serde_json::from_slice(&fs::read(&entry)?)?;
        let archive = said["archive"].as_str().context("an archive")?.to_owned();
        let archive = store.path().join(format!("sha256/{}/{archive}", &archive[..2]));
        match damage {
            None => fs::remove_file(&archive)?,
            Some("nothing") => fs::write(&entry, "nothing")?,
            Some(text) => fs::write(&archive, text)?,
        }
        grid.run(Part::Runner(number))?;
        let came = here.rgrid(&["run", "s.py"])?;
        assert_eq!((came.code, came.out().as_str()), (0, "hello\n"), "{}", came.err());
        logged(&grid, Part::Runner(number), INSTALLED, 1).await?;
        logged(&grid, Part::Runner(number), STORED, 1).await?;
        grid.kill(Part::Runner(number))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_that_uses_its_own_copy_keeps_the_stored_one() -> Result<()> {
    let (store, grid, here) = stored().await?;
    let entry = fs::read_dir(store.path().join("packages"))?.next().context("an entry")??.path();
    let read = || -> Result<PackagesEntry> { Ok(serde_json::from_slice(&fs::read(&entry)?)?) };
    let long_ago = chrono::Utc::now() - chrono::TimeDelta::days(60);
    let old = PackagesEntry {
        used_at: long_ago,
        ..read()?
    };
    fs::write(&entry, serde_json::to_vec(&old)?)?;
    let came = here.rgrid(&["run", "s.py"])?;
    ensure!(came.code == 0 && came.err().is_empty(), "its own copy: {}", came.err());
    grid.eventually("its use is noted", async || (read().ok()?.used_at > long_ago).then_some(()))
        .await
}

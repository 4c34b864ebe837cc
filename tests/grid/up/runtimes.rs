//! The grid's runtimes are a file in its data directory.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use super::{Place, eventually, said};

#[test]
fn the_data_directory_s_runtimes_toml_is_the_grid_s() -> Result<()> {
    let place = Place::new()?;
    let file = place.path().join("runtimes.toml");
    fs::write(&file, "[aliases]\n\npy = 1\n")?;
    let refused = said(&place.run("up", &["--detach"])?, 1)?;
    assert!(refused.contains("runtimes.toml, line 3: `py` must be a string"), "{refused}");

    fs::remove_file(&file)?;
    place.up()?;
    let template = fs::read_to_string(&file)?;
    assert!(template.contains("# [aliases]"), "{template}");
    fs::write(&file, format!("{template}\n[aliases]\npy311 = \"python:3.11\"\n"))?;
    eventually("the edit is known", || {
        let listed: Value = serde_json::from_slice(&place.run("runtimes", &["--json"])?.stdout).unwrap_or_default();
        Ok((listed["aliases"]["py311"] == "python:3.11").then_some(()))
    })
}

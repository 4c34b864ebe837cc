//! Archives that somebody made so that Docker gives an image's name another meaning.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use runner::executor::docker::load;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::{Shell, docker, grid, id_of};
use crate::cli::here::Here;

/// A member: its path as it stands in the header, its kind, what it links to, its content.
type Member = (String, EntryType, &'static str, Vec<u8>);

fn file(path: &str, content: &Value) -> Member {
    (path.to_owned(), EntryType::Regular, "", content.to_string().into_bytes())
}

fn archive(members: &[Member]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, kind, link, content) in members {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, &content[..])?;
    }
    Ok(tar.into_inner()?)
}

/// The files of an image, as Docker saves it, without its list of images; and that list.
fn saved(name: &str, dir: &Path) -> Result<(Vec<Member>, Value)> {
    let into = dir.join("saved.tar");
    docker(&["save", "--output", into.to_str().context("a path")?, name])?;
    let (mut members, mut list) = (Vec::new(), Value::Null);
    for entry in tar::Archive::new(fs::File::open(&into)?).entries()? {
        let mut entry = entry?;
        let (path, mut content) = (entry.path()?.to_string_lossy().into_owned(), Vec::new());
        entry.read_to_end(&mut content)?;
        match (path.as_str(), entry.header().entry_type()) {
            ("manifest.json", _) => list = serde_json::from_slice(&content)?,
            ("repositories" | "index.json" | "oci-layout", _) => {}
            (_, EntryType::Regular) => members.push((path, EntryType::Regular, "", content)),
            _ => {}
        }
    }
    Ok((members, list))
}

/// Each way of smuggling a second list of names in, by what it is called.
fn tricks(victim: &str, honest: &Value) -> Vec<(&'static str, Vec<Member>)> {
    let mut bait = honest.clone();
    bait[0]["RepoTags"] = json!([victim]);
    let list = || file("manifest.json", honest);
    let under = |path: &str| vec![list(), file(path, &bait)];
    let linked = |kind| vec![list(), file("m", &bait), ("manifest.json".to_owned(), kind, "m", Vec::new())];
    let named = |kind, record: &str| vec![list(), ("r".to_owned(), kind, "", record.as_bytes().to_vec()), file("x", &bait)];
    let (repository, tag) = victim.rsplit_once(':').unwrap_or((victim, "latest"));
    let config = honest[0]["Config"].as_str().unwrap_or_default().trim_end_matches(".json");
    let described = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{config}"), "size": 2,
        "annotations": { "io.containerd.image.name": format!("docker.io/{victim}"), "org.opencontainers.image.ref.name": tag },
    }] });
    vec![
        ("the list itself", vec![file("manifest.json", &bait)]),
        ("the root", under("/manifest.json")),
        ("a way round", under("x/../manifest.json")),
        ("this directory", under("././manifest.json")),
        ("again", under("manifest.json")),
        ("a hard link", linked(EntryType::Link)),
        ("a symbolic link", linked(EntryType::Symlink)),
        ("a long name", named(EntryType::GNULongName, "manifest.json\0")),
        ("a PAX record", named(EntryType::XHeader, "22 path=manifest.json\n")),
        ("a PAX record for all", named(EntryType::XGlobalHeader, "22 path=manifest.json\n")),
        (
            "the old list",
            vec![list(), file("repositories", &json!({ repository: { tag: config } }))],
        ),
        (
            "the OCI's list",
            vec![
                list(),
                file("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" })),
                file("index.json", &described),
            ],
        ),
    ]
}

#[tokio::test]
async fn no_archive_gives_another_image_s_name_a_new_meaning() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (victim, own) = (Shell::new(dir.path(), 1)?, Shell::new(dir.path(), 1)?);
    let id = |name: &str| docker(&["image", "inspect", "--format", "{{.Id}}", name]);
    let (its, ours) = (id(&victim.name)?, id(&own.name)?);
    let (members, list) = saved(&own.name, dir.path())?;
    own.remove()?;
    let client = bollard::Docker::connect_with_unix_defaults()?.negotiate_version().await?;
    let path = dir.path().join("image.tar.zst");
    let mut loaded = Vec::new();
    for (trick, lists) in tricks(&victim.name, &list) {
        let bytes = archive(&[members.clone(), lists].concat())?;
        fs::write(&path, zstd::encode_all(&bytes[..], 1)?)?;
        match load::load(&client, &path, &ours, load::bytes_max(2 << 20)).await {
            Ok(id) => {
                assert_eq!(id, ours, "{trick}");
                assert!(!own.is_here(), "{trick}: no name was asked for");
                docker(&["image", "rm", &ours])?;
                loaded.push(trick);
            }
            Err(load::Error::Archive(_)) => assert!(id(&ours).is_err(), "{trick}: Docker saw it"),
            Err(error) => return Err(error).context(trick),
        }
        assert_eq!(id(&victim.name)?, its, "{trick}");
    }
    assert_eq!(loaded, ["the list itself", "the old list", "the OCI's list"]);

    // Docker by itself falls for it.
    let bait = archive(&[members, tricks(&victim.name, &list).swap_remove(0).1].concat())?;
    fs::write(dir.path().join("bait.tar"), bait)?;
    let load = Command::new("docker")
        .args(["load", "--quiet"])
        .stdin(fs::File::open(dir.path().join("bait.tar"))?)
        .stdout(Stdio::null())
        .status()?;
    ensure!(load.success() && id(&victim.name)? == ours, "the bait is none");
    docker(&["image", "rm", "--force", &its]).map(drop)
}

#[tokio::test]
async fn a_name_that_is_not_rgrid_s_own_means_nothing_new_in_a_worker_s_docker() -> Result<()> {
    let (grid, _store) = grid().await?;
    let here = Here::of(&grid)?;
    let shell = Shell::new(grid.dir(), 1)?;
    let name = format!("lab/{}:1", shell.version);
    docker(&["tag", &shell.name, &name])?;
    let pushed = here.rgrid(&["image", "push", "--json", &name])?.json()?;
    let id = pushed["image"]["id"].as_str().context("an id")?;
    let kept = format!("rgrid/kept:{}", id.trim_start_matches("sha256:"));
    docker(&["image", "rm", "--force", &name, &shell.name])?;
    let job = json!({ "command": ["/bin/sh", "-c", ":"], "image": name, "executor": "docker" });
    for _ in 0..2 {
        let ended = grid.ended(&id_of(&grid, &job).await?).await?;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    let loads = grid.log(grid_tests::grid::Part::Runner(1)).matches("from the grid's store").count();
    let (kept_here, name_here) = (docker(&["image", "inspect", &kept]), docker(&["image", "inspect", &name]));
    docker(&["image", "rm", "--force", &kept])?;
    assert!(kept_here.is_ok() && name_here.is_err() && loads == 1, "{loads}");
    // Who asks for it by its name has it by its name.
    here.rgrid(&["image", "load", &name])?.line()?;
    docker(&["image", "rm", &name]).map(drop)
}

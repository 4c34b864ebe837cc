//! What a script leaves behind comes back: all of it, what was asked for, or nothing; and never over somebody's files.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Instant,
};

use anyhow::{Result, ensure};
use bus::{
    ids::{Attempt, Digest},
    job::{Command, Outcome, Usage},
    output::manifest::{Manifest, OutputFile},
    spec::tree::Link,
};
use grid_tests::{
    grid::{Grid, Part},
    writer::{Worker, Writer},
};
use reqwest::Method;

use crate::cli::here::Here;

const MAKES: &str = "\
import os
os.makedirs('out/deep')
open('out/deep/a.csv', 'w').write('a')
open('out/b.txt', 'w').write('b')
open('top.csv', 'w').write('top')
open('key', 'w').write('private')
os.chmod('key', 0o600)
os.symlink('out/b.txt', 'latest')
os.symlink('/etc/passwd', 'passwd')
os.symlink('../../..', 'out/up')
";

#[tokio::test]
async fn what_is_asked_for_comes_back_with_its_modes_and_links() -> Result<()> {
    let grid = Grid::start().await?;
    let all = Here::of(&grid)?;
    all.write("makes.py", MAKES)?;
    let came = all.rgrid(&["run", "makes.py"])?;
    assert_eq!(came.code, 0, "{}", came.err());
    assert_eq!(all.read("out/deep/a.csv")?, b"a");
    assert_eq!(fs::read_link(all.path().join("latest"))?, Path::new("out/b.txt"));
    assert_eq!(fs::metadata(all.path().join("key"))?.permissions().mode() & 0o777, 0o600);
    for hostile in ["passwd", "out/up"] {
        ensure!(fs::symlink_metadata(all.path().join(hostile)).is_err(), "{hostile} leads out");
    }
    for (options, expected) in [
        (&["--output", "*.csv"][..], &["makes.py", "out/deep/a.csv", "top.csv"][..]),
        (&["--output", "out/*"], &["makes.py", "out/b.txt"]),
        (&["--no-outputs"], &["makes.py"]),
    ] {
        let here = Here::of(&grid)?;
        here.write("makes.py", MAKES)?;
        let came = here.rgrid(&[&["run"], options, &["makes.py"]].concat())?;
        assert_eq!(came.code, 0, "{}", came.err());
        let files = here.files()?;
        let found: Vec<_> = files.keys().filter_map(|path| path.to_str()).collect();
        assert_eq!(found, expected);
        let listed = here.rgrid(&["download", "last", "--list", "--json"])?.json()?;
        assert_eq!(listed["artifacts"].as_array().map(Vec::len), Some(expected.len() - 1), "{listed}");
    }
    Ok(())
}

#[tokio::test]
async fn a_download_replaces_nothing_without_a_word_and_goes_on_where_it_broke_off() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "big.py",
        "open('big.bin', 'wb').write(bytes(range(256)) * 20000)\nopen('small', 'w').write('s')\n",
    )?;
    here.rgrid(&["run", "--no-download", "big.py"])?.line()?;
    let whole: Vec<u8> = (0..=255_u8).cycle().take(256 * 20000).collect();
    // As it stands where a download broke off after three million bytes, and where something else has come.
    let name = bus::ids::Digest::of(format!("big.bin\0{}", bus::ids::Digest::of(&whole)).as_bytes()).to_string();
    let part = format!("to/.rgrid-{}.part", &name[..32]);
    for (begun, code) in [(&whole[..3_000_000], 0), (&[7; 1000][..], 1), (&[], 0)] {
        here.write(&part, begun)?;
        let came = here.rgrid(&["download", "last", "-o", "to"])?;
        assert_eq!(came.code, code, "{}", came.err());
        ensure!(!here.path().join(&part).exists(), "the part is gone");
        ensure!(code != 0 || here.read("to/big.bin")? == whole, "it is whole");
        ensure!(code == 0 || came.err().contains("is not the stored content"), "{}", came.err());
        let _ = fs::remove_file(here.path().join("to/big.bin"));
    }
    here.rgrid(&["download", "last", "-o", "to"])?.line()?;
    ensure!(
        here.rgrid(&["download", "last", "-o", "to"])?.line()?.contains("are already here"),
        "nothing to do"
    );
    here.write("to/small", "mine")?;
    let came = here.rgrid(&["download", "last", "-o", "to"])?;
    ensure!(
        came.code == 1 && came.err().contains("to/small already exists and differs"),
        "{}",
        came.err()
    );
    assert_eq!(here.read("to/small")?, b"mine");
    here.rgrid(&["download", "last", "-o", "to", "--overwrite"])?.line()?;
    assert_eq!(here.read("to/small")?, b"s");
    Ok(())
}

#[tokio::test]
async fn nothing_is_saved_behind_a_link_that_leads_out() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "import os\nos.makedirs('d')\nopen('d/x', 'w').write('x')\n")?;
    here.rgrid(&["run", "--no-download", "s.py"])?.line()?;
    fs::create_dir_all(here.path().join("to"))?;
    fs::create_dir_all(here.path().join("elsewhere"))?;
    symlink("../elsewhere", here.path().join("to/d"))?;
    let came = here.rgrid(&["download", "last", "-o", "to"])?;
    ensure!(
        came.code == 1 && came.err().contains("leads out of the directory"),
        "{}",
        came.err()
    );
    ensure!(!here.path().join("elsewhere/x").exists(), "nothing was saved");
    Ok(())
}

/// Ends a job as a worker may that means harm: with a manifest that it made up.
async fn committed(grid: &Grid, manifest: &Manifest) -> Result<String> {
    let writer = Writer::connect(grid.nats.url()).await?;
    let worker = Worker::register(&writer, "hostile").await?;
    let (job, json) = (writer.submit().await?, manifest.to_json());
    let digest = Digest::of(&json);
    for content in [&json[..], b"evil"] {
        let request = grid.request(Method::PUT, &format!("files/{}", Digest::of(content)));
        ensure!(request.body(content.to_vec()).send().await?.status().is_success(), "stored");
    }
    worker.claim(job).await?;
    let finish = Command::Finish {
        attempt: Attempt::FIRST,
        session: worker.session,
        outcome: Outcome::Succeeded,
        manifest: Some(manifest.reference(digest)),
        usage: Usage::default(),
    };
    writer.say(job, &worker.actor(), finish).await?;
    Ok(job.to_string())
}

#[tokio::test]
async fn a_manifest_that_means_harm_writes_nothing_outside() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api, Part::Projector]).await?;
    let here = Here::of(&grid)?;
    fs::create_dir_all(here.path().join("../outside"))?;
    let link = |path: &str, target: &str| -> Result<Link> {
        Ok(Link {
            path: path.parse()?,
            target: target.to_owned(),
        })
    };
    let evil = |path: &str| -> Result<OutputFile> {
        Ok(OutputFile {
            path: path.parse()?,
            sha256: Digest::of(b"evil"),
            size: 4,
            executable: true,
            mode: None,
        })
    };
    let chain = vec![
        link("a/b/up", "../..")?,
        link("l2", "a/b/up/../../outside")?,
        link("l2/planted", "x")?,
    ];
    let manifests = [(Vec::new(), chain), (vec![evil("l3/planted")?], vec![link("l3", "/")?])];
    for (number, (outputs, links)) in manifests.into_iter().enumerate() {
        let manifest = Manifest {
            outputs,
            links,
            ..Manifest::default()
        };
        let job = committed(&grid, &manifest).await?;
        let came = here.rgrid(&["download", &job, "-o", &format!("to-{number}"), "--overwrite"])?;
        ensure!(
            came.code == 1 && came.err().contains("may lead out"),
            "{}{}",
            came.out(),
            came.err()
        );
    }
    // A link that an earlier job, or somebody else, had planted.
    symlink("../outside", here.path().join("planted"))?;
    let manifest = Manifest {
        outputs: vec![evil("planted/x")?],
        ..Manifest::default()
    };
    let job = committed(&grid, &manifest).await?;
    let came = here.rgrid(&["download", &job, "--overwrite"])?;
    ensure!(came.code == 1 && came.err().contains("leads out"), "{}", came.err());
    assert_eq!(fs::read_dir(here.path().join("../outside"))?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn what_a_run_leaves_is_not_saved_behind_a_link_that_leads_out() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("../outside/keep", "")?
        .write("s.py", "import os\nos.makedirs('d', exist_ok=True)\nopen('d/x', 'w').write('x')\n")?;
    symlink("../outside", here.path().join("d"))?;
    let came = here.rgrid(&["run", "s.py"])?;
    ensure!(
        came.code == 1 && came.err().contains("leads out of the directory"),
        "{}",
        came.err()
    );
    assert_eq!(fs::read_dir(here.path().join("../outside"))?.count(), 1);
    Ok(())
}

#[tokio::test]
async fn ten_thousand_outputs_come_back() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "many.py",
        "import os\nfor n in range(100):\n    os.makedirs(f'out/{n}')\n    for m in range(100):\n        open(f'out/{n}/{m}', 'w').write(f'{n} {m}')\n",
    )?;
    let begun = Instant::now();
    let came = here.rgrid(&["run", "many.py"])?;
    assert_eq!(came.code, 0, "{}", came.err());
    eprintln!("10,000 outputs: {:?}", begun.elapsed());
    assert_eq!(here.files()?.len(), 10_001);
    assert_eq!(here.read("out/99/7")?, b"99 7");
    Ok(())
}

//! Where packages come from: what a project or a list says counts, and is never replaced by the default index.

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use super::{
    index::{Index, installers},
    wheel,
};
use crate::cli::here::Here;

const SCRIPT: &str = "import hail\nprint(hail.said())\n";

/// Two indexes with a package of one name, of which the public one has the newer; the public one is the worker's default.
struct Two {
    _dir: tempfile::TempDir,
    _servers: [Index; 2],
    public: String,
    own: String,
}

fn two() -> Result<Two> {
    let dir = tempfile::TempDir::new()?;
    let simple = |index: &str, name: &str| dir.path().join(index).join("simple").join(name);
    wheel(&simple("public", "hail"), "hail", "2.0", "def said(): return 'public'\n", "")?;
    wheel(&simple("own", "hail"), "hail", "1.0", "def said(): return 'own'\n", "")?;
    for version in ["0.9", "1.0b1"] {
        wheel(
            &simple("public", "early"),
            "early",
            version,
            &format!("def said(): return '{version}'\n"),
            "",
        )?;
    }
    let (first, public) = Index::of(&dir.path().join("public"))?;
    let (second, own) = Index::of(&dir.path().join("own"))?;
    Ok(Two {
        _dir: dir,
        _servers: [first, second],
        public,
        own,
    })
}

#[tokio::test]
async fn a_pinned_index_is_asked_or_the_job_is_refused() -> Result<()> {
    let two = two()?;
    let own = &two.own;
    let pinned =
        format!("[tool.uv.sources]\nhail = {{ index = 'own' }}\n[[tool.uv.index]]\nname = 'own'\nurl = '{own}'\nexplicit = true\n");
    let poetry = format!(
        "[tool.poetry.dependencies]\npython = '>=3.8'\nhail = {{ version = '*', source = 'own' }}\n\
         [[tool.poetry.source]]\nname = 'own'\nurl = '{own}'\npriority = 'explicit'\n"
    );
    let block: String = format!("dependencies = ['hail']\n{pinned}")
        .lines()
        .map(|line| format!("# {line}\n"))
        .collect();
    for (path, installer) in installers()? {
        let env = vec![("PATH", path), ("PIP_INDEX_URL", two.public.clone())];
        let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
        grid.run(Part::Runner(1))?;
        let here = Here::of(&grid)?;
        here.write("s.py", SCRIPT)?
            .write("block.py", format!("# /// script\n{block}# ///\n{SCRIPT}"))?
            .write(
                "pin/pyproject.toml",
                format!("[project]\nname = 'x'\ndependencies = ['hail']\n{pinned}"),
            )?
            .write("poetry/pyproject.toml", poetry.as_str())?
            .write(
                "default/pyproject.toml",
                format!("[project]\nname = 'x'\ndependencies = ['hail']\n[[tool.uv.index]]\nurl = '{own}'\ndefault = true\n"),
            )?
            .write(
                "override/pyproject.toml",
                "[project]\nname = 'x'\ndependencies = ['early']\n[tool.uv]\noverride-dependencies = ['early==1.0b1']\n",
            )?;
        for (words, expected) in [
            (&["block.py"][..], "own\n"),
            (&["--requirements", "pin/pyproject.toml", "s.py"], "own\n"),
            (&["--requirements", "poetry/pyproject.toml", "s.py"], "own\n"),
            (&["--requirements", "default/pyproject.toml", "s.py"], "own\n"),
            (&["--requirements", "override/pyproject.toml", "when.py"], "1.0b1\n"),
        ] {
            here.write("when.py", SCRIPT.replace("hail", "early"))?;
            let came = here.rgrid(&[&["run"], words].concat())?;
            if installer == "uv" {
                assert_eq!((came.code, came.out().as_str()), (0, expected), "{words:?}: {}", came.err());
            } else {
                ensure!(came.code == 126 && came.out().is_empty(), "{words:?}: {}{}", came.out(), came.err());
                ensure!(came.err().contains("has no uv, which alone can install"), "{}", came.err());
            }
        }
        // A setting that this uv does not know must not make it forget the others.
        here.write(
            "new/pyproject.toml",
            format!("[project]\nname = 'x'\ndependencies = ['hail']\n{pinned}[tool.uv]\nrequired-version = '>=99'\n"),
        )?;
        let came = here.rgrid(&["run", "--requirements", "new/pyproject.toml", "s.py"])?;
        ensure!(came.code == 126 && came.out().is_empty(), "{}{}", came.out(), came.err());
        here.write(
            "newer/pyproject.toml",
            format!(
                "[project]\nname = 'x'\ndependencies = ['hail']\n[tool.uv]\nindex-strategy = 'newer-than-uv'\n\
                 [[tool.uv.index]]\nurl = '{own}'\ndefault = true\n"
            ),
        )?;
        let came = here.rgrid(&["run", "--requirements", "newer/pyproject.toml", "s.py"])?;
        ensure!(came.code == 126 && came.out().is_empty(), "{}{}", came.out(), came.err());
        ensure!(
            installer == "pip" || came.err().contains("error: Failed to parse: settings.toml"),
            "{}",
            came.err()
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_a_list_says_counts_by_either_installer() -> Result<()> {
    let two = two()?;
    for (path, installer) in installers()? {
        let env = vec![("PATH", path), ("PIP_INDEX_URL", two.public.clone())];
        let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
        grid.run(Part::Runner(1))?;
        let here = Here::of(&grid)?;
        here.write("s.py", SCRIPT)?.write("when.py", SCRIPT.replace("hail", "early"))?;
        let own = &two.own;
        for (list, script, expected) in [
            (format!("--index-url {own} --trusted-host 127.0.0.1\nhail\n"), "s.py", "own\n"),
            (format!("-i '{own}'\nhail\n"), "s.py", "own\n"),
            ("hail\n".to_owned(), "s.py", "public\n"),
            ("early\n".to_owned(), "when.py", "0.9\n"),
            ("--pre\nearly\n".to_owned(), "when.py", "1.0b1\n"),
            ("--prefer-binary\nhail\n".to_owned(), "s.py", "public\n"),
        ] {
            let came = here.write("requirements.txt", &list)?.rgrid(&["run", script])?;
            assert_eq!((came.code, came.out().as_str()), (0, expected), "{installer}: {list}{}", came.err());
        }
        let came = here
            .write("requirements.txt", "--extra-index-url https://${TOKEN}@host.example/s\nhail\n")?
            .rgrid(&["run", "s.py"])?;
        ensure!(
            came.code == 126 && came.err().contains("names the variable TOKEN, which installers do not have"),
            "{}",
            came.err()
        );
        // UTF-16, as some editors write it.
        let utf_16: Vec<u8> = "\u{feff}hail\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let came = here.write("requirements.txt", utf_16)?.rgrid(&["run", "s.py"])?;
        assert_eq!((came.code, came.out().as_str()), (0, "public\n"), "{installer}: {}", came.err());
    }
    Ok(())
}

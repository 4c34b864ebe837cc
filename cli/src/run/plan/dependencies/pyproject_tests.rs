use std::fs;

use bus::spec::dependencies::{UV_PROJECT, UV_SETTINGS};

use super::*;
use crate::run::plan::dependencies::Content;

struct Here(tempfile::TempDir);

impl Here {
    fn new(text: &str) -> anyhow::Result<Self> {
        let here = Self(tempfile::tempdir()?);
        for (name, text) in [
            ("pyproject.toml", text),
            ("wheels/a-1-py3-none-any.whl", "a"),
            ("lib/pyproject.toml", ""),
            ("list.txt", "six\n"),
        ] {
            let path = here.0.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, text)?;
        }
        Ok(here)
    }

    fn read(&self) -> anyhow::Result<Option<Declared>> {
        read(&self.0.path().join("pyproject.toml"), "pyproject.toml", self.0.path())
    }
}

fn of(text: &str) -> anyhow::Result<Option<Declared>> {
    Here::new(text)?.read()
}

/// What goes along under a name.
fn made(declared: &Declared, name: &str) -> Option<String> {
    let (_, content) = declared.files.iter().find(|(path, _)| path.as_str() == name)?;
    match content {
        Content::Made(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Content::Of(_) => None,
    }
}

fn list(text: &str) -> anyhow::Result<String> {
    let declared = of(text)?.expect("packages");
    assert_eq!(made(&declared, UV_PROJECT), None, "every installer can do it");
    Ok(made(&declared, "requirements.txt").expect("a list"))
}

#[test]
fn a_project_says_what_it_needs() -> anyhow::Result<()> {
    let declared = of("[project]\nname = 'x'\nrequires-python = '>=3.9'\ndependencies = ['six', 'rich>13']\n")?.expect("two packages");
    assert_eq!((declared.packages, declared.python.as_deref()), (2, Some(">=3.9")));
    assert_eq!(made(&declared, "requirements.txt").as_deref(), Some("six\nrich>13\n"));
    let alone = of("[project]\nname = 'x'\nrequires-python = '>=3.9'\n")?.expect("a Python");
    assert_eq!((alone.packages, alone.python.as_deref()), (0, Some(">=3.9")));
    assert_eq!(made(&alone, "requirements.txt").as_deref(), Some(""));
    assert_eq!(
        of("[tool.ruff]\nline-length = 100\n[tool.uv]\nbogus = 1\n")?,
        None,
        "nothing is installed"
    );
    assert_eq!(of("[project]\nname = 'x'\ndynamic = ['dependencies']\n")?, None);
    assert_eq!(
        list("[project]\ndynamic = ['dependencies']\n[tool.setuptools.dynamic]\ndependencies = { file = ['list.txt'] }\n")?,
        "six\n"
    );
    assert_eq!(
        list("[tool.poetry.dependencies]\npython = '^3.9'\nsix = '^1.2'\n")?,
        "six>=1.2,<2.0\n"
    );
    Ok(())
}

#[test]
fn what_uv_is_told_is_said_to_every_installer_where_that_is_possible() -> anyhow::Result<()> {
    let project = "[project]\ndependencies = ['A_b[x]>=1 ; os_name == \"posix\"', 'six']\n";
    assert_eq!(
        list(&format!(
            "{project}[tool.uv.sources]\na-b = {{ git = 'https://host.example/a', tag = 'v1', subdirectory = 's' }}\n"
        ))?,
        "A_b[x] @ git+https://host.example/a@v1#subdirectory=s ; os_name == \"posix\"\nsix\n"
    );
    assert_eq!(
        list(&format!(
            "{project}[tool.uv.sources]\nsix = {{ url = 'https://host.example/six-1.whl' }}\nother = {{ workspace = true }}\n"
        ))?,
        "A_b[x]>=1 ; os_name == \"posix\"\nsix @ https://host.example/six-1.whl\n"
    );
    let own = list(&format!(
        "{project}[tool.uv.sources]\nsix = {{ path = 'wheels/a-1-py3-none-any.whl' }}\n"
    ))?;
    assert!(
        own.ends_with("six @ file://${RGRID_PACKAGES_DIR}/archive-0/a-1-py3-none-any.whl\n"),
        "{own}"
    );
    assert_eq!(
        list(&format!(
            "{project}[tool.uv]\nconstraint-dependencies = ['six<2']\nlink-mode = 'copy'\n"
        ))?,
        "--constraint list-0.txt\nA_b[x]>=1 ; os_name == \"posix\"\nsix\n"
    );
    let groups =
        "[tool.uv]\ndev-dependencies = ['d']\n[dependency-groups]\ndev = ['e', { include-group = 'more' }]\nmore = ['f']\nrest = ['g']\n";
    assert_eq!(list(&format!("[project]\ndependencies = ['six']\n{groups}"))?, "six\nd\ne\nf\n");
    assert_eq!(
        list("[project]\ndependencies = ['six']\n[dependency-groups]\ndev = ['e']\n")?,
        "six\n",
        "it is no project of uv's"
    );
    Ok(())
}

#[test]
fn what_uv_alone_can_do_goes_along_as_a_project_and_stops_other_installers() -> anyhow::Result<()> {
    let text = "[project]\ndependencies = ['six', 'a']\n[tool.uv]\nprerelease = 'allow'\noverride-dependencies = ['b<2']\n\
         find-links = ['wheels', 'https://host.example/l']\n[tool.uv.sources]\nsix = { index = 'own' }\n\
         a = [{ path = 'wheels/a-1-py3-none-any.whl', marker = 'os_name == \"posix\"' }, { extra = 'gpu', index = 'gone' }]\n\
         [[tool.uv.index]]\nname = 'own'\nurl = 'https://own.example/s'\nexplicit = true\n";
    let declared = of(text)?.expect("packages");
    assert_eq!(declared.packages, 2);
    assert!(made(&declared, "requirements.txt").expect("a list").ends_with("\n--needs-uv\n"));
    let project: toml::Table = toml::from_str(&made(&declared, UV_PROJECT).expect("a project"))?;
    let uv = &project["tool"]["uv"];
    assert_eq!(project["project"]["dependencies"], toml::Value::from(vec!["six", "a"]));
    assert_eq!(uv["override-dependencies"], toml::Value::from(vec!["b<2"]));
    assert_eq!(
        uv["find-links"],
        toml::Value::from(vec!["file://${RGRID_PACKAGES_DIR}/links-0", "https://host.example/l"])
    );
    assert_eq!(uv["index"][0]["explicit"].as_bool(), Some(true));
    assert_eq!(uv["sources"]["six"]["index"].as_str(), Some("own"));
    assert_eq!(uv["sources"]["a"].as_array().map(Vec::len), Some(1), "extras are not installed");
    assert_eq!(uv["sources"]["a"][0]["path"].as_str(), Some("../archive-1/a-1-py3-none-any.whl"));
    let settings: toml::Table = toml::from_str(&made(&declared, UV_SETTINGS).expect("settings"))?;
    assert!(settings.contains_key("index") && !settings.contains_key("sources"));
    let poetry = "[tool.poetry.dependencies]\nsix = { version = '*', source = 'own' }\n\
         [[tool.poetry.source]]\nname = 'own'\nurl = 'https://own.example/s'\npriority = 'explicit'\n";
    let declared = of(poetry)?.expect("packages");
    let project: toml::Table = toml::from_str(&made(&declared, UV_PROJECT).expect("a project"))?;
    assert_eq!(project["tool"]["uv"]["sources"]["six"]["index"].as_str(), Some("own"));
    Ok(())
}

#[test]
fn what_cannot_be_honoured_is_rejected_with_its_line() -> anyhow::Result<()> {
    for (rest, expected) in [
        ("[tool.uv]\nbogus = 1", "line 4 sets `bogus` for uv"),
        ("[tool.uv.pip]\nextra = ['x']", "line 4 sets `extra` for `uv pip` alone"),
        (
            "[tool.uv.sources]\na = { workspace = true }",
            "line 4 installs a member of the workspace",
        ),
        (
            "[tool.uv.sources]\na = { path = 'lib', editable = true }",
            "line 4 installs a package so that it can be edited",
        ),
        ("[tool.uv.sources]\na = { path = 'lib' }", "line 2 names the directory"),
        ("[tool.uv.sources]\na = { path = 'gone.whl' }", "which is not there"),
        ("[tool.uv.sources]\na = { git = '../a' }", "line 4 names the repository `../a`"),
        (
            "[tool.uv.sources]\na = { index = 'gone' }",
            "line 4 names the index `gone`, and there is no [[tool.uv.index]]",
        ),
        ("[tool.uv.sources]\na = { odd = 1 }", "line 4 has `odd`"),
        (
            "[tool.uv.sources]\na = { url = 'https://x', group = 'dev' }",
            "line 4 gives a source for one group",
        ),
        ("[tool.uv.sources]\na = 'x'", "line 4 is not a source"),
        (
            "[[tool.uv.index]]\nurl = './simple'",
            "line 4 names the index `./simple` of this machine",
        ),
        (
            "[tool.uv]\nindex-url = 'file:///s'",
            "line 4 names the index `file:///s` of this machine",
        ),
        (
            "[tool.uv]\nfind-links = ['gone']",
            "line 4 names `gone`, which is not a directory here",
        ),
        (
            "[tool.uv]\nconstraint-dependencies = ['-r x']",
            "line 4 names `-r x`, which is not a requirement",
        ),
        ("[[tool.pdm.source]]\nurl = 'https://x'", "line 3 says with `tool.pdm.source`"),
        (
            "[[tool.poetry.source]]\nname = 'x'\nurl = 'https://x'\n[tool.uv]\nlink-mode = 'copy'",
            "names an index beside [tool.uv]",
        ),
    ] {
        let text = format!("[project]\ndependencies = ['a']\n{rest}\n");
        let Err(error) = of(&text) else { panic!("{rest}") };
        let error = error.to_string();
        assert!(
            error.starts_with("pyproject.toml, line ") && error.contains(expected),
            "{rest}: {error}"
        );
        assert!(error.contains("--no-requirements"), "{error}");
    }
    for (text, expected) in [
        ("[project\n", "line 1 cannot be read"),
        (
            "[project]\nrequires-python = '^3'\n",
            "line 2 requires Python `^3`: cannot read `^3`",
        ),
        (
            "[project]\ndependencies = [\n'a',\n'b @ {root:uri}/b']\n",
            "line 4 names `b @ {root:uri}/b`",
        ),
        (
            "[project]\ndependencies = [\n'a',\n'--pre']\n",
            "line 4 names `--pre`, which is not a requirement",
        ),
        (
            "[project]\ndynamic = ['dependencies']\n[tool.setuptools.dynamic]\ndependencies = { file = 'gone' }\n",
            "names `gone`, which is not there",
        ),
    ] {
        let Err(error) = of(text) else { panic!("{text}") };
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let here = Here::new("[project]\ndependencies = ['a']\n")?;
    fs::write(here.0.path().join("uv.toml"), "link-mode = 'copy'\n")?;
    assert!(here.read()?.is_some(), "it changes nothing");
    fs::write(here.0.path().join("uv.toml"), "\nindex-url = 'https://x'\n")?;
    let error = here.read().expect_err("settings").to_string();
    assert!(
        error.contains("uv.toml, line 2 sets `index-url` for uv, and rgrid reads no uv.toml"),
        "{error}"
    );
    Ok(())
}

#[test]
fn an_index_beside_a_list_that_names_none_is_rejected() -> anyhow::Result<()> {
    for (text, is_rejected) in [
        ("[[tool.uv.index]]\nname = 'own'\nurl = 'https://x'\n", true),
        ("[[tool.uv.index]]\nname = 'own'\nurl = 'https://x'\nexplicit = true\n", false),
        ("[tool.uv]\nextra-index-url = ['https://x']\n", true),
        ("[[tool.poetry.source]]\nname = 'x'\nurl = 'https://x'\n", true),
        ("[tool.uv]\nprerelease = 'allow'\n", false),
    ] {
        let here = Here::new(text)?;
        let path = here.0.path().join("pyproject.toml");
        let found = no_index_beside(Some(&path), "requirements.txt", &|_| "pyproject.toml".to_owned());
        assert_eq!(found.is_err(), is_rejected, "{text}");
        if let Err(error) = found {
            assert!(error.to_string().contains("--requirements pyproject.toml"), "{error}");
        }
    }
    Ok(())
}

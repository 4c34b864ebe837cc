use super::*;

#[test]
fn versions_become_those_of_pep_440() {
    for (text, expected) in [
        ("^1.2.3", ">=1.2.3,<2.0.0"),
        ("^0.2.3", ">=0.2.3,<0.3.0"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("^0.0", ">=0.0,<0.1"),
        ("^0", ">=0,<1"),
        ("^1", ">=1,<2"),
        ("^1.2b1", ">=1.2b1,<2.0"),
        ("~1.2.3", ">=1.2.3,<1.3.0"),
        ("~1.2", ">=1.2,<1.3"),
        ("~1", ">=1,<2"),
        ("~=1.2", "~=1.2"),
        ("1.2.*", "==1.2.*"),
        ("!=1.2.*", "!=1.2.*"),
        ("*", ""),
        ("1.2.3", "==1.2.3"),
        ("=1.2.3", "==1.2.3"),
        (">=1,<2", ">=1,<2"),
        (">= 1 < 2", ">=1,<2"),
        ("^1.2,!=1.4", ">=1.2,<2.0,!=1.4"),
    ] {
        assert_eq!(versions(text).as_deref(), Ok(expected), "{text}");
    }
    for wrong in ["^1 || ^2", "latest", "^x", "=>1", "^", ">=1.*", "1; evil"] {
        assert!(versions(wrong).is_err(), "{wrong}");
    }
    assert_eq!(python("^2.7 || ^3.6").as_deref(), Ok(">=3.6,<4.0"));
    assert_eq!(python(">=3.9,<4.0").as_deref(), Ok(">=3.9,<4.0"));
    assert!(python("^3.6 || ^3.9").is_err());
}

fn of(text: &str) -> anyhow::Result<Poetry> {
    let doc = Doc::parse("pyproject.toml", text.to_owned(), 0)?;
    Ok(read(&doc, Path::new("/p"))?.unwrap_or_default())
}

#[test]
fn dependencies_become_requirements() -> anyhow::Result<()> {
    let text = "[tool.poetry.dependencies]\n\
         python = '^3.9'\n\
         a = '^1.2'\n\
         b = { version = '~2', extras = ['x', 'y'], python = '>=3.8', platform = 'linux', markers = \"os_name == 'posix' or os_name == 'nt'\" }\n\
         c = { git = 'https://host.example/c.git', tag = 'v1', subdirectory = 'sub', extras = ['z'] }\n\
         d = { git = 'git@host.example:o/d.git' }\n\
         e = { url = 'https://host.example/e-1.whl' }\n\
         f = { path = 'w/f 1.whl' }\n\
         g = { version = '1', optional = true }\n\
         h = [{ version = '<2', python = '<3.10' }, { version = '^2.0', python = '^3.10' }]\n\
         [tool.poetry.group.dev.dependencies]\ni = '*'\n\
         [tool.poetry.group.docs]\noptional = true\n[tool.poetry.group.docs.dependencies]\nj = '*'\n\
         [tool.poetry.dev-dependencies]\nk = '1.0'\n";
    let poetry = of(text)?;
    let mut texts: Vec<&str> = poetry.entries.iter().map(|entry| entry.text.as_str()).collect();
    texts.sort_unstable();
    let expected = [
        "a>=1.2,<2.0",
        "b[x,y]>=2,<3 ; (os_name == 'posix' or os_name == 'nt') and python_full_version >= '3.8' and sys_platform == 'linux'",
        "c[z] @ git+https://host.example/c.git@v1#subdirectory=sub",
        "d @ git+ssh://git@host.example/o/d.git",
        "e @ https://host.example/e-1.whl",
        "f @ file:///p/w/f%201.whl",
        "h<2 ; python_full_version < '3.10'",
        "h>=2.0,<3.0 ; python_full_version >= '3.10' and python_full_version < '4.0'",
        "i",
        "k==1.0",
    ];
    assert_eq!(texts, expected);
    assert_eq!(poetry.python.as_deref(), Some(">=3.9,<4.0"));
    assert!(poetry.indexes.is_empty());
    Ok(())
}

#[test]
fn sources_become_indexes_in_the_order_of_their_priority() -> anyhow::Result<()> {
    let source =
        |name: &str, priority: &str| format!("[[tool.poetry.source]]\nname = '{name}'\nurl = 'https://{name}.example/s'\n{priority}\n");
    let indexes = |text: &str| -> anyhow::Result<Vec<String>> {
        let flag = |index: &Value| {
            ["default", "explicit"]
                .into_iter()
                .find(|flag| index.get(flag).is_some())
                .unwrap_or("-")
        };
        let shown = |index: &Value| Some(format!("{} {}", index.get("name")?.as_str()?, flag(index)));
        Ok(of(text)?.indexes.iter().filter_map(shown).collect())
    };
    let explicit = source("own", "priority = 'explicit'");
    assert_eq!(
        indexes(&format!(
            "[tool.poetry.dependencies]\na = {{ version = '1', source = 'Own' }}\n{explicit}"
        ))?,
        ["own explicit"]
    );
    let all = [source("two", "priority = 'supplemental'"), source("one", ""), explicit].concat();
    assert_eq!(indexes(&all)?, ["one -", "two default", "own explicit"], "PyPI is not asked");
    let mixed = indexes(&source("two", "priority = 'supplemental'"))
        .expect_err("its default index comes first")
        .to_string();
    assert!(
        mixed.contains("mixes Poetry's default index with others") && mixed.contains("--requirements FILE"),
        "{mixed}"
    );
    assert!(
        indexes("[[tool.poetry.source]]\nname = 'PyPI'\n")?.is_empty(),
        "the worker's own default"
    );
    Ok(())
}

#[test]
fn what_cannot_be_said_otherwise_is_rejected_with_its_line() {
    for (text, expected) in [
        ("a = '^1 || ^2'", "line 2 needs `a`: `^1 || ^2` has alternatives"),
        (
            "a = { version = '1', allow-prereleases = true }",
            "line 2 has `allow-prereleases` for `a`",
        ),
        ("a = { git = '../a' }", "line 2 takes `a` from the repository `../a`"),
        (
            "a = { version = '1', source = 'gone' }",
            "line 2 takes `a` from a source that is not there",
        ),
        ("a = 1", "line 2 needs `a` as Poetry does not say it"),
        ("python = '^3.6 || ^3.9'", "line 2 `^3.6 || ^3.9` has alternatives"),
        (
            "a = '1'\n[[tool.poetry.source]]\nname = 'x'\nurl = 'file:///s'",
            "line 3 names the index `file:///s` of this machine",
        ),
        (
            "a = '1'\n[[tool.poetry.source]]\nname = 'x'",
            "line 3 is a source without a name or a URL",
        ),
        (
            "a = '1'\n[[tool.poetry.source]]\nname = 'x'\nurl = 'https://x'\npriority = 'odd'",
            "line 3 gives a source the priority `odd`",
        ),
    ] {
        let Err(error) = of(&format!("[tool.poetry.dependencies]\n{text}\n")) else {
            panic!("{text}")
        };
        let error = error.to_string();
        assert!(error.contains(expected) && error.contains("--no-requirements"), "{text}: {error}");
    }
}

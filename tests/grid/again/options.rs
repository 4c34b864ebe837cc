//! Options of a run that stand in its script, in `rgrid.toml`, and in files of variables.

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;
use serde_json::{Value, json};

use crate::cli::here::Here;

const SCRIPT: &str = "#!/usr/bin/env python3\n# rgrid: --cpu 0.5 --label made-by=script --env FROM=script --env LAYER=script\n\
    import os\nprint(os.environ['FROM'], os.environ['LAYER'], os.environ['ONLY'], os.environ['QUOTED'])\n";
const PROJECT: &str =
    "[run]\ncpu = 1\nmemory = \"512MB\"\nqueue = \"default\"\nenv-file = \"project.env\"\n\n[run.label]\nproject = \"x\"\n";

fn origin<'a>(told: &'a Value, option: &str) -> Vec<&'a Value> {
    let options = told["options"].as_array().map_or(&[][..], Vec::as_slice);
    options.iter().filter(|one| one["option"] == option).collect()
}

#[tokio::test]
async fn the_nearest_word_counts_and_a_dry_run_tells_whose_it_is() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("rgrid.toml", PROJECT)?
        .write("project.env", "FROM=project\nLAYER=project\nONLY=project\n")?
        .write("own.env", "LAYER=file\nexport QUOTED=\"two\\nlines\"\n")?
        .write("in/s.py", SCRIPT)?;
    here.trusted()?;
    let arguments = ["run", "--cpu", "2", "--env-file", "own.env", "--env", "FROM=flag", "in/s.py"];
    let dry = [&["run", "--dry-run", "--json"], &arguments[1..]].concat();
    let told = here.rgrid(&dry)?.json()?;
    assert_eq!(
        told["job"]["resources"],
        json!({"cpu_milli": 2000, "memory_bytes": 512_000_000, "cpu_limit": true})
    );
    assert_eq!(told["job"]["labels"], json!({"made-by": "script", "project": "x"}));
    assert_eq!(told["job"]["env"], json!(["FROM", "LAYER", "ONLY", "QUOTED"]));
    assert_eq!(told["files"][0]["path"], "in/s.py");
    assert_eq!(told["files"][0]["on_grid"], false);
    assert_eq!(
        origin(&told, "--cpu"),
        [&json!({"option": "--cpu", "value": "2", "from": "the command line"})]
    );
    let memory = origin(&told, "--memory");
    ensure!(
        memory.len() == 1 && memory[0]["from"].as_str().is_some_and(|from| from.ends_with("rgrid.toml, line 3")),
        "{memory:?}"
    );
    ensure!(
        origin(&told, "--env")
            .iter()
            .any(|one| one["from"] == "in/s.py, line 2" && one["value"] == "FROM LAYER"),
        "{told}"
    );
    // Nothing was sent or run.
    grid.projected().await?;
    assert_eq!(grid.get("jobs").await?["jobs"], json!([]));

    let came = here.rgrid(&arguments)?;
    assert_eq!(
        (came.code, came.out(), came.err()),
        (0, "flag file project two\nlines\n".to_owned(), String::new())
    );
    let told = here.rgrid(&dry)?.json()?;
    assert_eq!(told["files"][0]["on_grid"], true);
    let words = here.rgrid(&[&["run", "--dry-run"], &arguments[1..]].concat())?.line()?;
    for part in [
        "command:   in/s.py",
        "in/s.py  ",
        "already stored",
        "--cpu 2  (the command line)",
        "FROM, LAYER, ONLY, QUOTED",
    ] {
        ensure!(words.contains(part), "no `{part}` in {words}");
    }
    ensure!(!words.contains("flag") && !words.contains("two"), "a value is shown: {words}");
    Ok(())
}

#[test]
fn what_a_file_cannot_say_is_told_with_its_line() -> Result<()> {
    let here = Here::without_grid()?;
    let cases = [
        ("# rgrid: --cpus 2\n", "", "s.py, line 1: unexpected argument '--cpus'"),
        (
            "\n# rgrid: --cpu two\n",
            "",
            "s.py, line 2: invalid value 'two' for '--cpu <N>': write a number of CPUs",
        ),
        (
            "# rgrid: --cpu 2\n# rgrid: --cpu 3\n",
            "",
            "s.py, line 2: --cpu was already set (s.py, line 1)",
        ),
        ("# rgrid: other.py\n", "", "s.py, line 1: `other.py` is not an option"),
        ("# rgrid: --name 'x\n", "", "s.py, line 1: a quotation mark is open"),
        ("# rgrid: --url http://other\n", "", "s.py, line 1: a script cannot set --url"),
        ("# rgrid: --key=x\n", "", "s.py, line 1: a script cannot set --key"),
        ("# rgrid: --namespace other\n", "", "s.py, line 1: a script cannot set --namespace"),
        ("# rgrid: --env-file /etc/passwd\n", "", "a script cannot set --env-file"),
        (
            "# rgrid: --env PATH\n",
            "",
            "s.py, line 1: a script cannot read a variable of this machine",
        ),
        ("", "[run]\ncpu = -1\n", "rgrid.toml, line 2: invalid value '-1' for '--cpu <N>'"),
        ("", "[run]\nquue = \"a\"\n", "rgrid.toml, line 2: unexpected argument '--quue'"),
        ("", "cpu = 1\n", "rgrid.toml, line 1: `cpu` is not valid here"),
        ("", "[run]\ncpu = [\n", "rgrid.toml, line"),
        ("", "[run]\nenv-file = \"absent.env\"\n", "rgrid.toml, line 2: invalid value"),
    ];
    for (script, project, words) in cases {
        here.write("s.py", script)?.write("rgrid.toml", project)?;
        here.trusted()?;
        let came = here.rgrid(&["run", "s.py"])?;
        ensure!(
            came.code == 2 && came.err().contains(words),
            "{script}{project}: {} {}",
            came.code,
            came.err()
        );
        ensure!(came.err().lines().count() == 1, "more than a sentence: {}", came.err());
    }
    // Left out, none of it matters.
    here.write("s.py", "# rgrid: --nonsense\n")?.write("rgrid.toml", "")?;
    let came = here.rgrid(&["run", "--no-defaults", "s.py"])?;
    ensure!(came.code == 1 && came.err().contains("no grid"), "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn a_project_names_its_grid_and_never_gets_anothers_key() -> Result<()> {
    let grid = Grid::start().await?;
    let [(_, url), (_, key)] = grid.access();
    let here = Here::without_grid()?;
    here.write("s.py", "print('there')\n")?
        .write("grid.key", &key)?
        .write("rgrid.toml", format!("url = \"{url}\"\nkey-file = \"grid.key\"\n"))?;
    here.trusted()?;
    let mut command = here.command(&["run", "s.py"]);
    let came = command.env_remove("RGRID_DATA_DIR").output()?;
    assert_eq!(String::from_utf8_lossy(&came.stdout), "there\n");
    // A key from the environment is for the grid that the environment names.
    here.write("rgrid.toml", format!("url = \"{url}\"\n"))?;
    here.trusted()?;
    let mut command = here.command(&["run", "s.py"]);
    let came = command.env_remove("RGRID_DATA_DIR").env("RGRID_API_KEY", &key).output()?;
    let err = String::from_utf8_lossy(&came.stderr).into_owned();
    ensure!(came.status.code() == Some(1) && err.contains("key"), "{err}");
    Ok(())
}

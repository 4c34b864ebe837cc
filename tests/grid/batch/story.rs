//! A user's batch, at the command line.

use std::{fs, process::Stdio};

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;

use crate::cli::here::{Came, Here};

#[tokio::test]
async fn a_job_for_each_file_and_its_outputs_come_home() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let script = "import sys\ntext = open(sys.argv[-1]).read()\nif 'bad' in text: sys.exit('this one is ' + text)\n\
                  open('result.txt', 'w').write(text.upper() + ' '.join(sys.argv[1:-1]))\n";
    here.write("up.py", script)?;
    for (name, text) in [("data/a.csv", "one"), ("data/b.csv", "bad"), ("data/c d.csv", "three")] {
        here.write(name, text)?;
    }
    let came = here.rgrid(&["run", "--batch", "data/*.csv", "--parallel", "2", "up.py", "-v", "{}"])?;
    let err = came.err();
    ensure!(came.code == 1, "{err}");
    ensure!(
        err.contains("2 of 3 succeeded, 1 failed") && err.contains("this one is bad"),
        "{err}"
    );
    let read = |name: &str| fs::read_to_string(here.path().join(name));
    ensure!(read("outputs/a.csv/result.txt")? == "ONE-v" && read("outputs/c d.csv/result.txt")? == "THREE-v");
    ensure!(!here.path().join("outputs/b.csv").exists());
    let list = here.rgrid(&["list", "--batches"])?.line()?;
    ensure!(list.contains("up.py data/*.csv") && list.contains("failed"), "{list}");
    // The file is mended here, but a retry is the same again.
    let again = here.rgrid(&["retry", "last", "--failed-only"])?.line()?;
    let attached = here.rgrid(&["attach", &again])?;
    ensure!(
        attached.code == 1 && attached.err().contains("0 of 1 succeeded"),
        "{}",
        attached.err()
    );
    let status = here.rgrid(&["status", &again, "--failed"])?.line()?;
    ensure!(status.contains("retry of") && status.contains("data/b.csv"), "{status}");
    // A matrix, from the store, by its id.
    let matrix = [
        "run",
        "-d",
        "--param",
        "lr=1,2",
        "--param",
        "k=x,y",
        "up.py",
        "{lr}{k}",
        "data/a.csv",
    ];
    let id = here.rgrid(&matrix)?.line()?;
    let attached = here.rgrid(&["attach", "--no-download", &id])?;
    ensure!(
        attached.code == 0 && attached.err().contains("4 of 4 succeeded"),
        "{}",
        attached.err()
    );
    here.rgrid(&["download", &id, "-o", "elsewhere"])?.line()?;
    let names = fs::read_dir(here.path().join("elsewhere"))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    ensure!(names.len() == 4, "{names:?}");
    for (words, why) in [
        (&["run", "--batch", "*.json", "up.py"][..], "no file matches"),
        (&["run", "--parallel", "2", "up.py"], "--parallel is for batches"),
        (&["run", "--array", "3-1", "up.py"], "contains no number"),
    ] {
        let came = here.rgrid(words)?;
        ensure!(came.code == 2 && came.err().contains(why), "{words:?}: {}", came.err());
    }
    let id = here
        .rgrid(&["run", "-d", "--array", "1-50", "--parallel", "1", "--program", "sleep", "60"])?
        .line()?;
    let cancelled = here.rgrid(&["cancel", &id])?.line()?;
    ensure!(cancelled.contains("is cancelled; 50 of its 50"), "{cancelled}");
    Ok(())
}

#[tokio::test]
async fn the_lines_of_all_jobs_come_each_after_its_name_and_never_mixed() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let go = grid.dir().join("go");
    let script = "import os, sys, time\nname = sys.argv[1]\nprint(name, 'begins', flush=True)\n\
                  while name == 'b' and not os.path.exists(sys.argv[2]): time.sleep(0.01)\n\
                  print('one\\ntwo', end='')\nprint('wrong', name, file=sys.stderr)\n";
    here.write("say.py", script)?.write("names", "a\nb\nlonger\n")?;
    let none = here.rgrid(&["logs", "last-batch"])?;
    ensure!(none.code == 1 && none.err().contains("there is no last batch"), "{}", none.err());
    let run = ["run", "-d", "--each-line", "names", "say.py", "{}", &go.display().to_string()];
    let id = here.rgrid(&run)?.line()?;
    let following = here
        .command(&["logs", "-f", "last-batch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    grid.eventually("the others have ended", async || {
        let view = grid.get(&format!("batches/{id}")).await.ok()?;
        (view["counts"]["succeeded"] == 2).then_some(())
    })
    .await?;
    fs::write(&go, "")?;
    let lines = |text: String| {
        let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let expected = [
        "a      | a begins",
        "a      | one",
        "a      | two",
        "b      | b begins",
        "b      | one",
        "b      | two",
        "longer | longer begins",
        "longer | one",
        "longer | two",
    ];
    let wrong = ["a      | wrong a", "b      | wrong b", "longer | wrong longer"];
    for came in [following.wait_with_output()?.into(), here.rgrid(&["logs", &id])?] {
        let came: Came = came;
        ensure!(came.code == 0, "{}", came.err());
        assert_eq!(
            (lines(came.out()), lines(came.err())),
            (expected.map(Into::into).into(), wrong.map(Into::into).into())
        );
    }
    let json = here.rgrid(&["logs", "--json", "--stream", "stderr", &id])?;
    let pieces: Vec<serde_json::Value> = json.out().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of_last = pieces.iter().filter(|piece| piece["index"] == 2);
    let text: String = of_last.filter_map(|piece| piece["text"].as_str()).collect();
    ensure!(text == "wrong longer\n", "{pieces:?}");
    let status = here.rgrid(&["status", "last-batch"])?.line()?;
    ensure!(status.contains(&id), "{status}");
    Ok(())
}

//! What the head of a script may say.

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;
use serde_json::json;

use super::super::here::Here;

#[test]
fn a_scripts_head_names_neither_files_nor_secrets_nor_where_it_runs() -> Result<()> {
    let here = Here::without_grid()?;
    for (head, option, written) in [
        ("--input ../.ssh=k", "--input", "rgrid run --input=../.ssh=k s.py"),
        ("-i /etc/shadow", "--stdin", "rgrid run --stdin=/etc/shadow s.py"),
        ("--cpu 1 --workdir", "--workdir", "rgrid run --workdir s.py"),
        ("--secret PROD", "--secret", "rgrid run --secret=PROD s.py"),
        ("--include '../a b'", "--include", "rgrid run '--include=../a b' s.py"),
        ("--exclude x", "--exclude", "rgrid run --exclude=x s.py"),
        ("--requirements /etc/passwd", "--requirements", "--requirements=/etc/passwd"),
        ("--executor process", "--executor", "--executor=process"),
        ("--image evil", "--image", "--image=evil"),
        ("--runtime image:evil", "an image", "--runtime=image:evil"),
        ("--runtime-for py=sh", "--runtime-for", "--runtime-for=py=sh"),
        ("--program", "--program", "--program"),
        ("--env HOME", "a variable of this machine", "--env=HOME"),
        ("--env A=b --env=HOME", "a variable of this machine", "--env=HOME"),
        ("--env-file ../x.env", "--env-file", "--env-file=../x.env"),
        ("--each-line /etc/passwd", "--each-line", "--each-line=/etc/passwd"),
        ("--batch '/etc/*'", "--batch", "'--batch=/etc/*'"),
        ("--depends-on last", "--depends-on", "--depends-on=last"),
        ("--idempotency-key x", "--idempotency-key", "--idempotency-key=x"),
        ("--scan-bytes 1TB", "--scan-bytes", "--scan-bytes=1TB"),
        ("--no-defaults", "--no-defaults", "--no-defaults"),
        ("--data-dir /x", "--data-dir", "--data-dir=/x"),
        ("--key-file ../k", "--key-file", "--key-file=../k"),
        ("--detach", "--detach", "--detach"),
    ] {
        here.write("s.py", format!("#!/usr/bin/env python3\n# rgrid: {head}\nprint(1)\n"))?;
        let came = here.rgrid(&["run", "--dry-run", "s.py"])?;
        let err = came.err();
        ensure!(
            came.code == 2 && err.contains("s.py, line 2: a script cannot") && err.contains(option) && err.contains(written),
            "{head}: {} {err}",
            came.code
        );
        ensure!(err.lines().count() == 1, "more than a sentence: {err}");
    }
    Ok(())
}

#[tokio::test]
async fn a_scripts_head_says_what_the_job_may_use() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "s.py",
        "# rgrid: --cpu 1 --memory 1GB --timeout 10m --retries 2 --retry-on 75 --label a=b --name n --priority low\n\
         # rgrid: --env MODE=fast --runtime python --output out --keep-deleted --no-scan -v\nprint(1)\n",
    )?;
    let told = here.rgrid(&["run", "--dry-run", "--json", "s.py"])?.json()?;
    assert_eq!(told["job"]["resources"]["cpu_milli"], 1000);
    assert_eq!(told["job"]["env"], json!(["MODE"]));
    Ok(())
}

//! Many files: sent fast, sent once, and in constant memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use grid_tests::grid::Grid;

use crate::cli::here::Here;

const FILES: usize = 10_000;

#[tokio::test]
async fn ten_thousand_files_go_along_and_the_second_time_none_is_sent() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    for n in 0..FILES {
        here.write(&format!("data/{}/{n}.txt", n % 100), format!("{n}\n"))?;
    }
    here.write(
        "sum.py",
        "import pathlib, sys\nprint(sum(int(p.read_text()) for p in pathlib.Path(sys.argv[1]).rglob('*.txt')))\n",
    )?;
    let expected = format!("{}\n", FILES * (FILES - 1) / 2);
    let begun = Instant::now();
    let first = here.rgrid(&["run", "--verbose", "sum.py", "data"])?;
    let took = begun.elapsed();
    ensure!(first.code == 0 && first.out() == expected, "{}{}", first.out(), first.err());
    ensure!(first.err().contains("10001 files, 0 already there"), "{}", first.err());
    let begun = Instant::now();
    let second = here.rgrid(&["run", "--verbose", "sum.py", "data"])?;
    ensure!(
        second.err().contains("10001 files, 10001 already there; 0 B sent"),
        "{}",
        second.err()
    );
    ensure!(second.out() == expected, "{}", second.out());
    eprintln!("10,000 files: {took:?}, then {:?}", begun.elapsed());
    // On a machine with everything else on it; alone it is a tenth.
    ensure!(took < Duration::from_secs(120), "{took:?}");
    let history = here.rgrid(&["history", "last"])?;
    ensure!(history.out().contains("10001 inputs"), "{}", history.out());
    Ok(())
}

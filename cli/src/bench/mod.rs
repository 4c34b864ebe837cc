//! `rgrid bench`: what a grid costs, beside what the machine itself costs for the same, in the same run.

mod args;
mod crowd;
mod docker;
mod floor;
mod grid;
mod latency;
mod report;
mod rounded;
mod upload;

use std::process::ExitCode;

pub(crate) use self::args::BenchArgs;
use self::{args::What, grid::Grid, report::Measured};
use crate::output::{print, print_json};

pub(crate) async fn bench(args: BenchArgs) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        crate::output::say!("this is a debug build, which is several times slower; measure a release build (`make bench`)");
    }
    let grid = Grid::open(&args).await?;
    let measured = tokio::select! {
        measured = Box::pin(measure(&args, &grid)) => measured,
        // The grid of this run must not outlive it.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let closed = grid.close().await;
    let measured = measured?;
    closed?;
    if args.json {
        print_json(&report::json(&measured, args.what == What::All))?;
    } else {
        print(&report::human(&measured))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(args: &BenchArgs, grid: &Grid) -> anyhow::Result<Vec<Measured>> {
    let mut all = Vec::new();
    for what in args.what.parts() {
        crate::output::say!("measuring {} …", what.name());
        all.push(match what {
            What::Noop => Measured::Noop(crowd::noop(grid, args.jobs.unwrap_or(10_000)).await?),
            What::Process => Measured::Process(crowd::process(grid, args.jobs.unwrap_or(1_000)).await?),
            What::Latency => Measured::Latency(latency::measure(grid, args.jobs.unwrap_or(300)).await?),
            What::Upload => Measured::Upload(upload::measure(grid, args.max_size.0).await?),
            What::Docker => match docker::measure(grid, args.jobs.unwrap_or(20), args.image.as_deref()).await {
                Ok(docker) => Measured::Docker(docker),
                // Where everything is asked for, a machine without Docker is measured all the same, and says what it lacks.
                Err(error) if args.what == What::All => Measured::Absent(what, format!("{error:#}")),
                Err(error) => return Err(error),
            },
            What::All => continue,
        });
    }
    Ok(all)
}

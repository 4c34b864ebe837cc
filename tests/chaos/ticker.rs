//! The command of a chaos job: it leaves a trace outside the grid.
//!
//! `ticker DIR MILLISECONDS EXIT_CODE [OUTPUT]` writes `DIR/<job>.<attempt>.<pid>`: a line when it starts, one every 50 ms, and one
//! right before it ends, each with the time in microseconds since 1970. With OUTPUT it leaves a file of that name, which says whose
//! it is. Nothing but the standard library, so that hundreds of them weigh nothing.

use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    process::{self, ExitCode},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

/// Between two ticks.
const TICK: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ticker: {error}");
            ExitCode::from(111)
        }
    }
}

fn run() -> io::Result<u8> {
    let missing = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("missing or wrong: {what}"));
    let mut arguments = env::args().skip(1);
    let dir = arguments.next().ok_or_else(|| missing("DIR"))?;
    let length = arguments.next().and_then(|text| text.parse().ok()).map(Duration::from_millis);
    let length = length.ok_or_else(|| missing("MILLISECONDS"))?;
    let code = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| missing("EXIT_CODE"))?;
    let output = arguments.next();
    let job = env::var("RGRID_JOB_ID").map_err(|_| missing("RGRID_JOB_ID"))?;
    let attempt = env::var("RGRID_ATTEMPT").map_err(|_| missing("RGRID_ATTEMPT"))?;

    let begun = Instant::now();
    let mut trace = File::create_new(format!("{dir}/{job}.{attempt}.{}", process::id()))?;
    say(&mut trace, "start")?;
    loop {
        let left = length.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        sleep(left.min(TICK));
        say(&mut trace, "tick")?;
    }
    if let Some(name) = output {
        fs::write(name, format!("{job} {attempt}\n"))?;
    }
    say(&mut trace, "end")?;
    Ok(code)
}

/// One write a line: whatever kills us, what was said is whole.
fn say(trace: &mut File, what: &str) -> io::Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    trace.write_all(format!("{what} {}\n", now.as_micros()).as_bytes())
}

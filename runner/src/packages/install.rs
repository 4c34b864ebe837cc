//! Installing: the installer runs as a job's command would, in a directory of its own, by the job's own interpreter.

use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use bus::spec::{ExecutorKind, dependencies::Kind};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tracing::info;
use walkdir::WalkDir;

use super::{
    Error, InstallRequest,
    disk::{Disk, New},
    relocate::own_file,
    variables,
};
use crate::{
    executor::{Ended, Exit, Launch, Limits, Running},
    inputs::Inputs,
    patience::patiently,
    secrets::Values,
};

/// How much of what the installer says is shown where it fails, in bytes: the last of it.
const SHOWN: usize = 64 << 10;
/// How long its outputs may stay open once it is gone.
const REST: Duration = Duration::from_secs(2);

/// What runs the installer.
const PYTHON: (&str, &str) = (".rgrid-install.py", include_str!("install.py"));
const NODE: (&str, &str) = (".rgrid-install.cjs", include_str!("install.js"));
/// What it made, and what it says of that.
const MADE: &str = ".rgrid-env";
const RESULT: &str = ".rgrid-result.json";

/// What the installer's driver says of its end.
#[derive(Debug, Default, Deserialize)]
struct InstallerResult {
    /// The installer that ran.
    by: Option<String>,
    /// What is not there to install with.
    lacks: Option<String>,
    /// What cannot be.
    wrong: Option<String>,
}

/// Installs what a job asks for; says how many bytes that came to.
///
/// # Errors
/// If the installer fails, or cannot be run. Nothing of it is left then.
pub(super) async fn install(disk: &Disk, patience: Duration, request: &InstallRequest<'_>) -> Result<(New, u64), Error> {
    let called = request.dependencies.called();
    request.tell(format!("installing {called}")).await;
    let begun = std::time::Instant::now();
    let new = disk.make().map_err(Error::Disk)?;
    let (launch, withheld) = prepare(request, &new, &[]).await?;
    // Who has no private index needs no credentials.
    let unused: Vec<_> = withheld.iter().filter(|&what| what != "~/.netrc").map(String::as_str).collect();
    if !unused.is_empty() {
        request
            .tell(format!(
                "not used in containers by this worker (--install-credentials): {}",
                unused.join(", ")
            ))
            .await;
    }
    let running = request.executor.launch(launch).await?;
    let mut output = Vec::new();
    let ended = tokio::time::timeout(patience, follow(running, &mut output)).await;
    let failed = |why: String| Error::Failed {
        sentence: format!("cannot install {called}: {why}"),
        output: output.clone(),
    };
    // Dropped, it is killed.
    let Ok(ended) = ended else {
        let minutes = patience.as_secs().div_ceil(60);
        return Err(failed(format!(
            "it took longer than the {minutes} min that this worker grants (--install-timeout)"
        )));
    };
    let said = installer_result(&new.work());
    if let Some(why) = trouble(request, &said, ended?.exit) {
        return Err(failed(with_withheld(why, &withheld)));
    }
    let env = new.env();
    // A link would have everything that follows done to what it leads to.
    if !std::fs::symlink_metadata(new.work().join(MADE)).is_ok_and(|meta| meta.is_dir()) {
        return Err(failed("the installer left no directory of packages".to_owned()));
    }
    std::fs::rename(new.work().join(MADE), &env).map_err(Error::Disk)?;
    let measuring = tokio::task::spawn_blocking(move || bytes(&env));
    let bytes = measuring.await.map_err(|error| Error::Disk(std::io::Error::other(error)))?;
    let seconds = begun.elapsed().as_secs_f64();
    let by = said.by.unwrap_or_default();
    info!("installed {called} by {by} in {seconds:.1} s, {bytes} bytes");
    request.tell(format!("installed {called} by {by} in {seconds:.1} s")).await;
    Ok((new, bytes))
}

/// Has the job's Python say whether it is one that the job needs.
///
/// # Errors
/// If it is not, or cannot be run.
pub(super) async fn check(disk: &Disk, patience: Duration, request: &InstallRequest<'_>) -> Result<(), Error> {
    let new = disk.make().map_err(Error::Disk)?;
    let (launch, _) = prepare(request, &new, &["--check"]).await?;
    let running = request.executor.launch(launch).await?;
    let mut output = Vec::new();
    let ended = tokio::time::timeout(patience, follow(running, &mut output)).await;
    let said = installer_result(&new.work());
    let why = match ended {
        Ok(ended) => trouble(request, &said, ended?.exit),
        Err(_) => Some("it does not answer".to_owned()),
    };
    why.map_or(Ok(()), |why| {
        Err(Error::Failed {
            sentence: format!("cannot run the job by its Python ({}): {why}", request.dependencies.declared_in),
            output,
        })
    })
}

/// Lays out what declares the packages, and says what to run there, and what of the worker is kept from it.
async fn prepare(request: &InstallRequest<'_>, new: &New, options: &[&str]) -> Result<(Launch, Vec<String>), Error> {
    let work = new.work();
    for file in &request.dependencies.files {
        let path = work.join(file.path.as_str());
        std::fs::create_dir_all(path.parent().unwrap_or(&work)).map_err(Error::Disk)?;
        let fetch = || request.files.get_file(&file.sha256, &path, file.executable);
        patiently("fetch an input", fetch).await?;
    }
    let (driver, text) = match request.dependencies.kind {
        Kind::Pip => PYTHON,
        Kind::Npm => NODE,
    };
    std::fs::write(work.join(driver), text).map_err(Error::Disk)?;
    let given = variables::of(
        request.executor.kind(),
        request.dependencies.kind,
        &new.scratch(),
        std::env::vars_os(),
        request.with_credentials,
    );
    let given = given.map_err(Error::Disk)?;
    let mut command = vec![driver.to_owned()];
    match &request.dependencies.python {
        Some(python) => command.push(python.clone()),
        // Options stand behind it.
        None if !options.is_empty() => command.push(String::new()),
        None => {}
    }
    command.extend(options.iter().map(|&option| option.to_owned()));
    let launch = Launch {
        command,
        env: given.variables,
        secrets: Values::default(),
        work_dir: work,
        dir: None,
        scratch_dir: new.scratch(),
        stdin: None,
        limits: Limits {
            cpu_milli: request.launch.limits.cpu_milli,
            memory_bytes: None,
            shm_bytes: None,
        },
        packages: None,
        // They are in another directory, and touched by nobody yet.
        inputs: Inputs::default(),
        installs: true,
        // What they install is every job's.
        user: None,
        ..request.launch.clone()
    };
    Ok((launch, given.withheld))
}

/// Waits for the installer's end, and keeps the last that it says.
async fn follow(running: Running, output: &mut Vec<u8>) -> Result<Ended, crate::executor::Error> {
    let Running {
        mut stdout,
        mut stderr,
        handle,
        ..
    } = running;
    let (mut out, mut err) = (vec![0; 8 << 10], vec![0; 8 << 10]);
    let (mut out_open, mut err_open) = (true, true);
    let mut ended = None;
    let rest = tokio::time::sleep(Duration::MAX);
    tokio::pin!(rest);
    loop {
        tokio::select! {
            read = read(&mut stdout, &mut out), if out_open => out_open = take(output, read, &out),
            read = read(&mut stderr, &mut err), if err_open => err_open = take(output, read, &err),
            end = handle.wait(), if ended.is_none() => {
                ended = Some(end?);
                rest.as_mut().reset(tokio::time::Instant::now() + REST);
            }
            () = &mut rest, if ended.is_some() => (out_open, err_open) = (false, false),
        }
        if let Some(ended) = ended.filter(|_| !out_open && !err_open) {
            return Ok(ended);
        }
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> usize {
    // A pipe that broke says nothing more.
    from.read(buffer).await.unwrap_or(0)
}

/// Takes what was read; says whether there may be more.
fn take(output: &mut Vec<u8>, read: usize, buffer: &[u8]) -> bool {
    output.extend_from_slice(&buffer[..read]);
    if output.len() > 2 * SHOWN {
        output.drain(..output.len() - SHOWN);
    }
    read > 0
}

fn installer_result(work: &Path) -> InstallerResult {
    let path = work.join(RESULT);
    let json = own_file(&path).and_then(std::fs::read).unwrap_or_default();
    serde_json::from_slice(&json).unwrap_or_default()
}

/// Why the packages are not installed, in the second half of a sentence; nothing where they are.
fn trouble(request: &InstallRequest<'_>, said: &InstallerResult, exit: Exit) -> Option<String> {
    if let Some(lacks) = &said.lacks {
        let there = match request.executor.kind() {
            ExecutorKind::Docker => "the image in which the job runs",
            ExecutorKind::Process | ExecutorKind::Noop => "this worker",
        };
        return Some(format!(
            "{there} has no {lacks}; install it there, or leave the packages out with --no-requirements"
        ));
    }
    if let Some(wrong) = &said.wrong {
        return Some(wrong.clone());
    }
    let by = said.by.as_deref().unwrap_or("the installer");
    let ended = match exit {
        Exit::Code(0) if said.by.is_some() => return None,
        Exit::Code(code) => format!("ended with exit code {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
        Exit::OutOfMemory => "ran out of memory".to_owned(),
    };
    Some(format!(
        "{by} {ended}; what it said is in the job's log (standard error). Correct {}, or leave the packages out with --no-requirements",
        request.dependencies.declared_in
    ))
}

/// Other causes that a failure may have.
fn with_withheld(why: String, withheld: &[String]) -> String {
    if withheld.is_empty() {
        return why;
    }
    format!(
        "{why}. This worker keeps {} from installations in containers, unless its operator says otherwise (`rgrid runner --install-credentials`)",
        withheld.join(", ")
    )
}

fn bytes(env: &Path) -> u64 {
    let sizes = WalkDir::new(env)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(std::fs::Metadata::is_file);
    // What a file with holes holds is what it takes up.
    sizes.map(|meta| meta.len().min(meta.blocks() * 512)).sum()
}

//! One table of cases, run here, as a plain process and in a container: the same output, the same exit code, the same files. It needs
//! a Docker daemon and the image `rgrid/python:3`, and fails without.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};

use crate::cli::here::{Came, Here};

/// Files by their paths: what each holds, and whether it may be executed.
type Files = BTreeMap<PathBuf, (Vec<u8>, bool)>;

/// What is run, and what lies beside it.
struct Case {
    name: &'static str,
    words: &'static [&'static str],
    /// Files with their modes.
    files: &'static [(&'static str, &'static str, u32)],
    stdin: Option<&'static str>,
}

const fn case(name: &'static str, words: &'static [&'static str]) -> Case {
    Case {
        name,
        words,
        files: &[],
        stdin: None,
    }
}

const fn with(name: &'static str, words: &'static [&'static str], files: &'static [(&'static str, &'static str, u32)]) -> Case {
    Case {
        files,
        ..case(name, words)
    }
}

const SURROUNDINGS: &str = "
import getpass, locale, os, pathlib, resource, signal, socket, sys, tempfile
print('group', os.getpgrp() == os.getpid())
print('pwd', os.environ['PWD'] == os.getcwd())
print('user', os.environ['USER'] == os.environ['LOGNAME'] == getpass.getuser())
print('home', os.path.expanduser('~') == os.environ['HOME'], os.access(os.environ['HOME'], os.W_OK))
print('locale', locale.getpreferredencoding(), sys.stdout.encoding, os.environ['LANG'])
print('host', socket.gethostname())
print('cpus', os.cpu_count())
print('terminals', [os.isatty(file) for file in range(3)])
print('signals', [signal.getsignal(number) for number in (1, 10, 12, 15, 17)], signal.pthread_sigmask(signal.SIG_BLOCK, []))
print('NOFILE', resource.getrlimit(resource.RLIMIT_NOFILE))
# A job may raise what it has at first: no dump.
print('CORE', resource.getrlimit(resource.RLIMIT_CORE)[1])
for place in (tempfile.gettempdir(), '/tmp', '/var/tmp', '/dev/shm'):
    with tempfile.NamedTemporaryFile(dir=place) as file:
        print('writable', file.write(b'x'))
";

const SHARED: &str = "
import os
path = f'/dev/shm/rgrid-{os.getpid()}'
try:
    with open(path, 'wb') as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    print(os.path.getsize(path))
finally:
    os.unlink(path)
";

const ORPHANS: &str = "
import os, time
reader, writer = os.pipe()
if os.fork() == 0:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.write(writer, str(pid).encode())
    os._exit(0)
os.wait()
orphan = int(os.read(reader, 20))
for _ in range(1000):
    if not os.path.exists(f'/proc/{orphan}'):
        print('reaped')
        break
    time.sleep(0.01)
";

const LINKS: &str = "
mkdir -p sub deep/er
echo one > data.txt; echo two > sub/x
ln -s \"$PWD/data.txt\" absolute
ln -s \"$PWD/sub\" directory
ln -s \"$PWD/data.txt\" deep/er/absolute
ln -s data.txt relative
cat absolute directory/x deep/er/absolute relative
";

const SH: &str = "#!/bin/sh\n";

const CASES: [Case; 33] = [
    case("the surroundings", &["python3", "-c", SURROUNDINGS]),
    case("shared memory beyond 64 MiB", &["python3", "-c", SHARED]),
    case("orphans are reaped", &["python3", "-c", ORPHANS]),
    case("absolute links to what is inside", &["sh", "-c", LINKS]),
    case(
        "modes of what is made",
        &[
            "sh",
            "-c",
            "umask; touch f; mkdir d; touch d/g; printf '#!/bin/sh\\n' > s; chmod +x s; stat -c '%a %n' f d d/g s",
        ],
    ),
    case("nothing on standard input", &["sh", "-c", "wc -c; cat /dev/stdin; echo end"]),
    Case {
        stdin: Some("one\ntwo\n"),
        ..case(
            "something on standard input",
            &["sh", "-c", "read line; echo \"$line\"; cat; echo end"],
        )
    },
    case(
        "streams by their names",
        &["sh", "-c", "echo a > /dev/stdout; echo b > /dev/stderr; echo c | tee /dev/stderr"],
    ),
    case(
        "a broken pipe ends who writes",
        &["bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}"],
    ),
    case("the order of letters", &["sh", "-c", "printf 'b\\nA\\na\\nB\\n' | sort"]),
    case(
        "a signal to the whole group",
        &[
            "sh",
            "-c",
            "trap : TERM; (trap 'echo child; exit' TERM; touch ready; while :; do sleep 0.02; done) & \
             while [ ! -e ready ]; do sleep 0.02; done; kill -TERM 0; wait; wait; rm -f ready; echo end",
        ],
    ),
    case("exit code 3", &["sh", "-c", "exit 3"]),
    case("exit code 126", &["sh", "-c", "exit 126"]),
    case("exit code 127", &["sh", "-c", "exit 127"]),
    case("exit code 130", &["sh", "-c", "exit 130"]),
    case("exit code 143", &["sh", "-c", "exit 143"]),
    case("exit code 255", &["sh", "-c", "exit 255"]),
    case("SIGHUP", &["sh", "-c", "kill -HUP $$"]),
    case("SIGINT", &["sh", "-c", "kill -INT $$"]),
    case("SIGTERM", &["sh", "-c", "kill -TERM $$"]),
    case("SIGKILL", &["sh", "-c", "kill -KILL $$"]),
    case("SIGSEGV", &["sh", "-c", "kill -SEGV $$"]),
    case("SIGABRT", &["sh", "-c", "kill -ABRT $$"]),
    case("SIGUSR1", &["sh", "-c", "kill -USR1 $$"]),
    case("a child that is killed", &["sh", "-c", "sh -c 'kill -TERM $$'; echo $?"]),
    case("a program that is not there", &["no-such-program", "x"]),
    case("a path that is not there", &["./nothing"]),
    case("an absolute path that is not there", &["/no/such/program"]),
    with("a file that is not executable", &["./plain"], &[("plain", SH, 0o644)]),
    with("a directory", &["./sub"], &[("sub/x", "", 0o644)]),
    with(
        "an interpreter that is not there",
        &["./strange"],
        &[("strange", "#!/no/such/interpreter\n", 0o755)],
    ),
    with("a path through a file", &["./plain/x"], &[("plain", SH, 0o755)]),
    with(
        "a script without a first line",
        &["./bare", "a b"],
        &[("bare", "echo \"$0 $1\"; exit 4\n", 0o755)],
    ),
];

impl Case {
    fn lay(&self, here: &Here) -> Result<()> {
        for (path, content, mode) in self.files {
            here.write(path, content)?;
            fs::set_permissions(here.path().join(path), fs::Permissions::from_mode(*mode))?;
        }
        if let Some(stdin) = self.stdin {
            fs::write(here.path().parent().context("no parent")?.join("stdin"), stdin)?;
        }
        Ok(())
    }

    /// As a shell of this machine runs it.
    fn here(&self) -> Result<(Came, Files)> {
        let here = Here::without_grid()?;
        self.lay(&here)?;
        let mut command = Command::new("sh");
        command
            // Jobs dump no core unless they ask for that.
            .args(["-c", "ulimit -S -c 0; exec \"$@\"", "sh"])
            .args(self.words)
            .current_dir(here.path())
            .env_clear();
        command.envs([("PATH", std::env::var("PATH").unwrap_or_default()), ("LANG", "C.UTF-8".to_owned())]);
        let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        command.envs([("HOME", "/tmp"), ("USER", &user), ("LOGNAME", &user)]);
        command.env("PYTHONDONTWRITEBYTECODE", "1").process_group(0);
        let stdin = here.path().parent().context("no parent")?.join("stdin");
        command.stdin(if stdin.exists() {
            fs::File::open(stdin)?.into()
        } else {
            Stdio::null()
        });
        Ok((command.output()?.into(), here.files()?))
    }

    fn there(&self, grid: &Grid, options: &[&str]) -> Result<(Came, Files)> {
        let here = Here::of(grid)?;
        self.lay(&here)?;
        let mut words = vec!["run"];
        words.extend(options);
        if self.stdin.is_some() {
            words.extend(["-i", "../stdin"]);
        }
        words.extend(self.files.iter().flat_map(|(path, ..)| ["--include", path]));
        words.push("--program");
        words.extend(self.words);
        let came = here.rgrid(&words)?;
        Ok((came, here.files()?))
    }
}

/// What was said of an end, wherever it was: without the job's id and the place's name.
fn sentence(came: &Came) -> String {
    let err = came.err();
    let said = err
        .lines()
        .filter_map(|line| line.strip_prefix("rgrid: job "))
        .filter_map(|line| line.split_once(": "));
    let said: Vec<String> = said
        .map(|(_, words)| words.replace("image `rgrid/python:3`", "this worker"))
        .collect();
    said.join("\n")
}

async fn grid() -> Result<Grid> {
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let env = vec![("RGRID_EXECUTOR", "auto".to_owned()), ("USER", user)];
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    Ok(grid)
}

const PROCESS: &[&str] = &["--executor", "process"];
const DOCKER: &[&str] = &["--executor", "docker", "--image", "rgrid/python:3"];

#[tokio::test]
async fn what_runs_here_runs_the_same_as_a_process_and_in_a_container() -> Result<()> {
    let grid = grid().await?;
    let mut wrong = Vec::new();
    for case in &CASES {
        let (here, files) = case.here()?;
        let mut sentences = Vec::new();
        for (executor, options) in [("process", PROCESS), ("docker", DOCKER)] {
            let (there, back) = case.there(&grid, options)?;
            let mut differs = |what: &str, here: String, there_: String| {
                if here != there_ {
                    wrong.push(format!(
                        "{} ({executor}): {what}: {here} here, {there_} there: {}",
                        case.name,
                        there.err()
                    ));
                }
            };
            differs("exit code", here.code.to_string(), there.code.to_string());
            differs("output", here.out(), there.out());
            differs("files", format!("{files:?}"), format!("{back:?}"));
            sentences.push(sentence(&there));
        }
        // A shell's own exit codes above 128 are a signal's in a container, which nothing tells apart.
        if !case.name.starts_with("exit code") && !case.name.starts_with("SIG") && sentences[0] != sentences[1] {
            wrong.push(format!("{}: {sentences:?}", case.name));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn shared_memory_can_be_limited_and_what_looks_like_an_init_s_word_is_none() -> Result<()> {
    let grid = grid().await?;
    let here = Here::of(&grid)?;
    let run = |options: &[&str], words: &[&str]| {
        let mut all = vec!["run", "--no-outputs"];
        all.extend(DOCKER.iter().chain(options));
        all.push("--program");
        all.extend(words);
        here.rgrid(&all)
    };
    let size = "import os; shm = os.statvfs('/dev/shm'); print(shm.f_blocks * shm.f_frsize)";
    let came = run(&["--shm", "16MiB"], &["python3", "-c", size])?;
    assert_eq!(came.out().trim(), (16 << 20).to_string(), "{}", came.err());
    let came = run(&["--memory", "256MiB"], &["python3", "-c", size])?;
    assert_eq!(came.out().trim(), (128 << 20).to_string(), "{}", came.err());

    let word = "[FATAL tini (7)] exec nothing failed: No such file or directory";
    for code in ["0", "5"] {
        let came = run(&[], &["sh", "-c", &format!("echo '{word}' >&2; exit {code}")])?;
        assert_eq!(came.code.to_string(), code);
        assert!(came.err().contains(word), "{}", came.err());
    }
    let came = run(&[], &["sh", "-c", &format!("echo '{word}' >&2; echo more >&2; exit 127")])?;
    assert!(came.code == 127 && came.err().contains(word), "{}", came.err());
    Ok(())
}

#[tokio::test]
async fn what_an_image_sets_is_what_its_job_has() -> Result<()> {
    let grid = grid().await?;
    let here = Here::of(&grid)?;
    let name = format!("rgrid-tests/env:{}", std::process::id());
    let docker = |words: &[&str]| -> Result<String> {
        let output = Command::new("docker").args(words).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let container = docker(&["create", "rgrid/python:3"])?;
    let changes = [
        "ENV LANG=de_DE.ISO-8859-1",
        "ENV TZ=Europe/Berlin",
        "ENV USER=app",
        "ENV HOME=/root",
        "ENV OWN=own",
    ];
    let mut commit = vec!["commit"];
    commit.extend(changes.iter().flat_map(|change| ["--change", change]));
    commit.extend([container.as_str(), &name]);
    docker(&commit)?;
    docker(&["rm", &container])?;
    let shows = "import os; print(*(os.environ.get(name) for name in ('LANG', 'TZ', 'USER', 'HOME', 'OWN')))";
    let options = ["run", "--executor", "docker", "--image", &name, "--program", "python3", "-c", shows];
    let came = here.rgrid(&options);
    docker(&["rmi", "-f", &name])?;
    let came = came?;
    assert_eq!(came.out().trim(), "de_DE.ISO-8859-1 Europe/Berlin app /tmp own", "{}", came.err());
    Ok(())
}

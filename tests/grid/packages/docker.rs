//! Packages in containers. These tests need a Docker daemon and the image `rgrid/python:3`, and fail without.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Result, ensure};
use grid_tests::grid::{Grid, Part};

use super::{INSTALLED, STORED, installed_first, logged, saying, wheel};
use crate::cli::here::Here;

const SCRIPT: &str = "import hail, os, subprocess, sys\nprint(hail.said())\nsubprocess.run([sys.executable, '-m', 'hail'], check=True)\n\
                      subprocess.run(['hail-cli'], check=True)\ntry:\n    open(hail.__file__ + '.new', 'w')\nexcept OSError as error:\n    print(error.strerror)\n";

async fn grid(worker: u8) -> Result<Grid> {
    let mut grid = Grid::start_only(&[Part::Api, Part::Projector, Part::Watcher]).await?;
    grid.run_with(Part::Runner(worker), &["--executor", "docker"])?;
    Ok(grid)
}

/// An image that is this test's alone.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

fn docker(words: &[&str]) -> Result<()> {
    let output = Command::new("docker").args(words).output()?;
    ensure!(
        output.status.success(),
        "docker {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The usual image after a command in it.
fn image_after(script: &str) -> Result<Image> {
    let name = format!("rgrid-tests-{}", uuid::Uuid::now_v7().simple());
    docker(&["run", "--name", &name, "rgrid/python:3", "sh", "-c", script])?;
    let committed = docker(&["commit", &name, &name]);
    docker(&["rm", &name])?;
    committed?;
    Ok(Image(name))
}

#[tokio::test]
async fn a_container_finds_its_packages_and_cannot_change_them() -> Result<()> {
    let mut grid = grid(1).await?;
    let here = Here::of(&grid)?;
    let first = installed_first(&here, SCRIPT, "hello\nhello\nhello\nRead-only file system\n")?;
    let second = here.rgrid(&["run", "s.py"])?;
    assert_eq!((second.code, second.out(), second.err().as_str()), (0, first.out(), ""));
    logged(&grid, Part::Runner(1), STORED, 1).await?;
    grid.kill(Part::Runner(1))?;
    grid.run_with(Part::Runner(2), &["--executor", "docker"])?;
    let elsewhere = here.rgrid(&["run", "s.py"])?;
    assert_eq!((elsewhere.code, elsewhere.out()), (0, first.out()), "{}", elsewhere.err());
    ensure!(!grid.log(Part::Runner(2)).contains(INSTALLED));
    Ok(())
}

#[tokio::test]
async fn an_image_that_has_no_installer_is_told_what_it_lacks() -> Result<()> {
    let bare = image_after("rm -r /usr/lib/python3/dist-packages/pip")?;
    let grid = grid(1).await?;
    let here = Here::of(&grid)?;
    let file = saying(&here, "hail", "hello")?;
    here.write("s.py", SCRIPT)?
        .write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
    let came = here.rgrid(&["run", "--image", &bare.0, "s.py"])?;
    let expected = "cannot install 1 package (requirements.txt): the image in which the job runs has no uv or pip";
    ensure!(came.code == 126 && came.err().contains(expected), "{}", came.err());
    Ok(())
}

/// What is installed runs code in the container, and may leave links for the runner to follow, which is root.
#[tokio::test]
async fn an_installation_that_means_harm_reaches_nothing_outside_its_container() -> Result<()> {
    let grid = grid(1).await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "print('it ran')\n")?.write("victim/pyvenv.cfg", "theirs")?;
    let victim = here.path().join("victim");
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o755))?;
    for (place, harmed, expected) in [
        (".rgrid-env", "", "left no directory"),
        (".rgrid-env/bin", "", "is not a directory"),
        (".rgrid-env/.rgrid.json", "/pyvenv.cfg", "is not a file"),
    ] {
        // Python runs this at each of its starts, the last time after all is installed.
        let body = format!(
            "# at each start\nimport os\nplace = '/work/{place}'\nif os.path.exists('/work/.rgrid-install.py') and os.path.exists(place) and not os.path.islink(place):\n    \
             os.rename(place, '/work/gone')\n    os.symlink({:?}, place)\n",
            format!("{}{harmed}", victim.display())
        );
        let file = wheel(&here.path().join("wheels"), "harm", "1.0", &body, "")?;
        here.write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
        let came = here.rgrid(&["run", "s.py"])?;
        ensure!(came.code == 126 && came.out().is_empty(), "{place}: {}{}", came.out(), came.err());
        ensure!(came.err().contains(expected), "{place}: {}", came.err());
        let names: Vec<_> = fs::read_dir(&victim)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        assert_eq!(names, ["pyvenv.cfg"], "{place}");
        assert_eq!(fs::read_to_string(victim.join("pyvenv.cfg"))?, "theirs");
        assert_eq!(fs::metadata(&victim)?.permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::metadata(victim.join("pyvenv.cfg"))?.permissions().mode() & 0o777, 0o644);
    }
    Ok(())
}

/// What packages bring runs while they are installed, and would send on what it finds.
#[tokio::test]
async fn an_installation_sees_the_worker_s_credentials_only_if_its_operator_says_so() -> Result<()> {
    let home = tempfile::tempdir()?;
    fs::create_dir_all(home.path().join(".config/pip"))?;
    for file in [".netrc", ".npmrc", ".config/pip/pip.conf"] {
        fs::write(home.path().join(file), "")?;
    }
    let env = vec![
        ("HOME", home.path().display().to_string()),
        ("PIP_EXTRA_INDEX_URL", "https://user:word@index.example/simple".to_owned()),
        ("UV_INDEX_LAB_PASSWORD", "word".to_owned()),
    ];
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], env).await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "print(open('/opt/rgrid/packages/seen').read())\n")?;
    let body = "# at each start\nimport os\nif os.path.exists('/work/.rgrid-install.py'):\n    home = os.path.expanduser('~')\n    \
                files = [name for name in ('.netrc', '.npmrc', '.config/pip/pip.conf') if os.path.exists(os.path.join(home, name))]\n    \
                words = [os.environ.get(name) for name in ('PIP_EXTRA_INDEX_URL', 'UV_INDEX_LAB_PASSWORD')]\n    \
                open('/work/.rgrid-env/seen', 'w').write('%s %s' % (files, words))\n";
    let given = "['.netrc', '.config/pip/pip.conf'] ['https://user:word@index.example/simple', 'word']\n";
    let kept = "[] ['https://index.example/simple', None]\n";
    for (worker, name, options, seen) in [(1, "one", &[][..], kept), (2, "two", &["--install-credentials"], given)] {
        grid.run_with(Part::Runner(worker), &[&["--executor", "docker"], options].concat())?;
        let file = wheel(&here.path().join("wheels"), name, "1.0", body, "")?;
        here.write("requirements.txt", format!("--no-index\n./wheels/{file}\n"))?;
        let came = here.rgrid(&["run", "s.py"])?;
        assert_eq!((came.code, came.out().as_str()), (0, seen), "{}", came.err());
        let told = "not used in containers by this worker (--install-credentials): the user of PIP_EXTRA_INDEX_URL, UV_INDEX_LAB_PASSWORD, ~/.config/pip/pip.conf";
        assert_eq!(came.err().contains(told), options.is_empty(), "{}", came.err());
        grid.kill(Part::Runner(worker))?;
    }
    Ok(())
}

#[tokio::test]
async fn the_python_of_an_image_fits_or_the_job_is_refused() -> Result<()> {
    let grid = grid(1).await?;
    let here = Here::of(&grid)?;
    let script = |python: &str| format!("# /// script\n# requires-python = '{python}'\n# ///\nprint('it ran')\n");
    here.write("fits.py", script(">=3.8"))?.write("new.py", script(">=3.99"))?;
    for _ in 0..2 {
        let came = here.rgrid(&["run", "fits.py"])?;
        assert_eq!((came.code, came.out().as_str(), came.err().as_str()), (0, "it ran\n", ""));
    }
    let came = here.rgrid(&["run", "new.py"])?;
    ensure!(
        came.code == 126 && came.err().contains("(new.py): it needs Python >=3.99, and this is 3."),
        "{}{}",
        came.out(),
        came.err()
    );
    Ok(())
}

//! `rgrid image build`: an image of Debian's packages, the same bytes of the same packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail, ensure};
use bus::{grid::image::ImageName, ids::Digest, spec::runtime::RuntimeRef};
use chrono::{DateTime, SecondsFormat};
use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::io::ReaderStream;

use super::{
    debian::{self, Recipe},
    docker,
};
use crate::{
    failure::usage,
    output::{print_json, print_line},
};

/// The time that files have which are younger, unless `SOURCE_DATE_EPOCH` says another: 2020-01-01. Zip archives know none before 1980.
const EPOCH: i64 = 1_577_836_800;
/// What an image of programs can do without.
const LEFT_OUT: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const EXAMPLES: &str = "\
Examples:
  rgrid image build python                              as rgrid/python:latest, of the version that this Debian has
  rgrid image build python:3.11 --package python3-numpy --package python3-pandas
  rgrid image build R --tag lab/r:2

As root, or as a user who may make user namespaces. Of the same packages it makes the same image, to the last byte; files that \
are younger than SOURCE_DATE_EPOCH (default: 2020) are given that time.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BuildArgs {
    /// The runtime, with a version where that matters: python, python:3.11, node, ruby, perl, php, R, bash, sh
    #[arg(value_name = "RUNTIME")]
    runtime: RuntimeRef,
    /// What to call the image [default: rgrid/RUNTIME:VERSION, which jobs of the runtime find by themselves]
    #[arg(long, value_name = "IMAGE")]
    tag: Option<ImageName>,
    /// A package of Debian to add; can be repeated
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A release of Debian.
struct Release {
    /// `bookworm`.
    codename: String,
}

pub(super) async fn build(args: BuildArgs) -> anyhow::Result<()> {
    let name = tag(&args)?;
    for package in &args.packages {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+.-:=~".contains(&byte);
        if package.is_empty() || package.starts_with('-') || !package.bytes().all(fits) {
            return Err(usage(format!(
                "`{}` is not the name of a package; write it as for apt-get, as in python3-numpy",
                package.escape_debug()
            )));
        }
    }
    let release = release(Path::new("/etc/os-release"))?;
    let mut recipe = debian::recipe(&args.runtime, &release.codename).await?;
    recipe.packages.extend(args.packages);
    let docker = docker::connect().await?;
    let dir = TempDir::with_prefix("rgrid-build-").context("cannot make a directory for the image; make room, or set TMPDIR")?;
    if !args.json {
        crate::output::say!("building {name} of Debian {}: {}", release.codename, recipe.packages.join(", "));
    }
    let epoch = epoch()?;
    debootstrap(&release, &recipe, dir.path(), epoch).await?;
    let version = installed(&dir.path().join("status"), &recipe.packages[0])?;
    ensure!(
        args.runtime.is_met_by(&version),
        "what was built has {} {version}, and not {}: this Debian's own sources have another version than apt knows of; look at /etc/apt/sources.list.d",
        args.runtime.name,
        args.runtime
    );
    let layer = digest(dir.path().join("layer.tar")).await?;
    describe(dir.path(), &name, &args.runtime, &version, &recipe, &release, (&layer, epoch))?;
    pack(&docker, dir.path(), epoch).await?;
    let here = docker::find(&docker, &name).await?;
    let here = here.with_context(|| format!("Docker took the image, and does not have {name}"))?;
    if args.json {
        return print_json(&json!({
            "image": name, "id": here.id, "size": here.size, "platform": here.platform, "version": version, "packages": recipe.packages,
        }));
    }
    print_line(&format!(
        "built {name}: {} {version}, {}; `rgrid image push {name}` gives it to the workers",
        args.runtime.name, here.id
    ))
}

/// `rgrid/python:3.11`; names of images have no capitals.
fn tag(args: &BuildArgs) -> anyhow::Result<ImageName> {
    if let Some(tag) = &args.tag {
        return Ok(tag.clone());
    }
    let version = args.runtime.version.as_deref().unwrap_or("latest");
    Ok(format!("rgrid/{}:{version}", args.runtime.name.as_str().to_ascii_lowercase()).parse()?)
}

fn epoch() -> anyhow::Result<i64> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .map_err(|_| usage(format!("SOURCE_DATE_EPOCH is `{text}`; it is a number of seconds since 1970"))),
        Err(_) => Ok(EPOCH),
    }
}

fn release(file: &Path) -> anyhow::Result<Release> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    match (value("ID").as_deref(), value("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(Release { codename }),
        (id, _) => Err(usage(format!(
            "images are made of Debian's packages, on Debian, and this machine runs {}; build elsewhere, and push from there, or push an image that was made \
             otherwise",
            id.unwrap_or("something else")
        ))),
    }
}

/// Where packages come from: the mirror that this machine uses.
fn sources() -> Vec<PathBuf> {
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0))
        .into_iter()
        .collect()
}

/// Makes `layer.tar`, and `status`, which says what was installed.
async fn debootstrap(release: &Release, recipe: &Recipe, dir: &Path, epoch: i64) -> anyhow::Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase"]);
    command.arg(format!("--include={}", recipe.packages.join(",")));
    command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    if let Some(called) = &recipe.called {
        let link = format!("ln -s /usr/bin/{called} \"$1/usr/local/bin/{}\"", recipe.program);
        command.arg(format!("--customize-hook={link}"));
    }
    command.arg(format!(
        "--customize-hook=download /var/lib/dpkg/status {}",
        dir.join("status").display()
    ));
    command.arg(&release.codename).arg(dir.join("layer.tar")).args(sources());
    command
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let made = command.output().await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            usage("mmdebstrap is not installed, which makes the image; as root run: apt-get install mmdebstrap")
        }
        _ => anyhow::Error::new(error).context("cannot run mmdebstrap"),
    })?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr);
    let mut last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).rev().take(5).collect();
    last.reverse();
    bail!(
        "mmdebstrap could not make the image ({}): {}; it needs root, or a user who may make user namespaces, and the mirror of packages",
        made.status,
        last.join(" | ")
    );
}

/// The version of a package that was installed, without Debian's own parts.
fn installed(status: &Path, package: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(status).context("cannot read what was installed")?;
    let paragraph = text.split("\n\n").find(|paragraph| {
        let mut lines = paragraph.lines();
        lines.any(|line| line.strip_prefix("Package: ") == Some(package))
    });
    let version = paragraph.and_then(debian::upstream);
    version.with_context(|| format!("package {package} was not installed"))
}

async fn digest(file: PathBuf) -> anyhow::Result<Digest> {
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = Sha256::new();
        std::io::copy(&mut fs::File::open(file)?, &mut hasher)?;
        Ok::<_, std::io::Error>(Digest::finish(hasher))
    });
    hashed.await?.context("cannot read what was built")
}

/// Writes the image's own description, as `docker save` has it. Docker's id of the image is the hash of it.
fn describe(
    dir: &Path,
    name: &ImageName,
    runtime: &RuntimeRef,
    version: &str,
    recipe: &Recipe,
    release: &Release,
    (layer, epoch): (&Digest, i64),
) -> anyhow::Result<()> {
    let created = DateTime::from_timestamp(epoch, 0).context("SOURCE_DATE_EPOCH lies beyond the calendar")?;
    let created = created.to_rfc3339_opts(SecondsFormat::Secs, true);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": created,
        "config": {
            "Env": [format!("PATH={PATH}"), "LANG=C.UTF-8"],
            "Cmd": [recipe.program],
            "Labels": {
                "rgrid.runtime": format!("{}:{version}", runtime.name),
                "rgrid.debian": release.codename,
                "rgrid.packages": recipe.packages.join(","),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": created, "created_by": format!("rgrid image build {runtime}") }],
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    for (file, content) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(dir.join(file), serde_json::to_vec(&content)?).context("cannot write the image's description")?;
    }
    Ok(())
}

/// The machine's architecture, as images spell it.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Packs the image, and hands it to Docker as it comes.
async fn pack(docker: &bollard::Docker, dir: &Path, epoch: i64) -> anyhow::Result<()> {
    let mut packing = Command::new("tar");
    packing
        .arg("-C")
        .arg(dir)
        .args(["--numeric-owner", "--owner=0", "--group=0"])
        .arg(format!("--mtime=@{epoch}"))
        .args(["-cf", "-", "manifest.json", "config.json", "layer.tar"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut packing = packing.spawn().context("cannot run tar")?;
    let packed = packing.stdout.take().context("tar has no output")?;
    docker::load(docker, ReaderStream::with_capacity(packed, 256 << 10)).await?;
    let ended = packing.wait().await.context("cannot wait for tar")?;
    ensure!(ended.success(), "tar could not pack the image ({ended})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_system_than_debian_is_refused_by_its_name() -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), "ID=fedora\nVERSION_CODENAME=\"\"\n")?;
        let error = release(file.path()).err().context("refused")?;
        assert!(error.to_string().contains("runs fedora; build elsewhere"), "{error}");
        fs::write(file.path(), "ID=debian\nVERSION_CODENAME=trixie\n")?;
        assert_eq!(release(file.path())?.codename, "trixie");
        Ok(())
    }

    #[test]
    fn what_was_installed_is_read_from_dpkg_s_own_list() -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(
            file.path(),
            "Package: a\nVersion: 1-1\n\nPackage: python3\nVersion: 3.11.2-1+b1\n\n",
        )?;
        assert_eq!(installed(file.path(), "python3")?, "3.11.2");
        assert!(installed(file.path(), "ruby").is_err());
        Ok(())
    }
}

//! Output files on their way back: verified, and in place whole or not at all.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use api::{compression, view::ArtifactView};
use bus::ids::{Digest, JobId};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use sha2::{Digest as _, Sha256};

use super::{Client, Error, direct::innermost, patience::Patience};
use crate::output::Bar;

/// Files that are fetched at once.
const AT_ONCE: usize = 16;
/// From so many bytes on, what came of a file is kept for the next try.
const WORTH_KEEPING: u64 = 1 << 20;
/// What stands at the name of a temporary file is not to be written through.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Where.
    pub(crate) paths: Vec<PathBuf>,
    /// Bytes together.
    pub(crate) bytes: u64,
}

/// Fetches output files of a job into a directory, each under its own relative path. What is there is replaced, where it is a link the
/// file that it leads to, unless the link itself was the job's (`links`); nothing is written behind a link that leads out of the
/// directory, whoever made it.
///
/// # Errors
/// Before anything is fetched, if one would be saved outside; and at the first file that cannot be fetched or saved: those before
/// it are there.
pub(crate) async fn save_outputs(
    client: &Client,
    job: JobId,
    files: Vec<ArtifactView>,
    (into, links): (&Path, &BTreeSet<String>),
) -> anyhow::Result<Saved> {
    let bytes = files.iter().map(|file| file.size).sum();
    let bar = Bar::new("fetching", bytes);
    let targets = files
        .iter()
        .map(|file| target(into, file.path.as_str()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for target in &targets {
        ensure_inside(into, target)?;
    }
    for file in files.iter().filter(|file| !links.is_empty() && file.path.as_str().contains('/')) {
        // The job made a directory of a link that it had.
        let above = file.path.as_str().match_indices('/').map(|(at, _)| &file.path.as_str()[..at]);
        let mut replaced = above.filter(|above| links.contains(*above)).map(|above| into.join(above));
        if let Some(link) = replaced.find(|link| link.is_symlink()) {
            fs::remove_file(&link).with_context(|| format!("cannot replace the link {}", link.display()))?;
        }
    }
    let parents: BTreeSet<&Path> = targets.iter().filter_map(|target| target.parent()).collect();
    for parent in parents {
        fs::create_dir_all(parent).with_context(|| format!("cannot make the directory {}", parent.display()))?;
    }
    let save_one = |(file, target): (ArtifactView, PathBuf)| {
        let bar = bar.clone();
        async move {
            let replaces = links.contains(file.path.as_str());
            save(client, &file, (&target, replaces), &bar).await.with_context(|| {
                format!(
                    "cannot save the output {}; fetch it again with `rgrid download {job}`",
                    target.display()
                )
            })
        }
    };
    stream::iter(files.into_iter().zip(targets.clone()))
        .map(save_one)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    bar.finish();
    Ok(Saved { paths: targets, bytes })
}

/// Where an output belongs. Its path was checked when it was read; this is the last gate before the disk.
pub(super) fn target(into: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(
        inside,
        "the job has an output named `{}`, which lies outside of its directory; it was not saved",
        path.escape_debug()
    );
    Ok(into.join(path))
}

async fn save(client: &Client, file: &ArtifactView, (target, replaces): (&Path, bool), bar: &Bar) -> anyhow::Result<()> {
    // As the script itself would have done, a link is written through, if it stays inside. One that the job had was replaced by it.
    let target = if target.is_symlink() && !replaces {
        fs::canonicalize(target).context("a link that leads nowhere is in the way")?
    } else {
        target.to_owned()
    };
    ensure!(!target.is_dir(), "a directory of that name is in the way");
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let plain = fs::metadata(&target).map_or(0o666, |meta| meta.permissions().mode() & 0o777) | if file.executable { 0o111 } else { 0 };
    let mode = file.mode.map_or(plain, |mode| mode & 0o777);
    let was_there = target.exists();
    let mut part = Part::open(dir, file)?;
    bar.add(part.size);
    let mut patience = Patience::from(part.size);
    while let Err(error) = part.fill(client, file, bar).await {
        if !breaks_off(&error) {
            return Err(error);
        }
        patience.reached(part.size);
        patience.pause(client, &error).await;
        if !patience.holds() {
            return Err(error);
        }
    }
    client.is_well();
    if was_there || file.mode.is_some() {
        // The umask takes no bits from a mode that somebody had chosen.
        part.file.set_permissions(Permissions::from_mode(mode))?;
    } else if file.executable {
        let made = part.file.metadata()?.permissions().mode();
        // Whoever may read it may execute it, as the umask has it.
        part.file.set_permissions(Permissions::from_mode(made | (made & 0o444) >> 2))?;
    }
    fs::rename(&part.path, &target)?;
    part.placed = true;
    Ok(())
}

/// A file on its way. What has come of a large one stays when that breaks off, and the next try goes on from there.
struct Part {
    path: PathBuf,
    file: fs::File,
    hasher: Sha256,
    size: u64,
    /// Whether it has its own name now.
    placed: bool,
    /// Whether it is known to be wrong.
    wrong: bool,
}

impl Part {
    fn open(dir: &Path, file: &ArtifactView) -> anyhow::Result<Self> {
        // By its whole name, so that two files of one content do not meet.
        let name = Digest::of(format!("{}\0{}", file.path, file.sha256).as_bytes()).to_string();
        let path = dir.join(format!(".rgrid-{}.part", &name[..32]));
        let mut part = Self {
            file: fs::File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(if file.mode.is_some() { 0o600 } else { 0o666 })
                .custom_flags(NO_FOLLOW)
                .open(&path)?,
            path,
            hasher: Sha256::new(),
            size: 0,
            placed: false,
            wrong: false,
        };
        let mut buffer = vec![0; 256 << 10];
        loop {
            match part.file.read(&mut buffer)? {
                0 => break,
                read => {
                    part.hasher.update(&buffer[..read]);
                    part.size += read as u64;
                }
            }
        }
        if part.size > file.size {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        (self.hasher, self.size) = (Sha256::new(), 0);
        Ok(())
    }

    /// Fetches what is missing, and checks the whole.
    async fn fill(&mut self, client: &Client, file: &ArtifactView, bar: &Bar) -> anyhow::Result<()> {
        if self.size < file.size || self.size == 0 {
            let response = fetch(client, file, self.size).await?;
            if self.size > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                bar.take_back(self.size);
                self.restart()?;
            }
            let is_compressed = response.headers().contains_key(header::CONTENT_ENCODING);
            let chunks = response.bytes_stream().map_err(io::Error::other);
            let mut chunks = if is_compressed {
                compression::decode(chunks).boxed()
            } else {
                chunks.boxed()
            };
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(Broke)?;
                bar.add(chunk.len() as u64);
                // Hashing and writing a chunk of some 10 KB takes microseconds: not worth another thread's while.
                self.hasher.update(&chunk);
                self.file.write_all(&chunk)?;
                self.size += chunk.len() as u64;
            }
        }
        self.file.flush()?;
        if Digest::finish(std::mem::take(&mut self.hasher)) != file.sha256 {
            self.wrong = true;
            bail!("what arrived is not what was stored (its SHA-256 differs)");
        }
        Ok(())
    }
}

/// A content stopped before its end.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke")]
struct Broke(#[source] io::Error);

/// Whether a download that ended so may be gone on with.
fn breaks_off(error: &anyhow::Error) -> bool {
    error.is::<Broke>() || error.downcast_ref::<Error>().is_some_and(Error::breaks_off)
}

/// A content from this byte on: from the store itself where that is worth a question, and can be.
async fn fetch(client: &Client, file: &ArtifactView, from: u64) -> anyhow::Result<Response> {
    let ranged = |request: RequestBuilder| match from {
        0 => request,
        from => request.header(header::RANGE, format!("bytes={from}-")),
    };
    let path = format!("/v1/files/{}", file.sha256);
    if file.size >= WORTH_KEEPING && client.is_direct() {
        let answer = client
            .send(ranged(client.request(Method::GET, &path).query(&[("direct", "true")])))
            .await?;
        let Some(url) = leads_to(&answer) else { return Ok(answer) };
        if let Some(request) = client.store_request(Method::GET, &url) {
            match ranged(request).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => client.give_up_direct(&url, &format!("it answered {}", answer.status())),
                Err(error) => client.give_up_direct(&url, &innermost(&error)),
            }
        }
    }
    let mut request = ranged(client.request(Method::GET, &path));
    if client.compresses && from == 0 {
        request = request.header(header::ACCEPT_ENCODING, compression::ZSTD);
    }
    Ok(client.send(request).await?)
}

/// Where an answer leads, if it leads anywhere.
fn leads_to(answer: &Response) -> Option<Url> {
    let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    location.parse().ok()
}

impl Drop for Part {
    fn drop(&mut self) {
        // However it broke off, a large one is gone on with.
        if !self.placed && (self.wrong || self.size < WORTH_KEEPING) {
            // It may be gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a path that would be reached through a link that leads out of the directory.
pub(super) fn ensure_inside(into: &Path, path: &Path) -> anyhow::Result<()> {
    ensure!(
        is_inside(into, path),
        "{} lies behind a link that leads out of the directory, and was not saved; `rgrid download -o DIR` saves it elsewhere",
        path.display()
    );
    Ok(())
}

/// Whether a path below a directory is really there, once every link on the way to it (and it itself, if it is one) is followed.
pub(super) fn is_inside(into: &Path, path: &Path) -> bool {
    let into = if into.as_os_str().is_empty() { Path::new(".") } else { into };
    // What is not there yet has no links in it.
    let Ok(root) = fs::canonicalize(into) else { return true };
    let path = into.join(path.strip_prefix(into).unwrap_or(path));
    let below = path.ancestors().take_while(|at| *at != into && !at.as_os_str().is_empty());
    below.into_iter().all(|at| match fs::symlink_metadata(at) {
        Err(_) => true,
        Ok(_) => fs::canonicalize(at).is_ok_and(|real| real.starts_with(&root)),
    })
}

/// How a file stands that an output would be saved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    /// There is none.
    Nothing,
    /// It is the same.
    Same,
    /// It is another.
    Other,
    /// Below a link that leads out of the directory.
    Outside,
}

/// Looks at what stands where an output would be saved.
///
/// # Errors
/// If its path leads out, or it cannot be read.
pub(crate) fn there(file: &ArtifactView, into: &Path) -> anyhow::Result<There> {
    let target = target(into, file.path.as_str())?;
    if !is_inside(into, &target) {
        return Ok(There::Outside);
    }
    match fs::metadata(&target) {
        Err(_) => Ok(There::Nothing),
        Ok(meta) if meta.len() != file.size => Ok(There::Other),
        Ok(_) => {
            let mut reader = fs::File::open(&target).with_context(|| format!("cannot read {}", target.display()))?;
            let mut hasher = Sha256::new();
            std::io::copy(&mut reader, &mut hasher)?;
            Ok(if Digest::finish(hasher) == file.sha256 {
                There::Same
            } else {
                There::Other
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_saved_outside() {
        let into = Path::new("/home/me");
        for path in ["../x", "/etc/passwd", "a/../../x", "", "./x", ".."] {
            assert!(target(into, path).is_err(), "{path}");
        }
        assert_eq!(target(into, "out/ä b\n.csv").ok(), Some(PathBuf::from("/home/me/out/ä b\n.csv")));
    }
}

//! Downloads output files: verified by digest, and written atomically.

use std::{
    fs::{self, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{bail, ensure};
use bus::ids::Digest;
use futures::{StreamExt as _, TryStreamExt as _};
use model::ArtifactView;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use sha2::{Digest as _, Sha256};
use store::compression;

use super::{Client, Error, bounded::unless_silent, direct::innermost, patience::Patience, progress::Progress};

/// From so many bytes on, what came of a file is kept for the next try.
const WORTH_KEEPING: u64 = 1 << 20;
/// What stands at the name of a temporary file is not to be written through.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// The permission bits of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewMode {
    /// These.
    Exactly(u32),
    /// As a program makes a file here: the umask has its say.
    AsMade {
        /// Whether everybody who may read the file may also execute it.
        executable: bool,
    },
}

/// Where an output belongs. Its path was checked when it was read; this is the last gate before the disk.
pub fn target(into: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(
        inside,
        "the job has an output named `{}`, which is outside of its directory",
        path.escape_debug()
    );
    Ok(into.join(path))
}

/// A file that arrived, whole and verified, and has not taken its place.
pub struct Fetched(Part);

/// Fetches a file into a directory, under a name of its own, over broken connections.
///
/// # Errors
/// If it cannot be fetched or written.
pub async fn fetched(client: &Client, file: &ArtifactView, dir: &Path, bar: &Progress) -> anyhow::Result<Fetched> {
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
    Ok(Fetched(part))
}

impl Fetched {
    /// Gives it these permission bits.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn set_mode(&self, mode: NewMode) -> io::Result<()> {
        match mode {
            // The umask takes no bits from a mode that somebody had chosen.
            NewMode::Exactly(mode) => self.0.file.set_permissions(Permissions::from_mode(mode)),
            NewMode::AsMade { executable: false } => Ok(()),
            NewMode::AsMade { executable: true } => {
                let made = self.0.file.metadata()?.permissions().mode();
                // Everybody whom the umask lets read the file may execute it.
                self.0.file.set_permissions(Permissions::from_mode(made | (made & 0o444) >> 2))
            }
        }
    }

    /// Puts it at a path, in one step; what was there is replaced.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn place(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.0.path, target)?;
        self.0.placed = true;
        Ok(())
    }
}

/// Whether an error means that the grid does not answer, whatever is asked of it.
pub fn is_away(error: &anyhow::Error) -> bool {
    breaks_off(error) || error.downcast_ref::<Error>().is_some_and(Error::may_pass)
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
    async fn fill(&mut self, client: &Client, file: &ArtifactView, bar: &Progress) -> anyhow::Result<()> {
        if self.size < file.size || self.size == 0 {
            let response = fetch(client, file, self.size).await?;
            if self.size > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                bar.take_back(self.size);
                self.restart()?;
            }
            let is_compressed = response.headers().contains_key(header::CONTENT_ENCODING);
            let chunks = unless_silent(response).map_err(io::Error::other);
            let mut chunks = if is_compressed {
                compression::decode(chunks).boxed()
            } else {
                chunks.boxed()
            };
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(Broke)?;
                if self.size + chunk.len() as u64 > file.size {
                    self.wrong = true;
                    bail!(
                        "the grid sends more than the {} bytes that it announced; contact its operator",
                        file.size
                    );
                }
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
            bail!("the received content is not the stored content (its SHA-256 differs)");
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
pub fn ensure_inside(into: &Path, path: &Path) -> anyhow::Result<()> {
    ensure!(
        is_inside(into, path),
        "{} lies behind a link that leads out of the directory",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_inside_where_no_link_leads_out() -> std::io::Result<()> {
        let temp = tempfile::tempdir()?;
        let into = temp.path().join("to");
        fs::create_dir_all(&into)?;
        fs::create_dir_all(temp.path().join("outside"))?;
        std::os::unix::fs::symlink("../outside", into.join("out"))?;
        std::os::unix::fs::symlink("/nowhere", into.join("dangling"))?;
        for (path, expected) in [("out/file", false), ("out", false), ("dangling", false), ("new/file", true)] {
            assert_eq!(is_inside(&into, &into.join(path)), expected, "{path}");
        }
        Ok(())
    }

    #[test]
    fn nothing_is_saved_outside() {
        let into = Path::new("/home/me");
        for path in ["../x", "/etc/passwd", "a/../../x", "", "./x", ".."] {
            assert!(target(into, path).is_err(), "{path}");
        }
        assert_eq!(target(into, "out/ä b\n.csv").ok(), Some(PathBuf::from("/home/me/out/ä b\n.csv")));
    }
}

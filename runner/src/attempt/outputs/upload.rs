//! Uploading the outputs that were found.

use std::{io, os::fd::OwnedFd, sync::Arc};

use bus::output::manifest::OutputFile;
use futures::{StreamExt as _, stream};
use rustix::io::Errno;
use store::{Files, Holes};

use super::{Candidate, Error, FoundOutputs, MOUNTED, StoredOutputs};
use crate::{beneath, patience::patiently};

/// Files that are stored at once.
const AT_ONCE: usize = 16;
/// The most bytes of holes that the outputs of an attempt may have together: they are hashed and stored as zeros, about a minute of work.
const HOLES: u64 = 64 << 30;

/// The result of storing a candidate.
enum Stored {
    Output(OutputFile),
    /// It is unchanged: the input that was staged.
    Same,
    /// It cannot be read.
    Unreadable(String),
}

impl Candidate {
    async fn store(self, files: &Files, top: Option<Arc<OwnedFd>>, holes: &Holes) -> Result<Stored, Error> {
        let Self {
            path,
            source,
            mode,
            staged,
        } = self;
        let put = || async {
            let (top, relative) = (top.clone(), source.clone());
            // Opened only now, so that no more files are open than are being stored.
            let opened = tokio::task::spawn_blocking(move || {
                let top = top.ok_or(Errno::NOENT)?;
                beneath::file(&*top, &relative).map_err(io::Error::from)
            });
            let opened = opened.await.unwrap_or_else(|error| Err(error.into()));
            let file = opened.map_err(|error| store::Error::Io {
                doing: "read",
                path: source.clone(),
                source: error,
            })?;
            files.put_opened(file, &source, holes).await
        };
        match patiently("store an output", put).await {
            Ok((sha256, _)) if staged.is_some_and(|staged| staged.sha256 == sha256 && staged.has_mode(mode)) => Ok(Stored::Same),
            Ok((sha256, size)) => Ok(Stored::Output(OutputFile {
                path,
                sha256,
                size,
                executable: mode & 0o111 != 0,
                mode: (!matches!(mode, 0o644 | 0o755)).then_some(mode),
            })),
            // Other outputs are stored all the same.
            Err(error) => match not_kept(&error) {
                Some(why) => Ok(Stored::Unreadable(format!("{path}: {why}"))),
                None => Err(Error::Store { path, source: error }),
            },
        }
    }
}

/// Why this output alone cannot be stored; nothing where the error concerns all outputs.
fn not_kept(error: &store::Error) -> Option<String> {
    Some(match error {
        store::Error::Io { source, .. } if Errno::from_io_error(source) == Some(Errno::XDEV) => MOUNTED.to_owned(),
        store::Error::Io { source, .. } => format!("it cannot be read: {source}"),
        store::Error::Changed { .. } => "something still wrote to it".to_owned(),
        store::Error::Holes { size, max, .. } => format!(
            "it is {} GiB, nearly all of it holes, which are stored as zeros; a job's outputs may have {} GiB of them. Pack it (`tar -cSf`), or shorten it",
            size >> 30,
            max >> 30
        ),
        _ => return None,
    })
}

impl FoundOutputs {
    /// Stores every output that can be read, and lists them by path. A file that was only touched is not an output.
    ///
    /// # Errors
    /// If the store does not take one.
    pub(crate) async fn store(self, files: &Files) -> Result<StoredOutputs, Error> {
        let mut kept = StoredOutputs {
            links: self.links,
            deleted: self.deleted,
            unmatched: self.unmatched,
            ..StoredOutputs::default()
        };
        let mut left_out = self.left_out;
        let (top, holes) = (self.top, Holes::at_most(HOLES));
        let storing = self
            .candidates
            .into_iter()
            .map(|candidate| candidate.store(files, top.clone(), &holes));
        let storing: Vec<_> = storing.collect();
        let mut storing = stream::iter(storing).buffered(AT_ONCE);
        while let Some(stored) = storing.next().await {
            match stored? {
                Stored::Output(output) => kept.outputs.push(output),
                Stored::Same => {}
                Stored::Unreadable(sentence) => left_out.push(sentence),
            }
        }
        kept.left_out = left_out.into_sentences();
        Ok(kept)
    }
}

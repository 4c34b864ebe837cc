//! A content that arrives in chunks.

use bus::ids::Digest;
use bytes::Bytes;

use super::{
    Error, Files,
    hold::Absent,
    upload::{ContentUpload, SINGLE_MAX, put_single},
    verify::Meter,
};

/// A content that is being stored. It becomes visible once it is complete and verified: a small one is held in memory until its end, a larger
/// one is sent to the store in parts, which are removed if this is dropped. After a `write` or `finish` that was dropped half-way, it
/// cannot be used any more.
pub struct Incoming {
    files: Files,
    digest: Digest,
    size: Option<u64>,
    absent: Absent,
    meter: Meter,
    held: Vec<Bytes>,
    upload: Option<ContentUpload>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { digest, size, .. } = self;
        f.debug_struct("Incoming")
            .field("digest", digest)
            .field("size", size)
            .field("taken", &self.taken())
            .finish_non_exhaustive()
    }
}

impl Files {
    /// Begins to store `digest`, of `size` bytes if that is known; `None` if the store has it.
    ///
    /// # Errors
    /// The store or its marks do not answer.
    pub async fn begin(&self, digest: Digest, size: Option<u64>) -> Result<Option<Incoming>, Error> {
        let absent = self.absent(digest).await?;
        Ok(absent.map(|absent| Incoming {
            files: self.clone(),
            digest,
            size,
            absent,
            meter: Meter::default(),
            held: Vec::new(),
            upload: None,
        }))
    }
}

impl Incoming {
    /// How many bytes have arrived.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.meter.size()
    }

    /// How many bytes were announced.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// [`Error::Mismatch`] at the first byte too many; the store fails. Nothing is stored then.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), Error> {
        self.meter.update(&piece);
        if let Some(size) = self.size.filter(|size| self.meter.size() > *size) {
            // Do not wait for the rest, which may be endless.
            self.cancel_upload().await;
            return Err(Error::Mismatch {
                digest: self.digest,
                why: format!("it is more than {size} bytes"),
            });
        }
        if let Some(upload) = &mut self.upload {
            return upload.write(piece).await;
        }
        self.held.push(piece);
        if self.meter.size() > SINGLE_MAX as u64 {
            let upload = self.upload.insert(ContentUpload::begin(&self.files, self.digest, self.size).await?);
            for piece in self.held.drain(..) {
                upload.write(piece).await?;
            }
        }
        Ok(())
    }

    /// Completes it: the content is visible now.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it is not the announced content; the store fails. Nothing is stored then.
    pub async fn finish(mut self) -> Result<(), Error> {
        let (actual, size) = std::mem::take(&mut self.meter).finish();
        let why = match self.size {
            Some(expected) if expected != size => Some(format!("it is {size} bytes instead of {expected}")),
            _ if actual != self.digest => Some(format!("its {size} bytes have the SHA-256 {actual}")),
            _ => None,
        };
        if let Some(why) = why {
            self.cancel_upload().await;
            return Err(Error::Mismatch { digest: self.digest, why });
        }
        match self.upload {
            Some(upload) => upload.finish().await?,
            None => put_single(&self.files, self.digest, self.held.into_iter().collect()).await?,
        }
        self.files.stored(self.digest, &self.absent).await
    }

    /// Removes what was sent.
    pub async fn abort(mut self) {
        self.cancel_upload().await;
    }

    async fn cancel_upload(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.abort().await;
        }
    }
}

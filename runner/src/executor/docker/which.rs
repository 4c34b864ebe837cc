//! Which image a job runs in: one that is there, else one that the grid keeps, else one of a registry.

use std::collections::BTreeMap;

use bus::{grid::image::Entry, spec::runtime::RuntimeRef};
use tokio::time::timeout;
use tracing::warn;

use super::{Docker, LOOK_TIMEOUT, catalogue::Catalogue, image::Image};
use crate::executor::{Error, Launch, runtimes::OWN};

impl Docker {
    /// What its containers run on: `linux/amd64`.
    #[must_use]
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// Where the images are found that the grid keeps, from now on.
    pub(crate) fn use_catalogue(&self, catalogue: Catalogue) {
        *self.catalogue.lock() = Some(catalogue);
    }

    /// The images that are there, by name, each with its id.
    ///
    /// # Errors
    /// [`Error::Broken`] if the daemon does not answer.
    pub async fn local_images(&self) -> Result<BTreeMap<String, String>, Error> {
        let listed = timeout(LOOK_TIMEOUT, self.images.list()).await;
        listed.unwrap_or_else(|_| Err(Error::Broken("Docker does not list its images".to_owned())))
    }

    /// Waits until an image was pulled or loaded.
    pub async fn images_changed(&self) {
        self.images.changed().await;
    }

    /// Whether an image for this runtime is there already, or in the grid's own store: a job of it needs no registry.
    pub async fn has_image_for(&self, runtime: Option<&RuntimeRef>) -> bool {
        let Ok(names) = self.config.runtimes.table().images(runtime) else {
            return false;
        };
        for name in &names {
            match timeout(LOOK_TIMEOUT, self.images.find(name)).await {
                // It may be known from before: what counts is whether it can be used now.
                Ok(Ok(Some(_))) => return self.answers().await,
                Ok(Ok(None) | Err(Error::Unrunnable(_) | Error::NotFound(_))) => {}
                // It has none that can be used now.
                Ok(Err(Error::Broken(_))) | Err(_) => return false,
            }
        }
        for name in &names {
            if let Ok(Some((_, entry))) = timeout(LOOK_TIMEOUT, self.kept(name)).await.unwrap_or(Ok(None))
                && entry.pushed.platform == self.platform
            {
                return true;
            }
        }
        false
    }

    /// The image of that name that the grid keeps.
    async fn kept(&self, name: &str) -> Result<Option<(Catalogue, Entry)>, Error> {
        let catalogue = self.catalogue.lock().clone();
        match catalogue {
            None => Ok(None),
            Some(catalogue) => Ok(catalogue.find(name).await?.map(|entry| (catalogue, entry))),
        }
    }

    /// The image a job runs in: its own, or the first of its runtime's that is there; else the first that the grid keeps, and
    /// if it keeps none, the last is pulled.
    pub(super) async fn image(&self, launch: &Launch) -> Result<Image, Error> {
        let names = match &launch.image {
            Some(own) => vec![own.clone()],
            None => self.config.runtimes.table().images(launch.runtime.as_ref())?,
        };
        for name in &names {
            if let Some(image) = self.images.find(name).await? {
                return Ok(image);
            }
        }
        for name in &names {
            match self.kept(name).await {
                Ok(Some((catalogue, entry))) => return self.load(&catalogue, name, &entry, launch).await,
                Ok(None) => {}
                // A registry may have it.
                Err(error) => warn!("{error}"),
            }
        }
        match names.last() {
            Some(name) if launch.image.is_none() && name.starts_with(OWN) => Err(nowhere(name)),
            Some(name) => self.images.pull(name, launch.notice.as_ref()).await,
            None => Err(Error::Unrunnable("there is no image to run this job in".to_owned())),
        }
    }

    async fn load(&self, catalogue: &Catalogue, name: &str, entry: &Entry, launch: &Launch) -> Result<Image, Error> {
        if entry.pushed.platform != self.platform {
            return Err(Error::Unrunnable(format!(
                "image `{}`, which the grid keeps, is for {}, and this worker runs {}: push one for it under a name of its own, or send the job \
                 to a worker of the other kind (`--queue`)",
                entry.name, entry.pushed.platform, self.platform
            )));
        }
        let load = async || match self.images.find_as(name, &entry.pushed.id).await? {
            Some(image) => Ok(image),
            None => catalogue.load(&self.images, name, entry, launch.notice.as_ref()).await,
        };
        self.images.once(name, load).await
    }
}

/// No registry has an image of ours.
fn nowhere(name: &str) -> Error {
    let runtime = name.trim_start_matches(OWN);
    Error::Unrunnable(format!(
        "neither this worker nor the grid has image `{name}`: make it (`rgrid image build {runtime}`) and push it (`rgrid image push {name}`), or name \
         another (`--image`)"
    ))
}

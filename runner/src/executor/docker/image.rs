//! Images: which are there, and getting those that are not.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::{
    errors::Error::DockerResponseServerError,
    models::CreateImageInfo,
    query_parameters::{CreateImageOptions, ListImagesOptions},
};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tracing::info;

use crate::executor::Error;

/// How long an image that was there is taken to be there still. If it is not, the next try finds out.
const REMEMBERED: Duration = Duration::from_secs(30);

/// How often the progress of a pull is told.
const PROGRESS: Duration = Duration::from_secs(2);

/// Where the daemon has a command look for programs if its image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// What it was asked for as.
    pub(super) name: String,
    /// Its content: `sha256:…`.
    pub(super) id: String,
    /// Where a command in it looks for programs.
    pub(super) path: String,
    /// The names of the variables that it sets.
    pub(super) variables: Arc<BTreeSet<String>>,
    /// Its digest in the registry it came from: `name@sha256:…`.
    digest: Option<String>,
}

impl Image {
    /// The image and its digest, by which what ran can be had again.
    pub(super) fn environment(&self) -> String {
        let name = self.name.split_once('@').map_or(self.name.as_str(), |(name, _)| name);
        self.digest.clone().unwrap_or_else(|| format!("{name}@{}", self.id))
    }
}

#[cfg(test)]
impl Image {
    /// An image that sets these variables.
    pub(super) fn with_variables(names: &[&str]) -> Self {
        Self {
            name: "x".to_owned(),
            id: "sha256:x".to_owned(),
            path: PATH.to_owned(),
            variables: Arc::new(names.iter().map(ToString::to_string).collect()),
            digest: None,
        }
    }
}

/// The daemon's images.
pub(super) struct Images {
    client: bollard::Docker,
    stall: Duration,
    seen: Mutex<HashMap<String, (Image, Instant)>>,
    pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    changed: Notify,
}

impl Images {
    pub(super) fn new(client: bollard::Docker, stall: Duration) -> Self {
        Self {
            client,
            stall,
            seen: Mutex::default(),
            pulls: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The image of that name, if it is there.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if that is no name of an image, [`Error::Broken`] if the daemon does not answer.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Image>, Error> {
        if let Some((image, at)) = self.seen.lock().get(name)
            && at.elapsed() < REMEMBERED
        {
            return Ok(Some(image.clone()));
        }
        check_name(name)?;
        let mut inspected = self.client.inspect_image(name).await;
        // One that was built here has no registry's digest: what ran is named by its own id then.
        if let (Err(DockerResponseServerError { status_code: 404, .. }), Some((_, id))) = (&inspected, name.split_once('@')) {
            inspected = self.client.inspect_image(id).await;
        }
        let inspected = match inspected {
            Ok(inspected) => inspected,
            Err(DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
            Err(DockerResponseServerError {
                status_code: 400, message, ..
            }) => return Err(Error::Unrunnable(format!("`{name}` is not an image: {message}"))),
            Err(error) => return Err(Error::Broken(format!("Docker could not look for image `{name}`: {error}"))),
        };
        let environment = inspected.config.and_then(|config| config.env).unwrap_or_default();
        let names = environment.iter().filter_map(|variable| variable.split_once('='));
        let image = Image {
            name: name.to_owned(),
            id: inspected.id.unwrap_or_default(),
            path: search_path(&environment).unwrap_or_else(|| PATH.to_owned()),
            variables: Arc::new(names.map(|(name, _)| name.to_owned()).collect()),
            digest: inspected.repo_digests.unwrap_or_default().into_iter().next(),
        };
        self.seen.lock().insert(name.to_owned(), (image.clone(), Instant::now()));
        Ok(Some(image))
    }

    /// The image of that id, if it is there, from now on under a name that Docker need not know.
    ///
    /// # Errors
    /// As [`Self::find`] has it.
    pub(super) async fn find_as(&self, name: &str, id: &str) -> Result<Option<Image>, Error> {
        let Some(image) = self.find(id).await? else { return Ok(None) };
        let image = Image {
            name: name.to_owned(),
            ..image
        };
        self.seen.lock().insert(name.to_owned(), (image.clone(), Instant::now()));
        Ok(Some(image))
    }

    /// All images that have names, each with its id.
    ///
    /// # Errors
    /// [`Error::Broken`] if the daemon does not answer.
    pub(super) async fn list(&self) -> Result<BTreeMap<String, String>, Error> {
        let listed = self.client.list_images(None::<ListImagesOptions>).await;
        let listed = listed.map_err(|error| Error::Broken(format!("Docker could not list its images: {error}")))?;
        let named = listed.into_iter().flat_map(|image| {
            let id = image.id;
            image.repo_tags.into_iter().map(move |name| (name, id.clone()))
        });
        Ok(named.filter(|(name, _)| !name.contains('<')).collect())
    }

    /// Waits until an image was pulled or loaded.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// An image was pulled or loaded.
    pub(super) fn changed_now(&self) {
        self.changed.notify_one();
    }

    /// The daemon.
    pub(super) const fn client(&self) -> &bollard::Docker {
        &self.client
    }

    /// An image of that name may be gone.
    pub(super) fn forget(&self, name: &str) {
        self.seen.lock().remove(name);
    }

    /// Gets an image from its registry. Jobs that want the same one wait for one pull.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if it cannot be had, with the daemon's words.
    pub(super) async fn pull(&self, name: &str, notice: Option<&mpsc::Sender<String>>) -> Result<Image, Error> {
        self.once(name, async || self.pull_now(name, notice).await).await
    }

    /// Gets an image by `get`, unless it is there by now: of those that want the same one, one gets it, and the others wait.
    ///
    /// # Errors
    /// As `get` has it.
    pub(super) async fn once(&self, name: &str, get: impl AsyncFnOnce() -> Result<Image, Error>) -> Result<Image, Error> {
        let turn = Arc::clone(self.pulls.lock().entry(name.to_owned()).or_default());
        let pulling = turn.lock().await;
        let result = match self.find(name).await {
            Ok(None) => get().await,
            Ok(Some(image)) => Ok(image),
            Err(error) => Err(error),
        };
        drop(pulling);
        self.pulls.lock().remove(name);
        result
    }

    async fn pull_now(&self, name: &str, notice: Option<&mpsc::Sender<String>>) -> Result<Image, Error> {
        let tell = |sentence: String| {
            info!("{sentence}");
            notice.map(|notice| notice.try_send(sentence));
        };
        let cannot = |why: &str| {
            Error::Unrunnable(format!(
                "image `{name}` is not on this worker and could not be pulled: {why}. Check the name and that the worker reaches its registry \
                 (`docker pull {name}` there), or load the image on the worker"
            ))
        };
        tell(format!("pulling image {name}"));
        let started = Instant::now();
        let options = CreateImageOptions {
            from_image: Some(with_tag(name)),
            ..CreateImageOptions::default()
        };
        let mut steps = std::pin::pin!(self.client.create_image(Some(options), None, None));
        let mut progress = Progress::default();
        let mut told = Instant::now();
        loop {
            match timeout(self.stall, steps.try_next()).await {
                Ok(Ok(Some(step))) => progress.take(step),
                Ok(Ok(None)) => break,
                Ok(Err(DockerResponseServerError { message, .. })) => return Err(cannot(&message)),
                Ok(Err(error)) => return Err(cannot(&error.to_string())),
                Err(_) => return Err(cannot(&format!("nothing arrived for {} s", self.stall.as_secs()))),
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                tell(format!("pulling image {name}: {progress}"));
            }
        }
        self.changed_now();
        tell(format!("pulled image {name} in {:.1} s", started.elapsed().as_secs_f64()));
        self.find(name)
            .await?
            .ok_or_else(|| cannot("the daemon says it was pulled, but does not have it"))
    }
}

/// What a pull has got of its layers.
#[derive(Default)]
struct Progress {
    layers: HashMap<String, (i64, i64)>,
}

impl Progress {
    fn take(&mut self, step: CreateImageInfo) {
        let Some(layer) = step.id else { return };
        if let Some(detail) = step.progress_detail
            && let Some(total) = detail.total
            && step.status.as_deref() == Some("Downloading")
        {
            self.layers.insert(layer, (detail.current.unwrap_or(0), total));
        } else if matches!(step.status.as_deref(), Some("Download complete" | "Pull complete"))
            && let Some((current, total)) = self.layers.get_mut(&layer)
        {
            *current = *total;
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MIB: i64 = 1 << 20;
        let (current, total) = self.layers.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
        write!(f, "{} of {} MiB so far", current / MIB, total / MIB)
    }
}

/// What an image's own environment says of where programs are.
fn search_path(environment: &[String]) -> Option<String> {
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="))?;
    Some(path.to_owned())
}

/// What images run on, as their own configuration spells it: the kernel's name for a machine is another.
pub(super) fn platform(os: &str, arch: &str) -> String {
    let arch = match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", os.to_ascii_lowercase())
}

/// The name travels in a URL's path: what cannot be an image's name is not sent.
fn check_name(name: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    if !name.is_empty() && name.bytes().all(fits) && !name.contains("..") && !name.starts_with(['/', '-', '.']) {
        Ok(())
    } else {
        Err(Error::Unrunnable(format!(
            "`{name}` is not the name of an image: write it as `docker pull` takes it, as in `python:3.12`"
        )))
    }
}

/// Without a tag the daemon would pull every tag there is.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_s_port_is_not_a_tag() {
        assert_eq!(with_tag("host:5000/python"), "host:5000/python:latest");
        assert_eq!(with_tag("host:5000/python:3"), "host:5000/python:3");
        assert_eq!(with_tag("python@sha256:00"), "python@sha256:00");
    }

    #[test]
    fn an_invalid_image_name_is_refused() {
        for name in ["", "../x", "a b", "-x", "python:3\n", "a?b=c", "/x"] {
            assert!(matches!(check_name(name), Err(Error::Unrunnable(_))), "{name:?}");
        }
        assert!(check_name("host:5000/py-thon_x.y:3@sha256:00").is_ok());
    }
}

//! Which executor a job gets.

use std::collections::BTreeMap;

use bus::{
    spec::{ExecutorKind, JobSpec, runtime::RuntimeRef},
    worker::METADATA_OPEN,
};

use super::{Docker, Error, Executor, Noop, Process, Runtimes};

/// What the worker's operator prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preference {
    /// Docker where it is there and has the image, else plain processes.
    #[default]
    Auto,
    /// Docker only.
    Docker,
    /// Plain processes only.
    Process,
}

/// What a job says about how it is to be executed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Want<'a> {
    /// The executor it names.
    pub executor: Option<ExecutorKind>,
    /// Its runtime.
    pub runtime: Option<&'a RuntimeRef>,
    /// The image it names.
    pub image: Option<&'a str>,
}

impl<'a> From<&'a JobSpec> for Want<'a> {
    fn from(spec: &'a JobSpec) -> Self {
        Self {
            executor: spec.executor,
            runtime: spec.runtime.as_ref(),
            image: spec.image.as_deref(),
        }
    }
}

/// The executor for a job, and why it is that one.
pub struct Chosen<'a> {
    /// The executor.
    pub executor: &'a dyn Executor,
    /// The reason, as half a sentence.
    pub why: &'static str,
    /// The executor to use where this one turns out to be broken: only where neither job nor worker insists on it.
    pub instead: Option<&'a dyn Executor>,
}

/// The executors of a worker.
pub struct Executors {
    /// What is preferred where a job leaves it open.
    pub preference: Preference,
    /// Docker, or why it is not there.
    pub docker: Result<Docker, String>,
    /// Plain processes, or why there are none.
    pub process: Result<Process, String>,
    /// For measuring.
    pub noop: Noop,
    /// What runtimes mean, which the executors share.
    pub runtimes: Runtimes,
}

impl Executors {
    /// The kinds of executor that this worker has, for its registration.
    #[must_use]
    pub fn kinds(&self) -> Vec<ExecutorKind> {
        let docker = self.docker.is_ok().then_some(ExecutorKind::Docker);
        let process = self.process.is_ok().then_some(ExecutorKind::Process);
        docker.into_iter().chain(process).chain([ExecutorKind::Noop]).collect()
    }

    /// Waits until there is an image more, or less, by our doing.
    pub async fn images_changed(&self) {
        match &self.docker {
            Ok(docker) => docker.images_changed().await,
            Err(_) => std::future::pending().await,
        }
    }

    /// Versions of what the executors stand on, for the worker's registration.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<String, String> {
        let docker = self
            .docker
            .as_ref()
            .ok()
            .map(|docker| ("docker".to_owned(), docker.version().to_owned()));
        let open = self.docker.as_ref().ok().and_then(Docker::metadata_open);
        docker.into_iter().chain(open.map(|why| (METADATA_OPEN.to_owned(), why))).collect()
    }

    /// What a job that leaves it open gets, in one line for the runner's start log.
    #[must_use]
    pub fn explanation(&self) -> String {
        match (self.preference, &self.docker, &self.process) {
            (Preference::Docker, Ok(_), _) => "executor docker: every job in a container".to_owned(),
            (Preference::Docker, Err(why), _) => format!("executor docker: {why}"),
            (Preference::Auto, Ok(_), Err(why)) => format!("executor auto: every job in a container, because {why}"),
            (Preference::Auto, Ok(_), Ok(process)) => format!(
                "executor auto: Docker where the image of a job's runtime is on this machine, else plain processes ({})",
                process.limits()
            ),
            (Preference::Auto, Err(why), Ok(process)) => format!("executor auto: plain processes ({}), because {why}", process.limits()),
            (Preference::Process, _, Ok(process)) => format!("executor process: plain processes ({})", process.limits()),
            (_, _, Err(why)) => format!("executor process: {why}"),
        }
    }

    /// Chooses for a job. Its own executor wins if the worker has it; an image needs Docker; else it is as the worker prefers.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if the worker does not have what the job needs.
    pub async fn choose(&self, want: Want<'_>) -> Result<Chosen<'_>, Error> {
        match (want.executor, want.image, self.preference) {
            (Some(ExecutorKind::Noop), ..) => Ok(Chosen {
                executor: &self.noop,
                why: "the job asks for it",
                instead: None,
            }),
            (Some(ExecutorKind::Process), Some(image), _) => Err(Error::Unrunnable(format!(
                "the job asks for a plain process and for image `{image}`: leave one of them out"
            ))),
            (Some(ExecutorKind::Process), None, _) => self.process("the job asks for it"),
            (Some(ExecutorKind::Docker), ..) => self.docker("the job asks for it"),
            (None, Some(_), _) => self.docker("the job names an image"),
            (None, None, Preference::Docker) => self.docker("this worker runs containers only"),
            (None, None, Preference::Process) => self.process("this worker runs plain processes"),
            (None, None, Preference::Auto) => self.auto(want.runtime).await,
        }
    }

    async fn auto(&self, runtime: Option<&RuntimeRef>) -> Result<Chosen<'_>, Error> {
        match (&self.docker, &self.process) {
            (Ok(_), Err(_)) => self.docker("this worker may not run plain processes"),
            (Err(_), _) => self.process("there is no Docker on this machine"),
            // A program without a runtime is one of the machine's own, or brought along for it.
            (Ok(_), Ok(_)) if runtime.is_none() => self.process("the command is a program, and names no image"),
            (Ok(docker), Ok(process)) if docker.has_image_for(runtime).await => Ok(Chosen {
                instead: Some(process),
                ..self.docker("the runtime's image is on this machine")?
            }),
            (Ok(_), Ok(_)) => self.process("the runtime's image is not on this machine"),
        }
    }

    fn docker(&self, why: &'static str) -> Result<Chosen<'_>, Error> {
        match &self.docker {
            Ok(docker) => Ok(Chosen {
                executor: docker,
                why,
                instead: None,
            }),
            Err(reason) => Err(Error::Unrunnable(format!(
                "the job needs Docker, which this worker does not offer: {reason}. Send it to a worker that does, or leave out `--image` and `--executor`"
            ))),
        }
    }

    fn process(&self, why: &'static str) -> Result<Chosen<'_>, Error> {
        match &self.process {
            Ok(process) => Ok(Chosen {
                executor: process,
                why,
                instead: None,
            }),
            Err(reason) => Err(Error::Unrunnable(format!(
                "the job needs to be a plain process, which this worker does not offer: {reason}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Executors {
        Executors {
            preference: Preference::Auto,
            docker: Err("no Docker daemon answers".to_owned()),
            process: Err("not allowed".to_owned()),
            noop: Noop,
            runtimes: crate::executor::RuntimeTable::default().into(),
        }
    }

    #[tokio::test]
    async fn an_executor_that_the_worker_lacks_is_refused_with_the_reason() {
        let want = |executor, image| Want {
            executor,
            runtime: None,
            image,
        };
        let refusal = async |want| none().choose(want).await.err().unwrap().to_string();
        assert!(refusal(want(None, Some("python:3"))).await.contains("no Docker daemon answers"));
        assert!(refusal(want(Some(ExecutorKind::Process), None)).await.contains("not allowed"));
        assert!(
            refusal(want(Some(ExecutorKind::Process), Some("python:3")))
                .await
                .contains("leave one of them out")
        );
        assert!(refusal(want(None, None)).await.contains("not allowed"));
        assert_eq!(
            none()
                .choose(want(Some(ExecutorKind::Noop), None))
                .await
                .ok()
                .unwrap()
                .executor
                .kind(),
            ExecutorKind::Noop
        );
    }
}

use std::collections::BTreeMap;

use bus::ids::{Attempt, JobId, SessionId};

use super::*;
use crate::executor::{Limits, RuntimeTable};

const GIB: u64 = 1 << 30;

fn launch(limits: Limits) -> Launch {
    Launch {
        job: JobId::new(),
        attempt: Attempt::FIRST,
        session: SessionId::new(),
        command: vec!["true".to_owned()],
        runtime: None,
        image: None,
        env: BTreeMap::from([("OWN".to_owned(), "1".to_owned())]),
        secrets: secrets::Values::default(),
        work_dir: "/w".into(),
        dir: None,
        inputs: crate::inputs::Inputs::default(),
        scratch_dir: "/s".into(),
        packages: None,
        installs: false,
        stdin: None,
        user: None,
        limits,
        notice: None,
    }
}

fn setting() -> Setting {
    Setting::of(&SystemInfo {
        mem_total: Some(8 << 30),
        ..SystemInfo::default()
    })
}

#[test]
fn shared_memory_is_what_was_asked_for_or_half_of_what_there_is() {
    let config = Config::new("w".parse().unwrap(), RuntimeTable::default().into());
    let shm = |memory_bytes, shm_bytes| {
        let limits = Limits {
            memory_bytes,
            shm_bytes,
            ..Limits::default()
        };
        host_config(&launch(limits), &config, &setting(), true).unwrap().shm_size
    };
    assert_eq!(shm(None, None), Some(4 << 30));
    assert_eq!(shm(Some(2 * GIB), None), Some(1 << 30));
    assert_eq!(shm(Some(2 * GIB), Some(3 * GIB)), Some(3 << 30));
}

#[test]
fn what_an_image_sets_stays_but_for_the_places_that_must_be_writable() {
    let image = |names: &[&str]| Image::with_variables(names);
    let of = |names: &[&str]| environment(&launch(Limits::default()), &image(names), &setting(), false);
    let has = |all: &[String], variable: &str| all.iter().any(|one| one.starts_with(variable));
    let bare = of(&[]);
    for variable in [
        "LANG=C.UTF-8",
        "HOME=/tmp",
        "TMPDIR=/tmp",
        "PWD=/work",
        "USER=",
        "LOGNAME=",
        "PYTHONUNBUFFERED=1",
        "OWN=1",
    ] {
        assert!(has(&bare, variable), "{variable}: {bare:?}");
    }
    for name in ["LANG", "USER", "LOGNAME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"] {
        assert!(!has(&of(&[name]), &format!("{name}=")), "{name}");
    }
    assert!(!has(&of(&["LC_ALL"]), "LANG=") && has(&of(&["HOME", "TMPDIR"]), "HOME=/tmp"));
}

#[test]
fn a_container_has_the_runners_limits_and_a_name_that_it_can_have() {
    let names: Vec<_> = ulimits().into_iter().filter_map(|limit| limit.name).collect();
    assert_eq!(names, ["nofile", "core"]);
    assert_eq!(host("node-7.example"), Some("node-7.example".to_owned()));
    assert!(host("").is_none() && host(&"x".repeat(64)).is_none() && host("a b").is_none());
}

#[test]
fn a_job_with_secrets_leaves_no_core_dump() {
    let core = |secrets: &[(&str, &str)]| {
        let mut launch = launch(Limits::default());
        launch.secrets = secrets
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let limits = limits(&launch, &setting())
            .into_iter()
            .filter(|limit| limit.name.as_deref() == Some("core"));
        limits.map(|limit| (limit.soft, limit.hard)).collect::<Vec<_>>()
    };
    let runners = getrlimit(Resource::Core);
    assert_eq!(core(&[]).len(), 1);
    assert!(runners.maximum == Some(0) || core(&[])[0].1 != Some(0));
    assert_eq!(core(&[("KEY", "x")]), [(Some(0), Some(0))]);
}

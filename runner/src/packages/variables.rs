//! What an installer finds in its environment: what the worker's operator says about indexes, proxies and certificates, and nothing
//! else of the runner's, which holds credentials. A job's own variables are not there: other jobs use what is installed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use bus::spec::ExecutorKind;

/// Beginnings of the names that installers listen to.
const PREFIXES: [&str; 4] = ["PIP_", "UV_", "NPM_CONFIG_", "npm_config_"];
/// Whole names.
const NAMES: [&str; 14] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "XDG_CONFIG_HOME",
];
/// Where installers look for configuration, from a home directory.
const OWN: [&str; 5] = [".config/pip/pip.conf", ".pip/pip.conf", ".config/uv/uv.toml", ".netrc", ".npmrc"];
/// The largest file that is handed into a container, in bytes.
const LARGEST: u64 = 4 << 20;

/// The variables for an installer that this executor runs. For a container, the files that they name, and the installers' own
/// configuration, are copied into `scratch`, which is its home and `/tmp`.
///
/// # Errors
/// If a file cannot be copied.
pub(super) fn of(
    kind: ExecutorKind,
    scratch: &Path,
    all: impl Iterator<Item = (OsString, OsString)>,
) -> io::Result<BTreeMap<String, String>> {
    let meant = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name);
    let all = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (homes, said): (BTreeMap<_, _>, BTreeMap<_, _>) = all
        .filter(|(name, _)| name == "HOME" || meant(name))
        .partition(|(name, _)| name == "HOME");
    if kind != ExecutorKind::Docker {
        return Ok(said.into_iter().chain(homes).collect());
    }
    let mut inside = BTreeMap::new();
    for (place, (name, value)) in said.into_iter().enumerate() {
        let path = Path::new(&value);
        if !path.is_absolute() {
            inside.insert(name, value);
        } else if is_small_file(path) {
            let file = format!("rgrid-{place}-{}", path.file_name().unwrap_or_default().to_string_lossy());
            std::fs::copy(path, scratch.join(&file))?;
            inside.insert(name, format!("/tmp/{file}"));
        }
        // A directory of the worker is not in the container.
    }
    if let Some(home) = homes.get("HOME").map(PathBuf::from) {
        for file in OWN {
            let (from, to) = (home.join(file), scratch.join(file));
            if is_small_file(&from) {
                std::fs::create_dir_all(to.parent().unwrap_or(scratch))?;
                std::fs::copy(from, to)?;
            }
        }
    }
    Ok(inside)
}

fn is_small_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn the_operators_word_reaches_the_installer_and_credentials_of_the_grid_do_not() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (home, scratch) = (dir.path().join("home"), dir.path().join("scratch"));
        std::fs::create_dir_all(home.join(".config/pip"))?;
        std::fs::create_dir(&scratch)?;
        std::fs::write(home.join(".config/pip/pip.conf"), "[global]\n")?;
        std::fs::write(dir.path().join("ca.pem"), "certificate")?;
        let (ca, wheels) = (dir.path().join("ca.pem").display().to_string(), dir.path().display().to_string());
        let all = pairs(&[
            ("PIP_INDEX_URL", "http://127.0.0.1:9/simple"),
            ("PIP_CERT", &ca),
            ("PIP_FIND_LINKS", &wheels),
            ("https_proxy", "http://proxy:3128"),
            ("HOME", &home.display().to_string()),
            ("RGRID_NATS", "nats://user:secret@nats"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ]);
        let process = of(ExecutorKind::Process, &scratch, all.clone().into_iter())?;
        let names: Vec<&str> = process.keys().map(String::as_str).collect();
        assert_eq!(names, ["HOME", "PIP_CERT", "PIP_FIND_LINKS", "PIP_INDEX_URL", "https_proxy"]);
        let docker = of(ExecutorKind::Docker, &scratch, all.into_iter())?;
        let names: Vec<&str> = docker.keys().map(String::as_str).collect();
        assert_eq!(names, ["PIP_CERT", "PIP_INDEX_URL", "https_proxy"]);
        let copied = scratch.join(docker["PIP_CERT"].trim_start_matches("/tmp/"));
        assert_eq!(std::fs::read_to_string(copied)?, "certificate");
        assert!(scratch.join(".config/pip/pip.conf").is_file());
        Ok(())
    }
}

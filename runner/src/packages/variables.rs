//! What an installer finds in its environment: what the worker's operator says about indexes, proxies and certificates, and nothing
//! else of the runner's, which holds credentials. A job's own variables are not there: other jobs use what is installed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use bus::spec::{ExecutorKind, dependencies::Kind};

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
const fn configuration(installer: Kind) -> &'static [&'static str] {
    match installer {
        Kind::Pip => &[".config/pip/pip.conf", ".pip/pip.conf", ".config/uv/uv.toml", ".netrc"],
        Kind::Npm => &[".npmrc"],
    }
}
/// Variables that name certificates, which are no secret.
const CERTIFICATES: [&str; 7] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "NPM_CONFIG_CAFILE",
    "npm_config_cafile",
];
/// What stands in the names of variables that hold credentials, in capitals.
const CREDENTIALS: [&str; 7] = ["AUTH", "PASSWORD", "TOKEN", "SECRET", "USERNAME", "KEY", "_CERT"];
/// The largest file that is handed into a container, in bytes.
const LARGEST: u64 = 4 << 20;

/// What an installer finds in its environment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Its variables.
    pub(super) variables: BTreeMap<String, String>,
    /// The variables and files of the worker that it was not given, or not whole, because they hold credentials, or may.
    pub(super) withheld: Vec<String>,
}

/// The variables for an installer that this executor runs. A plain process has the rights of the worker's user, and all of its files. For a
/// container, the files that the variables name are copied into `scratch`, which is its home and `/tmp`; what runs there was written by
/// who wrote the packages, so that it sees credentials and configuration files only if the operator says so (`with_credentials`).
///
/// # Errors
/// If a file cannot be copied.
pub(super) fn of(
    kind: ExecutorKind,
    installer: Kind,
    scratch: &Path,
    all: impl Iterator<Item = (OsString, OsString)>,
    with_credentials: bool,
) -> io::Result<Given> {
    let meant = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name);
    let all = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (homes, said): (BTreeMap<_, _>, BTreeMap<_, _>) = all
        .filter(|(name, _)| name == "HOME" || meant(name))
        .partition(|(name, _)| name == "HOME");
    let mut given = Given::default();
    if kind != ExecutorKind::Docker {
        given.variables = said.into_iter().chain(homes).collect();
        return Ok(given);
    }
    for (place, (name, value)) in said.into_iter().enumerate() {
        let path = Path::new(&value);
        let is_file = path.is_absolute() && is_small_file(path);
        if !with_credentials && is_private(&name, is_file) {
            given.withheld.push(name);
        } else if let Some(rest) = without_user(&value).filter(|_| !with_credentials) {
            // Without the index that the operator chose, packages would come from another.
            given.withheld.push(format!("the user of {name}"));
            given.variables.insert(name, rest);
        } else if !path.is_absolute() {
            given.variables.insert(name, value);
        } else if is_file {
            let file = format!("rgrid-{place}-{}", path.file_name().unwrap_or_default().to_string_lossy());
            std::fs::copy(path, scratch.join(&file))?;
            given.variables.insert(name, format!("/tmp/{file}"));
        }
        // A directory of the worker is not in the container.
    }
    if let Some(home) = homes.get("HOME").map(PathBuf::from) {
        for file in configuration(installer) {
            let (from, to) = (home.join(file), scratch.join(file));
            if !is_small_file(&from) {
            } else if with_credentials {
                std::fs::create_dir_all(to.parent().unwrap_or(scratch))?;
                std::fs::copy(from, to)?;
            } else {
                given.withheld.push(format!("~/{file}"));
            }
        }
    }
    Ok(given)
}

/// Whether a variable holds credentials, or may: by its name, or in a file that holds anything but certificates.
fn is_private(name: &str, is_file: bool) -> bool {
    let upper = name.to_ascii_uppercase();
    !CERTIFICATES.contains(&name) && (is_file || CREDENTIALS.iter().any(|word| upper.contains(word)))
}

/// URLs (`https://user:password@host/`, or a proxy's `user:password@host:port`) without their users; nothing where they have none.
fn without_user(value: &str) -> Option<String> {
    let one = |word: &str| {
        let (scheme, rest) = word.split_once("://").map_or(("", word), |(scheme, rest)| (scheme, rest));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest[..end].rsplit('@').next().unwrap_or_default();
        let separator = if scheme.is_empty() { "" } else { "://" };
        format!("{scheme}{separator}{authority}{}", &rest[end..])
    };
    let without = value.split_whitespace().map(one).collect::<Vec<_>>().join(" ");
    (value.contains('@') && without != value.split_whitespace().collect::<Vec<_>>().join(" ")).then_some(without)
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
    fn the_installer_gets_the_operators_settings_and_no_credentials_of_the_grid() -> io::Result<()> {
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
        let process = of(ExecutorKind::Process, Kind::Pip, &scratch, all.clone().into_iter(), false)?;
        let names: Vec<&str> = process.variables.keys().map(String::as_str).collect();
        assert_eq!(names, ["HOME", "PIP_CERT", "PIP_FIND_LINKS", "PIP_INDEX_URL", "https_proxy"]);
        let docker = of(ExecutorKind::Docker, Kind::Pip, &scratch, all.clone().into_iter(), false)?;
        let names: Vec<&str> = docker.variables.keys().map(String::as_str).collect();
        assert_eq!(names, ["PIP_CERT", "PIP_INDEX_URL", "https_proxy"]);
        assert_eq!(docker.withheld, ["~/.config/pip/pip.conf"]);
        let copied = scratch.join(docker.variables["PIP_CERT"].trim_start_matches("/tmp/"));
        assert_eq!(std::fs::read_to_string(copied)?, "certificate");
        assert!(!scratch.join(".config/pip/pip.conf").exists());
        let docker = of(ExecutorKind::Docker, Kind::Pip, &scratch, all.into_iter(), true)?;
        assert!(docker.withheld.is_empty() && scratch.join(".config/pip/pip.conf").is_file());
        Ok(())
    }

    #[test]
    fn a_container_sees_credentials_only_if_the_operator_allows_it() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("config");
        std::fs::write(&config, "password")?;
        let config = config.display().to_string();
        let private = [
            ("NPM_CONFIG_USERCONFIG", config.as_str()),
            ("NPM_CONFIG__AUTH", "x"),
            ("PIP_CLIENT_CERT", &config),
            ("PIP_CONFIG_FILE", &config),
            ("UV_INDEX_LAB_PASSWORD", "x"),
            ("UV_PUBLISH_TOKEN", "x"),
            ("npm_config_//registry.example/:_authToken", "x"),
        ];
        let open = [
            ("PIP_INDEX_URL", "https://a.example/@scope/simple"),
            ("UV_NO_CACHE", "1"),
            ("no_proxy", "a.example"),
        ];
        let all = || pairs(&[&private[..], &open].concat()).into_iter();
        let given = of(ExecutorKind::Docker, Kind::Npm, dir.path(), all(), false)?;
        let names: Vec<&str> = given.variables.keys().map(String::as_str).collect();
        assert_eq!(names, open.map(|(name, _)| name));
        assert_eq!(given.withheld, private.map(|(name, _)| name));
        let given = of(ExecutorKind::Docker, Kind::Npm, dir.path(), all(), true)?;
        assert_eq!(given.variables.len(), private.len() + open.len());
        Ok(())
    }

    #[test]
    fn an_index_keeps_its_place_and_loses_its_user() -> io::Result<()> {
        let said = || {
            pairs(&[
                (
                    "PIP_EXTRA_INDEX_URL",
                    "https://a.example/@b/simple https://user:p@w@b.example/simple",
                ),
                ("http_proxy", "user:pw@proxy:3128"),
            ])
            .into_iter()
        };
        let dir = tempfile::tempdir()?;
        let given = of(ExecutorKind::Docker, Kind::Pip, dir.path(), said(), false)?;
        assert_eq!(
            given.variables["PIP_EXTRA_INDEX_URL"],
            "https://a.example/@b/simple https://b.example/simple"
        );
        assert_eq!(given.variables["http_proxy"], "proxy:3128");
        assert_eq!(given.withheld, ["the user of PIP_EXTRA_INDEX_URL", "the user of http_proxy"]);
        let given = of(ExecutorKind::Docker, Kind::Pip, dir.path(), said(), true)?;
        assert_eq!(
            (given.variables["http_proxy"].as_str(), given.withheld.len()),
            ("user:pw@proxy:3128", 0)
        );
        Ok(())
    }
}

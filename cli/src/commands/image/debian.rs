//! Which packages of Debian make a runtime of which version.

use bus::spec::runtime::RuntimeRef;
use tokio::process::Command;

use crate::failure::usage;

/// A runtime as Debian has it.
struct Known {
    runtime: &'static str,
    /// The package of the version that the release has.
    package: &'static str,
    /// More that belongs to it.
    extra_packages: &'static [&'static str],
    /// The program that its image runs by default, which jobs are run by.
    program: &'static str,
}

const fn known(runtime: &'static str, package: &'static str, extra_packages: &'static [&'static str], program: &'static str) -> Known {
    Known {
        runtime,
        package,
        extra_packages,
        program,
    }
}

const KNOWN: [Known; 8] = [
    known("python", "python3", &["python-is-python3"], "python3"),
    known("node", "nodejs", &[], "node"),
    known("bash", "bash", &[], "bash"),
    known("sh", "dash", &[], "sh"),
    known("perl", "perl", &[], "perl"),
    known("ruby", "ruby", &[], "ruby"),
    known("php", "php-cli", &[], "php"),
    known("R", "r-base-core", &[], "Rscript"),
];

/// What an image is to be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    /// The packages.
    pub(super) packages: Vec<String>,
    /// The version that the runtime has then.
    pub(super) version: String,
    /// The program that jobs are run by.
    pub(super) program: &'static str,
    /// The program of the asked version that `program` is to be another name of, where the release calls another one so.
    pub(super) called: Option<String>,
}

/// What makes a runtime on this machine's release of Debian.
///
/// # Errors
/// A usage error where Debian does not have the runtime, or has it in other versions, and which.
pub(super) async fn recipe(runtime: &RuntimeRef, release: &str) -> anyhow::Result<Recipe> {
    let Some(known) = KNOWN.iter().find(|known| known.runtime == runtime.name.as_str()) else {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.runtime).collect();
        return Err(usage(format!(
            "no image of `{}` can be made of Debian's packages; those of {} can. Push one that was made otherwise (`rgrid image push IMAGE`)",
            runtime.name,
            names.join(", ")
        )));
    };
    let package = |name: &str| candidate(name.to_owned());
    let Some(found) = package(known.package).await? else {
        return Err(usage(format!(
            "apt knows no package `{}` for Debian {release}; run `apt-get update` as root, and try again",
            known.package
        )));
    };
    let mut packages = vec![known.package.to_owned()];
    packages.extend(known.extra_packages.iter().map(|name| (*name).to_owned()));
    if runtime.is_met_by(&found) {
        return Ok(Recipe {
            packages,
            version: found,
            program: known.program,
            called: None,
        });
    }
    // `python3.12` beside the release's own `python3`, where a release has several.
    let versioned = format!("{}{}", known.runtime, runtime.version.as_deref().unwrap_or_default());
    if known.runtime == "python"
        && let Some(version) = package(&versioned).await?.filter(|version| runtime.is_met_by(version))
    {
        return Ok(Recipe {
            packages: vec![versioned.clone()],
            version,
            program: known.program,
            called: Some(versioned),
        });
    }
    let short: Vec<&str> = found.split('.').take(2).collect();
    Err(usage(format!(
        "Debian {release} has {} {found}, and not {}: ask for `{}:{}`, or run this on a release of Debian that has it",
        known.runtime,
        runtime.version.as_deref().unwrap_or_default(),
        known.runtime,
        short.join(".")
    )))
}

/// The version of a package that apt would install, as its makers count it: without Debian's own parts.
async fn candidate(package: String) -> anyhow::Result<Option<String>> {
    let asked = Command::new("apt-cache")
        // What is installed here may be from elsewhere.
        .args(["-o", "Dir::State::status=/dev/null", "show", "--no-all-versions", &package])
        .env("LC_ALL", "C")
        .output()
        .await
        .map_err(|error| {
            usage(format!(
                "images are made on Debian, of its packages, and apt-cache cannot be run here: {error}"
            ))
        })?;
    Ok(upstream(&String::from_utf8_lossy(&asked.stdout)))
}

/// `1:3.1-2+b1` is 3.1; `3.11.2-1+b1` is 3.11.2; `4.2.2.20221110-2` is that; `18.20.4+dfsg-1~deb12u1` is 18.20.4.
pub(super) fn upstream(shown: &str) -> Option<String> {
    let version = shown.lines().find_map(|line| line.strip_prefix("Version: "))?;
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    let version = version.rsplit_once('-').map_or(version, |(version, _)| version);
    let end = version.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(version.len());
    let version = version[..end].trim_end_matches('.');
    (!version.is_empty()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_s_parts_of_a_version_are_left_out() {
        for (shown, expected) in [
            ("Package: x\nVersion: 3.11.2-1+b1\n", "3.11.2"),
            ("Version: 1:3.1\n", "3.1"),
            ("Version: 2:8.2+93\n", "8.2"),
            ("Version: 18.20.4+dfsg-1~deb12u1\n", "18.20.4"),
            ("Version: 5.2.15-2+b8\n", "5.2.15"),
        ] {
            assert_eq!(upstream(shown).as_deref(), Some(expected), "{shown}");
        }
        assert_eq!(upstream("N: Unable to locate package\n"), None);
    }

    #[tokio::test]
    async fn a_runtime_that_debian_does_not_have_is_refused_with_those_it_has() {
        let error = recipe(&"julia:1".parse().expect("a runtime"), "bookworm").await.expect_err("none");
        assert!(error.to_string().contains("python, node, bash"), "{error}");
    }
}

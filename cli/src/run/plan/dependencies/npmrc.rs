//! A project's `.npmrc`: which registry its packages come from, and how they are installed.

use std::path::Path;

use super::{LONGEST, requirements::wrong_line, wrong_file};
use crate::{
    run::{messages, scan::is_of_project},
    text,
};

/// What a project's own configuration of npm is called, here and there.
pub(crate) const NAME: &str = ".npmrc";

/// Settings that change what is installed, and that npm heeds there.
const HONOURED: &str = "\
    before engine-strict force ignore-scripts include install-links install-strategy legacy-bundling legacy-peer-deps omit only optional \
    package-lock prefer-dedupe production registry replace-registry-host strict-peer-deps strict-ssl";
/// Settings that change nothing here, and beginnings of such.
const IDLE: &str = "\
    access audit audit-level auto-install-peers cache color commit-hooks dedupe-peer-dependents editor fetch- fund git-tag-version hoist \
    hoist-pattern init- init. lockfile-version loglevel maxsockets message node-linker node-options node-version noproxy prefer-offline \
    prefer-online preid progress provenance public-hoist-pattern resolve-peers-from-workspace-root save save- shamefully-hoist sign-git- \
    tag-version-prefix timing unicode update-notifier use-node-version user-agent viewer";
/// Endings of settings that are credentials.
const CREDENTIALS: [&str; 8] = [
    ":_authToken",
    ":_auth",
    ":_password",
    ":username",
    ":email",
    ":certfile",
    ":keyfile",
    ":always-auth",
];

/// What of a project's `.npmrc` goes along; nothing where it says nothing that counts.
///
/// # Errors
/// A usage error with the line that cannot be honoured.
pub(crate) fn read(dir: &Path, shown: &str) -> anyhow::Result<Option<String>> {
    let path = dir.join(NAME);
    if !path.is_file() || !is_of_project(&path, &[dir]) {
        return Ok(None);
    }
    let text = text::read(&path, LONGEST).map_err(|error| wrong_file(&error))?;
    let mut kept = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let at = format!("{shown}, line {}", index + 1);
        let (name, value) = line
            .split_once('=')
            .map_or((line, "true"), |(name, value)| (name.trim(), value.trim()));
        match kind(name) {
            Kind::Honoured if value.contains("${") => {
                return Err(wrong_line(
                    &at,
                    &format!("has `{name}` filled in from the environment, which is not there; write its value"),
                ));
            }
            Kind::Honoured if name.ends_with("registry") && !value.trim_matches(['"', '\'']).starts_with("http") => {
                return Err(wrong_line(
                    &at,
                    &format!("names the registry `{value}`, which is no URL; correct it"),
                ));
            }
            Kind::Honoured => {
                kept.push_str(line);
                kept.push('\n');
            }
            Kind::Idle => {}
            Kind::Credential => messages::once(&format!(
                "{at} holds a credential, which is not sent; the worker's own ~/.npmrc counts"
            )),
            Kind::Unknown => {
                return Err(wrong_line(
                    &at,
                    &format!(
                        "sets `{name}`, of which rgrid does not know what it changes; take it out, or put it into the worker's ~/.npmrc"
                    ),
                ));
            }
        }
    }
    Ok((!kept.is_empty()).then_some(kept))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Honoured,
    Idle,
    Credential,
    Unknown,
}

fn kind(name: &str) -> Kind {
    let bare = name.trim_end_matches("[]");
    let is_scope = bare.starts_with('@') && bare.ends_with(":registry");
    let is_idle = |known: &str| known == bare || (known.ends_with(['-', '.']) && bare.starts_with(known));
    if CREDENTIALS.iter().any(|end| bare.ends_with(end))
        || bare.starts_with('_')
        || ["cafile", "ca", "cert", "key", "username"].contains(&bare)
    {
        Kind::Credential
    } else if is_scope || HONOURED.split_whitespace().any(|known| known == bare) {
        Kind::Honoured
    } else if IDLE.split_whitespace().any(is_idle) {
        Kind::Idle
    } else {
        Kind::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_packages_goes_along_and_no_credential_does() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let of = |text: &str| {
            std::fs::write(dir.path().join(NAME), text)?;
            read(dir.path(), NAME)
        };
        assert_eq!(read(dir.path(), NAME)?, None);
        let text = "# ours\n@corp:registry = https://npm.corp.example/\n//npm.corp.example/:_authToken=secret\n_auth=c2VjcmV0\nsave-exact=true\n\
                    fetch-retries=3\nlegacy-peer-deps\nomit[]=optional\n";
        let kept = of(text)?.expect("it says something");
        assert_eq!(
            kept,
            "@corp:registry = https://npm.corp.example/\nlegacy-peer-deps\nomit[]=optional\n"
        );
        assert_eq!(of("save=false\n; x\n")?, None);
        for (text, expected) in [
            ("\nregistry=file:///here\n", ".npmrc, line 2 names the registry `file:///here`"),
            ("registry=${HERE}\n", ".npmrc, line 1 has `registry` filled in"),
            ("bogus=1\n", ".npmrc, line 1 sets `bogus`"),
        ] {
            let error = of(text).expect_err(text).to_string();
            assert!(error.contains(expected) && error.contains("--no-requirements"), "{error}");
        }
        Ok(())
    }
}

//! The settings of uv's, by what they change.

/// Settings that say how fast, with which cache, or for whom: none of them changes what is installed for a script here.
const IDLE: &str = "\
    add-bounds audit build-backend cache-dir cache-keys check-url compile-bytecode concurrent-builds concurrent-downloads concurrent- \
    installs conflicts default-groups dependency-groups dev-dependencies environments fork-strategy graalpy-install-mirror link-mode \
    managed minimum-libc-version native-tls no-cache offline package preview preview-features publish-url pyodide-install-mirror pypy- \
    install-mirror python-downloads python-downloads-json-url python-install-mirror python-preference reinstall reinstall-package \
    required-environments system-certs trusted-publishing upgrade upgrade-package workspace";
/// Settings that change what is installed, and that uv itself heeds where it installs.
const HONOURED: &str = "\
    allow-insecure-host build-constraint-dependencies config-settings config-settings-package constraint-dependencies dependency- \
    metadata exclude-dependencies exclude-newer exclude-newer-package extra-build-dependencies extra-build-variables extra-index-url \
    find-links http-proxy https-proxy index index-strategy index-url keyring-provider no-binary no-binary-package no-build no-build- \
    isolation no-build-isolation-package no-build-package no-index no-proxy no-sources no-sources-package override-dependencies \
    prerelease prerelease-package require-build-hashes required-version resolution torch-backend";

/// Whether a setting changes what is installed, and is honoured.
pub(crate) fn is_honoured(name: &str) -> bool {
    HONOURED.split_whitespace().any(|known| known == name)
}

/// Whether a setting changes nothing here.
pub(crate) fn is_idle(name: &str) -> bool {
    IDLE.split_whitespace().any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_of_one_kind() {
        for name in HONOURED.split_whitespace() {
            assert!(is_honoured(name) && !is_idle(name), "{name}");
        }
        assert!(is_idle("link-mode") && is_honoured("override-dependencies"));
        assert!(!is_idle("sources") && !is_honoured("sources") && !is_idle("bogus") && !is_honoured("bogus"));
    }
}

//! The names that an image's archive brings, read before Docker sees it: loading it gives each of them a new meaning on the worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::Component,
};

use serde::{Deserialize, de::DeserializeOwned};
use tar::EntryType;

/// The longest list of names that is read, in bytes.
const LIST_MAX: u64 = 4 << 20;

/// One image in `manifest.json`, as `docker save` writes it.
#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
}

/// `index.json`, as the OCI's image layout has it.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Indexed>,
}

#[derive(Deserialize)]
struct Indexed {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// What containerd calls an image, where its name does not say it otherwise.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The OCI's own annotation, which containerd takes where its own is not there.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// All names in a tar archive, by whichever list a daemon reads them from (Docker's `manifest.json` and older `repositories`, or the
/// `index.json` of an OCI image layout).
///
/// # Errors
/// If it cannot be read; of kind [`io::ErrorKind::InvalidData`] if it is no such archive.
pub(super) fn names(archive: impl Read) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        let path = entry.path()?;
        let mut parts = path.components().filter(|part| *part != Component::CurDir);
        let (Some(Component::Normal(name)), None) = (parts.next(), parts.next()) else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        if !["manifest.json", "repositories", "index.json"].contains(&name.as_str()) {
            continue;
        }
        if entry.header().entry_type() != EntryType::Regular {
            return Err(invalid(format!("its {name} is no plain file")));
        }
        match name.as_str() {
            "manifest.json" => {
                let saved: Vec<Saved> = list(&name, entry)?;
                names.extend(saved.into_iter().filter_map(|image| image.tags).flatten());
            }
            "repositories" => {
                let tagged: BTreeMap<String, BTreeMap<String, String>> = list(&name, entry)?;
                names.extend(
                    tagged
                        .into_iter()
                        .flat_map(|(name, tags)| tags.into_keys().map(move |tag| format!("{name}:{tag}"))),
                );
            }
            _ => {
                let index: Index = list(&name, entry)?;
                let named = |annotations: BTreeMap<String, String>| {
                    let name = annotations.get(CONTAINERD_NAME).or_else(|| annotations.get(REF_NAME))?;
                    Some(familiar(name).to_owned())
                };
                names.extend(index.manifests.into_iter().filter_map(|image| image.annotations).filter_map(named));
            }
        }
    }
    Ok(names)
}

/// A name as people write it: `docker.io/library/debian:13` is `debian:13`.
fn familiar(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

fn list<T: DeserializeOwned>(name: &str, entry: impl Read) -> io::Result<T> {
    let mut json = Vec::new();
    entry.take(LIST_MAX + 1).read_to_end(&mut json)?;
    if json.len() as u64 > LIST_MAX {
        return Err(invalid(format!("its {name} is longer than {LIST_MAX} bytes")));
    }
    serde_json::from_slice(&json).map_err(|error| invalid(format!("its {name} cannot be read: {error}")))
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    fn archive(files: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, kind, content) in files {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            header.set_path(name).expect("a path");
            header.set_cksum();
            tar.append(&header, content.as_bytes()).expect("memory");
        }
        tar.into_inner().expect("memory")
    }

    fn plain(files: &[(&str, &str)]) -> io::Result<Vec<String>> {
        let files: Vec<_> = files.iter().map(|(name, content)| (*name, EntryType::Regular, *content)).collect();
        Ok(names(&archive(&files)[..])?.into_iter().collect())
    }

    #[test]
    fn every_list_that_a_daemon_reads_is_read() -> io::Result<()> {
        let found = plain(&[
            ("blobs/sha256/manifest.json", "not a list of names"),
            (
                "./manifest.json",
                r#"[{"Config":"c","RepoTags":["a:1","b:2"],"Layers":[]},{"RepoTags":null}]"#,
            ),
            ("repositories", r#"{"c":{"3":"id","4":"id"}}"#),
            (
                "index.json",
                r#"{"manifests":[{"annotations":{"io.containerd.image.name":"docker.io/library/d:5","org.opencontainers.image.ref.name":"5"}},
                    {"annotations":{"org.opencontainers.image.ref.name":"e/f:6"}},{}]}"#,
            ),
            // Docker takes the last one of a name; all of them count here.
            ("manifest.json", r#"[{"RepoTags":["g:7"]}]"#),
        ])?;
        assert_eq!(found, ["a:1", "b:2", "c:3", "c:4", "d:5", "e/f:6", "g:7"]);
        Ok(())
    }

    #[test]
    fn what_is_no_such_archive_is_refused() {
        let message = |found: io::Result<Vec<String>>| found.expect_err("refused").to_string();
        assert!(message(plain(&[("manifest.json", "{")])).contains("manifest.json cannot be read"));
        assert!(message(plain(&[("index.json", &" ".repeat(5 << 20))])).contains("longer than"));
        let linked = archive(&[("manifest.json", EntryType::Symlink, "")]);
        assert!(names(&linked[..]).expect_err("refused").to_string().contains("no plain file"));
    }
}

//! What requirements name of this machine.

/// What an archive's name ends with.
const ARCHIVES: [&str; 6] = [".whl", ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz"];

/// The archive or directory of this machine that a requirement names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local<'a> {
    /// What stands before it: `name @ `, or nothing.
    pub(crate) before: &'a str,
    /// Its path.
    pub(crate) path: String,
    /// What follows it: extras, markers, a hash.
    pub(crate) after: &'a str,
}

/// What a requirement names of this machine, if it does.
pub(crate) fn local(requirement: &str) -> Option<Local<'_>> {
    let named = requirement.split_once('@').filter(|(name, _)| is_name(name.trim()));
    let (before, rest) = match named {
        Some((_, rest)) => requirement.split_at(requirement.len() - rest.trim_start().len()),
        None => ("", requirement),
    };
    let is_file = rest.starts_with("file:");
    let is_end = |(at, c): (usize, char)| match c {
        // A path may have spaces in it, a URL has none; markers follow a space there.
        ' ' | '\t' => is_file || !before.is_empty(),
        ';' => !is_file || rest[..at].ends_with(' '),
        '[' => !is_file,
        '#' => is_file,
        _ => false,
    };
    let end = rest.char_indices().find(|one| is_end(*one)).map_or(rest.len(), |(at, _)| at);
    let path = rest[..end].trim_end();
    let is_path = is_file || !before.is_empty() || path.starts_with('.') || path.contains('/') || is_archive(path);
    let found = is_path && !path.is_empty() && !is_remote(path);
    found.then(|| Local {
        before,
        path: path_of(path),
        after: &rest[path.len()..],
    })
}

/// A package's name, perhaps with extras.
fn is_name(text: &str) -> bool {
    let name = text.split('[').next().unwrap_or(text).trim_end();
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Whether this is not a path of this machine: a URL, or made of the worker's variables.
pub(crate) fn is_remote(value: &str) -> bool {
    (value.contains("://") && !value.starts_with("file:")) || value.starts_with("git+") || value.contains("${")
}

/// The path that a value names, which may be a file: URL.
pub(crate) fn path_of(value: &str) -> String {
    let Some(rest) = value.strip_prefix("file:") else {
        return value.to_owned();
    };
    let path = rest
        .strip_prefix("//")
        .map_or(rest, |rest| rest.strip_prefix("localhost").unwrap_or(rest));
    let bytes = path.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let code = path.get(at + 1..at + 3).filter(|_| *byte == b'%');
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                decoded.push(code);
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

pub(crate) fn is_archive(name: &str) -> bool {
    ARCHIVES.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_names_and_urls() {
        for (requirement, expected) in [
            ("six", None),
            ("six>=1 ; python_version < '4/5'", None),
            ("git+ssh://git@host/lib.git", None),
            ("lib @ git+https://host/lib@v1", None),
            ("https://host/a-1.whl", None),
            ("a[x] @ https://host/a.whl", None),
            ("${WHEELS}/a.whl", None),
            ("a.whl", Some(("", "a.whl", ""))),
            ("./my dir/a.whl[fast] ; x", Some(("", "./my dir/a.whl", "[fast] ; x"))),
            ("..", Some(("", "..", ""))),
            (
                "a @ file:///x%20y/a.whl#sha256=0 ; m",
                Some(("a @ ", "/x y/a.whl", "#sha256=0 ; m")),
            ),
            ("a @ file://localhost/a.whl", Some(("a @ ", "/a.whl", ""))),
            ("a[b] @ ./a.whl ; m", Some(("a[b] @ ", "./a.whl", " ; m"))),
            ("file:a.whl", Some(("", "a.whl", ""))),
        ] {
            let found = local(requirement);
            let found = found.as_ref().map(|local| (local.before, local.path.as_str(), local.after));
            assert_eq!(found, expected, "{requirement}");
        }
    }
}

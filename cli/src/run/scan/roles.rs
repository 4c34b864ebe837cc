//! What functions do with the names of files that they are given, by the functions' own names.

use super::role_names::{COMMAND, GLOB, IGNORE, IGNORED_PARAMETERS, LIST, STATE, WEAK, WRITE, WRITE_LAST};

/// What a function is to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It reads, changes, removes or looks for it, as far as is known.
    Read,
    /// It writes it anew, and nothing of what was there counts.
    Write,
    /// It writes the last of several, and reads the others.
    WriteLast,
    /// It lists a directory.
    List,
    /// It takes a pattern for names.
    Glob,
    /// It runs a command.
    Command,
    /// It takes a module.
    Module,
    /// It keeps its state in files of that name with some extension.
    State,
    /// Its texts are for people.
    Ignore,
    /// Its texts are keys, formats or parts of texts: only what looks like a path is one.
    Weak,
}

/// What a function makes of paths that is a path again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    /// Its arguments joined by `/`.
    Join,
    /// Its arguments, one behind the other.
    Concat,
    /// The first argument, relative to the second if there is one.
    Same,
    /// The directory of the first.
    Parent,
    /// The current directory.
    Here,
    /// The first, with parts that are filled in.
    Template,
    /// The second, which stands for the first where that is not set.
    Default,
    /// The first without its extension.
    Stem,
    /// The first, from the second, which counts as a directory.
    Expand,
}

/// What a function of this name, of this object or module, with these plain texts among its arguments, does with a path.
pub(crate) fn role(object: &str, name: &str, texts: &[&str]) -> Role {
    let last = object.rsplit('.').next().unwrap_or(object);
    if object.split('.').chain([name]).any(|part| STATE.contains(&part)) {
        return Role::State;
    }
    if matches!(name, "import_module" | "__import__" | "require_module" | "find_spec" | "run_module") {
        return Role::Module;
    }
    let updates = name.starts_with("append") || texts.iter().any(|text| is_update(text));
    if !updates && opens(name) && texts.iter().any(|text| is_write_mode(text)) {
        return Role::Write;
    }
    let is_file = matches!(last, "File" | "IO" | "CSV" | "JSON" | "Pathname" | "fs" | "FileUtils" | "YAML");
    match name {
        "write" | "writelines" if is_file && !updates => Role::Write,
        _ if matches!(
            last,
            "console" | "logger" | "logging" | "log" | "LOG" | "LOGGER" | "STDERR" | "STDOUT" | "stderr" | "stdout"
        ) =>
        {
            Role::Ignore
        }
        _ if name.ends_with("Error") || name.ends_with("Exception") => Role::Ignore,
        "find" if !matches!(last, "" | "File" | "Find") => Role::Weak,
        "foreach" if is_file => Role::Read,
        "list" | "children" | "entries" | "foreach" if !matches!(last, "Dir" | "fs" | "promises" | "Path") => Role::Weak,
        "test" | "log" | "exec" | "sub" if matches!(last, "re" | "Math" | "math" | "np" | "numpy") => Role::Weak,
        "exec" if texts.is_empty() => Role::Read,
        "run" if !matches!(last, "" | "subprocess" | "sp" | "child_process" | "Open3") => Role::Read,
        "replace" | "move" | "link" | "install" | "copy" | "dump" if matches!(last, "str" | "json" | "pickle" | "yaml" | "copy") => {
            Role::Weak
        }
        _ if WRITE_LAST.contains(&name) => Role::WriteLast,
        _ if WRITE.contains(&name) && !updates => Role::Write,
        _ if GLOB.contains(&name) => Role::Glob,
        _ if LIST.contains(&name) => Role::List,
        _ if COMMAND.contains(&name) => Role::Command,
        _ if IGNORE.contains(&name) => Role::Ignore,
        _ if WEAK.contains(&name) => Role::Weak,
        _ => Role::Read,
    }
}

/// Whether a function of this name takes a mode.
fn opens(name: &str) -> bool {
    const OPENERS: &[&str] = &[
        "File",
        "file",
        "ZipFile",
        "TarFile",
        "GzipFile",
        "BZ2File",
        "LZMAFile",
        "FileHandler",
        "ExcelWriter",
        "gzfile",
        "bzfile",
        "SplFileObject",
        "new",
        "PyZipFile",
        "HDFStore",
    ];
    OPENERS.contains(&name) || name.to_ascii_lowercase().contains("open")
}

/// A mode that empties what it opens: `w`, `wb`, `w+`, `w:gz`, `x`, `>`, `>:utf8`.
fn is_write_mode(text: &str) -> bool {
    let mut chars = text.chars();
    match chars.next() {
        Some('w' | 'x') => text.len() <= 6 && chars.all(|c| "bt+x:|gzxUTF-8e".contains(c)),
        Some('>') => !text.starts_with(">>") && (text.len() == 1 || text[1..].trim_start().starts_with(':')),
        _ => false,
    }
}

/// A mode that keeps what is there: `a`, `r+`, `>>`, `append`.
fn is_update(text: &str) -> bool {
    matches!(text, "a" | "ab" | "at" | "a+" | "ab+" | "a+b" | "r+" | "rb+" | "r+b" | "append")
        || text.starts_with(">>")
        || text.starts_with("+<")
}

/// Whether a parameter of this name takes texts that name no file.
pub(crate) fn is_ignored_parameter(name: &str) -> bool {
    IGNORED_PARAMETERS.contains(&name)
}

/// What a function of this name makes of paths.
pub(crate) fn fold(object: &str, name: &str) -> Option<Fold> {
    let last = object.rsplit('.').next().unwrap_or(object);
    let is_module = matches!(
        last,
        "path"
            | "Path"
            | "File"
            | "pathlib"
            | "posixpath"
            | "ospath"
            | "osp"
            | "op"
            | "file"
            | "fs"
            | "Pathname"
            | "Filename"
            | "Basename"
            | "Spec"
    );
    Some(match name {
        "join" | "resolve" if is_module => Fold::Join,
        "joinpath" | "catfile" | "catdir" | "path_join" => Fold::Join,
        "path" if matches!(last, "file" | "fs") => Fold::Join,
        "here" => Fold::Join,
        "paste0" | "string" | "String" | "concat" => Fold::Concat,
        "sprintf" | "format" | "glue" | "str_glue" | "str_c" => Fold::Template,
        "new" if last == "Pathname" => Fold::Same,
        "dirname" => Fold::Parent,
        "splitext" => Fold::Stem,
        "expand_path" | "rel2abs" => Fold::Expand,
        "Template" => Fold::Same,
        "getcwd" | "cwd" | "pwd" | "getwd" => Fold::Here,
        "getenv" | "env" | "getOrDefault" => Fold::Default,
        "get" if matches!(last, "environ" | "env" | "ENV") => Fold::Default,
        "fetch" if last == "ENV" => Fold::Default,
        "Path" | "PurePath" | "PosixPath" | "Pathname" | "str" | "fspath" | "abspath" | "realpath" | "normpath" | "expanduser"
        | "expandvars" | "absolute_path" | "normalizePath" | "fileURLToPath" | "pathToFileURL" | "URL" | "normalize" | "fsdecode"
        | "absolute" | "as_posix" | "to_s" | "toString" | "realpathSync" | "resolve" | "quote" | "basename_of" | "path" => Fold::Same,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_says_whether_what_is_there_counts() {
        for (object, name, texts, expected) in [
            ("", "open", &["r"][..], Role::Read),
            ("", "open", &["w"], Role::Write),
            ("", "open", &["wb+"], Role::Write),
            ("", "open", &["a"], Role::Read),
            ("", "open", &["r+"], Role::Read),
            ("", "open", &[">>"], Role::Read),
            ("", "open", &[">:encoding(UTF-8)"], Role::Write),
            ("tarfile", "open", &["w:gz"], Role::Write),
            ("df", "to_csv", &[], Role::Write),
            ("df", "to_csv", &["a"], Role::Read),
            ("fs", "createWriteStream", &["a"], Role::Read),
            ("File", "write", &[], Role::Write),
            ("f", "write", &[], Role::Ignore),
            ("shelve", "open", &[], Role::State),
            ("os", "listdir", &[], Role::List),
            ("shutil", "move", &[], Role::WriteLast),
            ("sqlite3", "connect", &[], Role::Read),
            ("os", "remove", &[], Role::Read),
        ] {
            assert_eq!(role(object, name, texts), expected, "{object}.{name} {texts:?}");
        }
    }
}

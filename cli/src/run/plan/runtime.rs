//! Determines the runtime of a script from its first line or its extension.

use std::path::Path;

use bus::spec::runtime::of_extension;

use super::shebang::{self, Shebang, ShebangOptions};

/// How a script is run, according to its content and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuntimeChoice {
    /// By the runtime of this name, with the options of the first line, which apply if the script is executable.
    Runtime(String, ShebangOptions),
    /// Itself: it is a program, or names an interpreter that is not a runtime, and may be executed.
    Itself,
    /// Nothing.
    Nothing,
}

/// Determines the runtime. `head` is the beginning of the script; `extra` maps further extensions to runtimes.
pub(crate) fn choose_runtime(path: &Path, head: &[u8], executable: bool, extra: &[(String, String)]) -> RuntimeChoice {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .map(str::to_ascii_lowercase)
        .unwrap_or_default();
    if let Some((_, runtime)) = extra
        .iter()
        .find(|(known, _)| known.trim_start_matches('.').eq_ignore_ascii_case(&extension))
    {
        return RuntimeChoice::Runtime(runtime.clone(), ShebangOptions::default());
    }
    // As the kernel does it: the first line knows better than the name (many a `.sh` needs bash), and says more (`-e`).
    if let Some(Shebang { program, own }) = shebang::read(head)
        && let Some(runtime) = runtime_of(&program)
    {
        return RuntimeChoice::Runtime(runtime, own);
    }
    if let Some(runtime) = of_extension(&extension) {
        return RuntimeChoice::Runtime(runtime.to_owned(), ShebangOptions::default());
    }
    if executable && (head.starts_with(b"#!") || head.starts_with(b"\x7fELF")) {
        RuntimeChoice::Itself
    } else {
        RuntimeChoice::Nothing
    }
}

/// `python3.12` is Python of that version, `dash` is a shell.
fn runtime_of(program: &str) -> Option<String> {
    let bare = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let version = &program[bare.len()..];
    let name = match bare {
        "python" => "python",
        "node" | "nodejs" => "node",
        "bash" => "bash",
        "sh" | "dash" => "sh",
        "ruby" => "ruby",
        "perl" => "perl",
        "php" => "php",
        "Rscript" => "R",
        "julia" => "julia",
        _ => return None,
    };
    // `python3` says no more than `python` does today.
    let means_one = version.contains('.');
    Some(if means_one { format!("{name}:{version}") } else { name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &str, head: &str, executable: bool) -> RuntimeChoice {
        choose_runtime(
            Path::new(path),
            head.as_bytes(),
            executable,
            &[("rb".to_owned(), "ruby".to_owned())],
        )
    }

    #[test]
    fn the_first_line_and_then_the_extension_tell_the_runtime() {
        let told_with = |name: &str, env: &[(&str, &str)], options: &[&str]| {
            let own = ShebangOptions {
                options: options.iter().map(ToString::to_string).collect(),
                env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                wrong: None,
            };
            RuntimeChoice::Runtime(name.to_owned(), own)
        };
        let runtime = |name: &str| told_with(name, &[], &[]);
        let with = |name: &str, options: &[&str]| told_with(name, &[], options);
        let cases = [
            ("a.py", "print(1)", runtime("python")),
            ("A.PY", "", runtime("python")),
            ("a.mjs", "", runtime("node")),
            ("a.sh", "echo", runtime("sh")),
            ("a.sh", "#!/bin/bash\n", runtime("bash")),
            ("a.sh", "#!/bin/bash -e\n", with("bash", &["-e"])),
            (
                "tool",
                "#!/usr/bin/env -S python3.12 -u -W error\n",
                with("python:3.12", &["-u", "-W", "error"]),
            ),
            ("tool", "#!/usr/bin/env python3 # -*- coding: utf-8 -*-\n", runtime("python")),
            (
                "tool",
                "#!/usr/bin/env -S python3 -W \"error::X Y\"\n",
                with("python", &["-W", "error::X Y"]),
            ),
            (
                "tool",
                "#!/usr/bin/env -S -u FOO A=b bash -e\r\n",
                told_with("bash", &[("A", "b")], &["-e"]),
            ),
            ("tool", "#!/usr/bin/python3\n", runtime("python")),
            ("tool", "#!/usr/bin/env A=b node\n", told_with("node", &[("A", "b")], &[])),
            ("tool", "#! /bin/dash", runtime("sh")),
            ("a.rb", "#!/bin/sh\n", runtime("ruby")),
            ("a.py", "#!/opt/odd/interpreter\n", runtime("python")),
        ];
        for (path, head, expected) in cases {
            assert_eq!(told(path, head, false), expected, "{path} {head}");
        }
    }

    #[test]
    fn a_program_runs_itself_if_it_may() {
        assert_eq!(told("tool", "\x7fELF…", true), RuntimeChoice::Itself);
        assert_eq!(told("tool", "#!/usr/bin/tclsh\n", true), RuntimeChoice::Itself);
        assert_eq!(told("tool", "#!/usr/bin/tclsh\n", false), RuntimeChoice::Nothing);
        assert_eq!(told("data.csv", "a,b", true), RuntimeChoice::Nothing);
        assert_eq!(told("tool", "#!", false), RuntimeChoice::Nothing);
    }
}

//! Outputs that some program would run or read automatically, such as `.bashrc`: a job must not be able to run commands as the user. They
//! are saved only if the user names them.

/// How a name is compared with a path: all in lower case, since some file systems know no other.
#[derive(Debug, Clone, Copy)]
enum Named {
    /// A file, link or directory of this name, anywhere.
    Part(&'static str),
    /// These directories, one in the other, and all in them.
    Within(&'static [&'static str]),
}
use Named::{Part, Within};

/// The refused names, and the program that would use them automatically. Files that run only on the user's command, such as a Makefile or a
/// setup.py, are not listed.
const UNASKED: &[(&str, &[Named])] = &[
    (
        "git",
        &[
            Within(&[".git", "hooks"]),
            Within(&[".git", "config"]),
            Within(&[".git", "config.worktree"]),
            Within(&[".git", "modules"]),
            Part(".gitconfig"),
            Part(".husky"),
            Part(".pre-commit-config.yaml"),
        ],
    ),
    ("rgrid", &[Part("rgrid.toml")]),
    ("direnv", &[Part(".envrc"), Part(".direnv")]),
    (
        "mise",
        &[Part("mise.toml"), Part(".mise.toml"), Part(".mise"), Part("mise.local.toml")],
    ),
    (
        "an editor",
        &[
            Part(".vscode"),
            Part(".idea"),
            Part(".devcontainer"),
            Part(".devcontainer.json"),
            Part(".vimrc"),
            Part(".exrc"),
            Part(".nvimrc"),
            Part(".nvim.lua"),
            Part(".lvimrc"),
            Part(".emacs"),
            Part(".emacs.d"),
            Part(".dir-locals.el"),
            Part(".claude"),
            Part(".cursor"),
        ],
    ),
    (
        "the server of a repository",
        &[
            Within(&[".github", "workflows"]),
            Within(&[".github", "actions"]),
            Part(".gitlab-ci.yml"),
            Part(".circleci"),
            Part(".travis.yml"),
            Part("jenkinsfile"),
            Part("azure-pipelines.yml"),
        ],
    ),
    (
        "a shell",
        &[
            Part(".bashrc"),
            Part(".bash_profile"),
            Part(".bash_login"),
            Part(".bash_logout"),
            Part(".bash_aliases"),
            Part(".profile"),
            Part(".zshrc"),
            Part(".zshenv"),
            Part(".zprofile"),
            Part(".zlogin"),
            Part(".zlogout"),
            Part(".cshrc"),
            Part(".tcshrc"),
            Part(".login"),
            Part(".logout"),
            Part(".kshrc"),
            Part(".inputrc"),
            Within(&[".config", "fish"]),
        ],
    ),
    (
        "the desktop",
        &[
            Part(".xinitrc"),
            Part(".xprofile"),
            Part(".xsession"),
            Part(".pam_environment"),
            Within(&[".config", "autostart"]),
            Within(&[".config", "systemd"]),
        ],
    ),
    ("ssh", &[Part(".ssh")]),
    ("pytest", &[Part("conftest.py")]),
    ("Python", &[Part("sitecustomize.py"), Part("usercustomize.py")]),
    ("R", &[Part(".rprofile"), Part(".renviron")]),
    ("Ruby", &[Part(".irbrc"), Part(".pryrc"), Part(".rspec")]),
    (
        "npm",
        &[Part(".npmrc"), Part(".yarnrc"), Part(".yarnrc.yml"), Part(".pnpmfile.cjs")],
    ),
    ("cargo", &[Within(&[".cargo", "config.toml"]), Within(&[".cargo", "config"])]),
    ("a debugger", &[Part(".gdbinit"), Part(".lldbinit")]),
    ("a transfer", &[Part(".curlrc"), Part(".wgetrc"), Part(".netrc")]),
];

/// The program that would automatically use a file at this path, and the part of the path that decides it. `None` for most paths.
fn run_by(path: &str) -> Option<(&'static str, String)> {
    let parts: Vec<String> = path.split('/').map(str::to_lowercase).collect();
    // A `.git` that is a file names a repository elsewhere, with hooks of its own.
    if parts.last().is_some_and(|last| last == ".git") {
        return Some(("git", ".git".to_owned()));
    }
    UNASKED.iter().find_map(|(who, all)| {
        all.iter().find_map(|named| match named {
            Part(name) => parts.iter().any(|part| part == name).then(|| (*who, (*name).to_owned())),
            Within(names) => {
                let is_within = parts
                    .windows(names.len())
                    .any(|some| some.iter().zip(*names).all(|(part, name)| part == name));
                is_within.then(|| (*who, names[0].to_owned()))
            }
        })
    })
}

/// The refused outputs that the user allowed by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum NamedOutputs {
    /// None.
    #[default]
    Nothing,
    /// Outputs that one of these patterns names literally, not by a `*`.
    Patterns(Vec<String>),
    /// Each was named by its path.
    All,
}

impl NamedOutputs {
    /// The program that would automatically use a file at this path, if the user did not name it.
    pub(crate) fn held_back_for(&self, path: &str) -> Option<&'static str> {
        let (who, name) = run_by(path)?;
        let is_asked = match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Patterns(patterns) => patterns.iter().any(|pattern| {
                let says_name = pattern.split('/').any(|part| part.to_lowercase() == name);
                let globs = bus::output::patterns::globs(pattern).unwrap_or_default();
                says_name && globs.iter().any(|glob| glob.compile_matcher().is_match(path))
            }),
        };
        (!is_asked).then_some(who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_unasked_is_known_in_every_spelling_and_place() {
        for path in [
            ".git/hooks/post-checkout",
            "new/.git/config",
            "new/.GIT/Hooks/x",
            "sub/.git",
            ".git/modules/x/hooks/y",
            ".envrc",
            "a/b/.ENVRC",
            "rgrid.toml",
            ".vscode/tasks.json",
            ".vscode",
            ".idea/workspace.xml",
            ".github/workflows/ci.yml",
            ".bashrc",
            ".config/fish/config.fish",
            "tests/conftest.py",
            "sitecustomize.py",
            ".Rprofile",
            ".ssh/authorized_keys",
            ".cargo/config.toml",
        ] {
            assert!(NamedOutputs::Nothing.held_back_for(path).is_some(), "{path}");
        }
        for path in [
            "out.csv",
            "new/.git/objects/aa/bb",
            "new/.git/HEAD",
            ".github/CODEOWNERS",
            "model.pth",
            "Makefile",
            "config.toml",
            ".gitignore",
            "envrc",
            "setup.py",
        ] {
            assert_eq!(NamedOutputs::Nothing.held_back_for(path), None, "{path}");
        }
    }

    #[test]
    fn only_a_pattern_that_says_the_name_asks_for_it() {
        let asked = |pattern: &str| NamedOutputs::Patterns(vec![pattern.to_owned()]);
        for (pattern, path, expected) in [
            (".envrc", ".envrc", true),
            (".envrc", "sub/.envrc", true),
            ("sub/.envrc", "sub/.envrc", true),
            ("sub/.envrc", ".envrc", false),
            ("*", ".envrc", false),
            (".", ".envrc", false),
            ("sub", "sub/.envrc", false),
            (".e*", ".envrc", false),
            (".vscode", ".vscode/tasks.json", true),
            (".vscode/*.json", ".vscode/tasks.json", true),
            (".github/workflows", ".github/workflows/ci.yml", true),
        ] {
            assert_eq!(asked(pattern).held_back_for(path).is_none(), expected, "{pattern} {path}");
        }
        assert_eq!(NamedOutputs::All.held_back_for(".envrc"), None);
    }
}

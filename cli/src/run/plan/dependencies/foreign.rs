//! Packages that are declared in forms that are not read: said where a script needs some.

use std::path::Path;

use super::LONGEST;
use crate::text;

/// The modules of Python's own library, of all versions that are in use.
const OWN: &str = "\
    abc aifc antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii bisect builtins bz2 cProfile \
    calendar cgi cgitb chunk cmath cmd code codecs codeop collections colorsys compileall concurrent configparser contextlib contextvars \
    copy copyreg crypt csv ctypes curses dataclasses datetime dbm decimal difflib dis distutils doctest email encodings ensurepip enum \
    errno faulthandler fcntl filecmp fileinput fnmatch fractions ftplib functools gc genericpath getopt getpass gettext glob graphlib \
    grp gzip hashlib heapq hmac html http idlelib imaplib imghdr imp importlib inspect io ipaddress itertools json keyword lib2to3 \
    linecache locale logging lzma mailbox mailcap marshal math mimetypes mmap modulefinder msilib msvcrt multiprocessing netrc nis \
    nntplib nt ntpath nturl2path numbers opcode operator optparse os ossaudiodev pathlib pdb pickle pickletools pipes pkgutil platform \
    plistlib poplib posix posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue quopri random re \
    readline reprlib resource rlcompleter runpy sched secrets select selectors shelve shlex shutil signal site smtpd smtplib sndhdr \
    socket socketserver spwd sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string stringprep struct subprocess sunau \
    symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios textwrap this threading time timeit tkinter token tokenize \
    tomllib trace traceback tracemalloc tty turtle turtledemo types typing unicodedata unittest urllib uu uuid venv warnings wave \
    weakref webbrowser winreg winsound wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport zlib zoneinfo distutils imp asynchat asyncore \
    smtpd __future__ __main__ tomllib zoneinfo compression annotationlib";

/// A file that declares packages in a form that is not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Words in it without which it declares none; one of them is enough.
    marks: &'static [&'static str],
    /// What to do.
    pub(crate) out: &'static str,
}

/// Those files, the likeliest first.
pub(crate) const FOREIGN: [Foreign; 6] = [
    Foreign {
        name: "Pipfile",
        marks: &["[packages]"],
        out: "name the packages with --requirements FILE (`pipenv requirements > FILE`)",
    },
    Foreign {
        name: "environment.yml",
        marks: &["dependencies:"],
        out: "name the packages with --requirements FILE, or run in an image that has them (--image)",
    },
    Foreign {
        name: "environment.yaml",
        marks: &["dependencies:"],
        out: "name the packages with --requirements FILE, or run in an image that has them (--image)",
    },
    Foreign {
        name: "pixi.toml",
        marks: &["dependencies]"],
        out: "name the packages with --requirements FILE, or run in an image that has them (--image)",
    },
    Foreign {
        name: "setup.cfg",
        marks: &["install_requires"],
        out: "name the packages with --requirements FILE",
    },
    Foreign {
        name: "setup.py",
        marks: &["install_requires", "requires="],
        out: "name the packages with --requirements FILE",
    },
];

/// Whether a file declares packages.
pub(crate) fn declares(foreign: &Foreign, path: &Path) -> bool {
    text::read(path, LONGEST).is_ok_and(|text| foreign.marks.iter().any(|mark| text.contains(mark)))
}

/// Whether a script imports what is neither Python's own nor beside it.
pub(crate) fn needs_packages(script: &Path) -> bool {
    let Ok(text) = text::read(script, LONGEST) else { return false };
    let dir = script.parent().unwrap_or(Path::new("."));
    let is_beside = |name: &str| dir.join(name).exists() || dir.join(format!("{name}.py")).exists();
    let is_own = |name: &str| OWN.split_whitespace().any(|known| known == name);
    imported(&text).any(|name| !is_own(name) && !is_beside(name))
}

/// The first names of what statements at the beginning of lines import.
fn imported(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(named).map(first_part).filter(|name| !name.is_empty())
}

fn named(line: &str) -> Vec<&str> {
    let list = line.strip_prefix("import ").map(|list| list.split(',').collect());
    let from = || line.strip_prefix("from ").map(|rest| vec![rest]);
    list.or_else(from).unwrap_or_default()
}

fn first_part(name: &str) -> &str {
    let name = name.trim();
    let end = name.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(name.len());
    &name[..end]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_script_needs_packages_where_it_imports_some() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("mine.py"), "")?;
        let script = dir.path().join("s.py");
        for (text, expected) in [
            ("import os, sys\nfrom json import load\nimport mine\nfrom . import x\n", false),
            ("import os, requests\n", true),
            ("from yaml.x import y\n", true),
            ("print('import requests')\n", false),
        ] {
            fs::write(&script, text)?;
            assert_eq!(needs_packages(&script), expected, "{text}");
        }
        let setup = dir.path().join("setup.cfg");
        let foreign = FOREIGN.iter().find(|foreign| foreign.name == "setup.cfg").expect("it is known");
        fs::write(&setup, "[flake8]\n")?;
        assert!(!declares(foreign, &setup));
        fs::write(&setup, "[options]\ninstall_requires =\n  six\n")?;
        assert!(declares(foreign, &setup));
        Ok(())
    }
}

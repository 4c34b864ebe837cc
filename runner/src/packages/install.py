"""Installs the packages of requirements.txt into a virtual environment beside it. Run by the interpreter of the job that needs
them, in a directory of its own; what came of it is in .rgrid-result.json, and the installer's exit code is this program's."""

import json
import os
import re
import shutil
import subprocess
import sys

HERE = os.getcwd()
ENV = os.path.join(HERE, ".rgrid-env")
PROJECT = os.path.join("uv", "pyproject.toml")
PYTHON = os.path.join(ENV, "bin", "python")
VERSION = "%d.%d.%d" % sys.version_info[:3]
OLDEST_PIP = (22, 3)  # The first that installs for another interpreter (--python).
RELOCATABLE = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"
' '''
"""


def end(code, **result):
    with open(os.path.join(HERE, ".rgrid-result.json"), "w") as file:
        json.dump(result, file)
    sys.exit(code)


def is_met(specifier):
    """Whether this Python is one that a specifier of PEP 440 (`>=3.11,<4`) allows. Its own version has no suffixes."""
    own = tuple(sys.version_info[:3])

    def one(clause):
        match = re.match(r"^(~=|===?|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?(?:(?<=\d)(?:a|b|rc|\.?dev)\d+)?$", clause.strip())
        if not match:
            end(1, wrong="cannot read `%s` in requires-python `%s`; write it as in `>=3.11,<4`" % (clause.strip(), specifier))
        operator, text, any_below = match.groups()
        parts = tuple(int(part) for part in text.split("."))
        wanted = parts + (0,) * (3 - len(parts))
        same = own[: len(parts)] == parts if any_below else own == wanted
        return {
            "~=": own >= wanted and own[: len(parts) - 1] == parts[:-1],
            "==": same,
            "===": same,
            "!=": not same,
            "<=": own <= wanted,
            ">=": own >= wanted,
            "<": own < wanted,
            ">": own > wanted,
        }[operator]

    return all(one(clause) for clause in specifier.split(",") if clause.strip())


def make_env():
    base = getattr(sys, "_base_executable", None) or sys.executable
    os.makedirs(os.path.join(ENV, "bin"))
    os.symlink(base, PYTHON)
    with open(os.path.join(ENV, "pyvenv.cfg"), "w") as file:
        file.write("home = %s\ninclude-system-site-packages = false\nversion = %s\nrelocatable = true\n" % (os.path.dirname(base), VERSION))
    with open(os.path.join(ENV, ".rgrid.json"), "w") as file:
        json.dump({"executable": base, "python": VERSION}, file)


def lines(name, seen):
    """The lines of a requirements file and of those that it names, without comments, and what they continue joined."""
    if name in seen or "://" in name:
        return
    seen.add(name)
    try:
        with open(name, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return  # The installer says it.
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", line).strip()
        if line:
            yield line
        other = re.match(r"^(?:-r|-c|--requirement|--constraint)[\s=]*(.+)$", line)
        if other:
            for more in lines(os.path.join(os.path.dirname(name), other.group(1).strip("'\"")), seen):
                yield more


def own_words(said):
    """Refuses variables that are not here; says whether a file names its own index, and which options it has."""
    for line in said:
        for name in re.findall(r"\$\{([A-Z0-9_]+)\}", line):
            if name not in os.environ:
                end(1, wrong="`%s` names the variable %s, which installers do not have on this worker; write what it stands for, or have the "
                    "worker's operator set it (under a name that begins with PIP_ or UV_)" % (line, name))
    words = [word.partition("=") for line in said if line.startswith("-") for word in line.split()]
    if any(word in ("-i", "--index-url", "--pypi-url", "--no-index") or re.match("-i.", word) for word, _, _ in words):
        # As pip has it: what stands in the file counts, and what the worker's operator says does not.
        for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
            os.environ.pop(name, None)
    return said


def uv_options(said):
    """What uv leaves out of a requirements file with no more than a warning, as its own options; nothing where it has none such."""
    options = []
    for line in said:
        name, _, value = line.replace("=", " ", 1).partition(" ")
        if name == "--pre":
            options += ["--prerelease", "allow"]
        elif name == "--require-hashes":
            options.append(name)
        elif name == "--trusted-host":
            options += ["--allow-insecure-host", value.strip()]
        elif name == "--prefer-binary" or re.search(r"\s(-C|--config-settings?|--global-option|--install-option)\b", line):
            return None
    return options


def uv_environment():
    # What the worker's operator told pip holds for uv too, unless uv was told otherwise.
    for name in ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX"):
        if "PIP_" + name in os.environ and "UV_" + name not in os.environ:
            os.environ["UV_" + name] = os.environ["PIP_" + name]
    if "PIP_CERT" in os.environ:
        os.environ.setdefault("SSL_CERT_FILE", os.environ["PIP_CERT"])
    os.environ.update(UV_LINK_MODE="copy", UV_PYTHON_DOWNLOADS="never")
    if "UV_CACHE_DIR" not in os.environ:
        os.environ["UV_NO_CACHE"] = "1"


def uv_project(uv):
    """Installs what uv alone can, from a project of its own."""
    if not uv:
        end(1, lacks="uv, which alone can install what is declared with an index for some packages, overrides, or other settings of uv's")
    os.chdir(os.path.dirname(PROJECT))
    with open("pyproject.toml", encoding="utf-8") as file:
        text = file.read().replace("${RGRID_PACKAGES_DIR}", HERE)
    with open("pyproject.toml", "w", encoding="utf-8") as file:
        file.write(text)
    if re.search(r"(?m)^(default = true|index-url = |no-index = true)", text):
        for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
            os.environ.pop(name, None)
    uv_environment()
    # In a project, uv drops all settings with a warning where it does not know one of them; here it fails.
    knows = [uv, "pip", "freeze", "--config-file", "settings.toml", "--python", PYTHON]
    code = subprocess.call(knows, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if code == 0:
        code = subprocess.call([uv, "pip", "install", "--no-progress", "--python", PYTHON, "-r", "pyproject.toml"], stdin=subprocess.DEVNULL)
    os.chdir(HERE)
    return code


def requirements(uv):
    """Installs what requirements.txt says; says by which installer, and how that ended."""
    said = own_words(list(lines("requirements.txt", set())))
    options = uv_options(said)
    if uv and options is not None:
        uv_environment()
        command = [uv, "pip", "install", "--no-progress", "--python", PYTHON, *options, "-r", "requirements.txt"]
    else:
        command = pip_command()
    return "uv" if command[0] == uv else "pip", subprocess.call(command, stdin=subprocess.DEVNULL)


def pip_command():
    try:
        import pip
    except ImportError:
        end(1, lacks="pip, which alone can install this (--prefer-binary, settings of one package)" if shutil.which("uv") else "uv or pip")
    has = tuple(int(part) for part in re.findall(r"\d+", pip.__version__)[:2])
    if has < OLDEST_PIP:
        end(1, lacks="uv, or pip of version %d.%d (it has %s)" % (OLDEST_PIP + (pip.__version__,)))
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV"):
        os.environ.pop(name, None)
    options = ["--no-input", "--no-compile", "--disable-pip-version-check", "--progress-bar", "off"]
    if "PIP_CACHE_DIR" not in os.environ:
        options.append("--no-cache-dir")
    return [sys.executable, "-m", "pip", "--python", PYTHON, "install", *options, "-r", "requirements.txt"]


def relocate():
    """Makes the console scripts find the interpreter beside them, wherever that is."""
    own = re.compile(re.escape(ENV).encode() + rb"/bin/python[0-9.]*")
    for entry in os.scandir(os.path.join(ENV, "bin")):
        if entry.is_symlink() or not entry.is_file():
            continue
        with open(entry.path, "rb") as file:
            text = file.read()
        first = text.partition(b"\n")
        if first[0].startswith(b"#!") and own.search(first[0]):
            rest = first[2]
        elif text.startswith(b"#!/bin/sh\n'''exec' ") and own.search(first[2].partition(b"\n")[0]):
            rest = text.split(b"\n", 3)[3]
        else:
            continue
        with open(entry.path, "wb") as file:
            file.write(RELOCATABLE + rest)


def main():
    os.environ["RGRID_PACKAGES_DIR"] = HERE
    specifier = sys.argv[1] if len(sys.argv) > 1 else ""
    if not is_met(specifier):
        end(1, wrong="it needs Python %s, and this is %s; choose another with --runtime python:VERSION" % (specifier, VERSION))
    if "--check" in sys.argv[2:]:
        end(0, by="python")
    make_env()
    uv = shutil.which("uv")
    by, code = ("uv", uv_project(uv)) if os.path.exists(PROJECT) else requirements(uv)
    if code != 0:
        end(code if code > 0 else 128 - code, by=by)
    relocate()
    # By content, so that they hold wherever they are unpacked; a file that is no Python of this version is none of our business.
    compiling = [PYTHON, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", os.path.join(ENV, "lib")]
    subprocess.call(compiling, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end(0, by=by)


main()

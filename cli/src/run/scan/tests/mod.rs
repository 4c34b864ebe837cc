//! What the scan finds in small projects.

mod limits;

use std::{fs, path::Path};

use globset::GlobSet;
use tempfile::TempDir;

use super::*;

const WIDE: Bounds = Bounds {
    files: 1_000,
    bytes: 1 << 30,
};

/// A project in a directory of its own.
struct Project(TempDir);

impl Project {
    fn of(files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let temp = tempfile::tempdir()?;
        for (path, text) in files {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, text)?;
        }
        Ok(Self(temp))
    }

    fn root(&self) -> PathBuf {
        self.0.path().canonicalize().expect("it is there")
    }

    fn scan_in(&self, cwd: &str, script: &str) -> anyhow::Result<Found> {
        let cwd = self.root().join(cwd);
        let scope = ScanScope::of(&cwd, Some(Path::new(script)), None)?;
        let start = Start {
            script: Some((cwd.join(script), None)),
            ..Start::default()
        };
        Ok(scan(&scope, &start, &GlobSet::empty(), WIDE))
    }

    /// The paths that are found, from the project's directory.
    fn paths(&self, script: &str) -> anyhow::Result<Vec<String>> {
        let found = self.scan_in("", script)?;
        Ok(self.shown(&found))
    }

    fn shown(&self, found: &Found) -> Vec<String> {
        let root = self.root();
        found
            .files
            .keys()
            .filter_map(|path| Some(path.strip_prefix(&root).ok()?.to_str()?.to_owned()))
            .collect()
    }
}

/// A script's name and text, files that are here, and those of them that are to be found.
type Case = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

fn check(cases: &[Case]) -> anyhow::Result<()> {
    for (script, text, here, expected) in cases {
        let files: Vec<(&str, &str)> = here.iter().map(|path| (*path, "x")).chain([(*script, *text)]).collect();
        let project = Project::of(&files)?;
        assert_eq!(project.paths(script)?, *expected, "{text}");
    }
    Ok(())
}

#[test]
fn names_are_followed_through_constants_joins_and_templates() -> anyhow::Result<()> {
    check(&[
        ("a.py", "open('conf.yaml')", &["conf.yaml", "other.yaml"], &["conf.yaml"]),
        ("a.py", "# open('no.txt')\nprint('no.txt')", &["no.txt"], &[]),
        (
            "s/a.py",
            "import os\nHERE = os.path.dirname(os.path.abspath(__file__))\nopen(os.path.join(HERE, 'd', 'x.csv'))",
            &["s/d/x.csv", "s/d/y.csv", "d/x.csv"],
            &["s/d/x.csv"],
        ),
        (
            "s/a.py",
            "from pathlib import Path\nROOT = Path(__file__).resolve().parents[1]\n(ROOT / 'd' / 'x.csv').read_text()",
            &["d/x.csv", "s/d/x.csv"],
            &["d/x.csv"],
        ),
        (
            "a.py",
            "DATA = 'data'\nfor y in years:\n    open(f'{DATA}/{y}.csv')",
            &["data/1.csv", "data/2.csv", "data/x.txt"],
            &["data/1.csv", "data/2.csv"],
        ),
        ("a.py", "open('data/%s.csv' % name)", &["data/1.csv", "data/1.txt"], &["data/1.csv"]),
        (
            "a.py",
            "open('data/{}.csv'.format(name))",
            &["data/1.csv", "data/1.txt"],
            &["data/1.csv"],
        ),
        (
            "a.py",
            "open('data/' + name)",
            &["data/1.csv", "data/1.txt"],
            &["data/1.csv", "data/1.txt"],
        ),
        (
            "a.py",
            "import os\nfor n in os.listdir('inbox'):\n    open(os.path.join('inbox', n))",
            &["inbox/a", "inbox/b/c", "other/d"],
            &["inbox/a", "inbox/b/c"],
        ),
        (
            "a.py",
            "import glob\nglob.glob('in/*.txt')",
            &["in/a.txt", "in/b.md"],
            &["in/a.txt"],
        ),
        (
            "a.py",
            "p.add_argument('--conf', default='c.ini')\nopen(args.conf)",
            &["c.ini"],
            &["c.ini"],
        ),
        (
            "a.py",
            "conf = os.environ.get('CONF', 'c.yml')\nopen(conf)",
            &["c.yml", "CONF"],
            &["c.yml"],
        ),
        (
            "a.py",
            "import sqlite3\nsqlite3.connect('stock.db')",
            &["stock.db", "stock.db-wal"],
            &["stock.db", "stock.db-wal"],
        ),
        (
            "a.py",
            "import shelve\nshelve.open('state')",
            &["state.dat", "state.dir", "state.txt"],
            &["state.dat", "state.dir"],
        ),
        ("a.py", "if mode == 'test': pass\nx = cfg['data']", &["test/a", "data/b"], &[]),
        (
            "a.py",
            "subprocess.run(['python3', 'h.py', 'in.txt'])\nos.system('sort b.txt > c.txt')",
            &["h.py", "in.txt", "b.txt", "c.txt"],
            &["b.txt", "h.py", "in.txt"],
        ),
    ])
}

#[test]
fn what_is_only_written_is_not_sent_and_what_is_updated_is() -> anyhow::Result<()> {
    check(&[
        (
            "a.py",
            "open('o.csv', 'w')\ndf.to_csv('p.csv')\nplt.savefig('f.png')",
            &["o.csv", "p.csv", "f.png"],
            &[],
        ),
        (
            "a.py",
            "OUT = 'o.csv'\nwith open(OUT, 'w') as f: pass\nprint('wrote', OUT)",
            &["o.csv"],
            &[],
        ),
        (
            "a.py",
            "open('run.log', 'a')\nopen('n', 'r+')",
            &["run.log", "n"],
            &["n", "run.log"],
        ),
        ("a.py", "open('o.csv', 'w')\nopen('o.csv')", &["o.csv"], &["o.csv"]),
        (
            "a.py",
            "from pathlib import Path\nPath('o.txt').write_text('x')\nOUT = Path('out')\nOUT.mkdir(exist_ok=True)\n(OUT / 'r.txt').open('w')",
            &["o.txt", "out/r.txt"],
            &[],
        ),
        (
            "a.sh",
            "sort in.txt > o.txt\necho x >> log.txt\ncat h.txt | tee t.txt",
            &["in.txt", "o.txt", "log.txt", "h.txt", "t.txt"],
            &["h.txt", "in.txt", "log.txt"],
        ),
        (
            "a.js",
            "fs.writeFileSync('o.txt', fs.readFileSync('i.txt'))\nfs.appendFileSync('l.txt', 'x')",
            &["o.txt", "i.txt", "l.txt"],
            &["i.txt", "l.txt"],
        ),
        (
            "a.rb",
            "File.write('o.txt', File.read('i.txt'))\nFile.open('l.txt', 'a') { |f| f.puts 'x' }",
            &["o.txt", "i.txt", "l.txt"],
            &["i.txt", "l.txt"],
        ),
        (
            "a.pl",
            "open(my $f, '>', 'o.txt') or die;\nopen(my $g, '<', \"i.txt\") or die;\nopen(H, '>>l.txt');",
            &["o.txt", "i.txt", "l.txt"],
            &["i.txt"],
        ),
        (
            "a.R",
            "x <- read.csv('i.csv')\nwrite.csv(x, 'o.csv')",
            &["i.csv", "o.csv"],
            &["i.csv"],
        ),
    ])?;
    let project = Project::of(&[("a.py", "open('out/o.csv', 'w')"), ("out/old.csv", "")])?;
    let found = project.scan_in("", "a.py")?;
    assert_eq!(
        found.dirs.into_iter().collect::<Vec<_>>(),
        [project.root().join("out")],
        "its directory is there"
    );
    Ok(())
}

#[test]
fn modules_and_helpers_of_each_language_go_along() -> anyhow::Result<()> {
    check(&[
        (
            "a.py",
            "import sys\nsys.path.insert(0, 'src')\nfrom tools.io import load\nsys.path.append('w/x-1.whl')",
            &["src/tools/__init__.py", "src/tools/io.py", "w/x-1.whl"],
            &["src/tools/__init__.py", "src/tools/io.py", "w/x-1.whl"],
        ),
        (
            "a.py",
            "import importlib\nimportlib.import_module(f'formats.{name}')",
            &["formats/__init__.py", "formats/tsv.py"],
            &["formats/__init__.py", "formats/tsv.py"],
        ),
        (
            "a.js",
            "const x = require('./lib/x')\nconst d = require('./d.json')\nfs.readFileSync(path.join(__dirname, 't.html'))",
            &["lib/x.js", "d.json", "t.html", "lib/y.js"],
            &["d.json", "lib/x.js", "t.html"],
        ),
        (
            "a.mjs",
            "import x from './x.mjs'\nconst u = new URL('./d.txt', import.meta.url)\nawait import('./lazy.mjs')",
            &["x.mjs", "d.txt", "lazy.mjs"],
            &["d.txt", "lazy.mjs", "x.mjs"],
        ),
        (
            "a.sh",
            "DIR=$(cd \"$(dirname \"$0\")\" && pwd)\nsource \"$DIR/lib/c.sh\"\n. ./env.sh\nfor f in data/*.txt; do cat \"$f\"; done\npython3 h.py",
            &["lib/c.sh", "env.sh", "data/1.txt", "data/1.md", "h.py"],
            &["data/1.txt", "env.sh", "h.py", "lib/c.sh"],
        ),
        (
            "a.pl",
            "use lib 'lib';\nuse Ballot::Count;\nuse FindBin;\nrequire \"$FindBin::Bin/x.pl\";",
            &["lib/Ballot/Count.pm", "x.pl"],
            &["lib/Ballot/Count.pm", "x.pl"],
        ),
        (
            "a.rb",
            "require_relative 'lib/x'\n$LOAD_PATH.unshift File.join(__dir__, 'ext')\nrequire 'y'\nDir.glob('t/*.erb').each { |f| p f }",
            &["lib/x.rb", "ext/y.rb", "t/a.erb", "t/b.txt"],
            &["ext/y.rb", "lib/x.rb", "t/a.erb"],
        ),
        (
            "a.php",
            "<?php\nrequire __DIR__ . '/lib/x.php';\n$c = file_get_contents('c.json');\nfile_put_contents('o.txt', $c);",
            &["lib/x.php", "c.json", "o.txt"],
            &["c.json", "lib/x.php"],
        ),
        (
            "a.R",
            "source('h.R')\nread.csv(file.path('data', 'x.csv'))",
            &["h.R", "data/x.csv", "data/y.csv"],
            &["data/x.csv", "h.R"],
        ),
        (
            "a.jl",
            "include(\"h.jl\")\nopen(joinpath(@__DIR__, \"d\", \"x.txt\"))",
            &["h.jl", "d/x.txt"],
            &["d/x.txt", "h.jl"],
        ),
    ])
}

#[test]
fn a_configuration_that_is_found_says_what_it_names() -> anyhow::Result<()> {
    let project = Project::of(&[
        ("a.py", "import yaml\nyaml.safe_load(open('conf.yaml'))"),
        ("conf.yaml", "input: inbox\nfiles:\n  - data/x.csv\noutput: out\n"),
        ("inbox/1", ""),
        ("data/x.csv", ""),
        ("data/y.csv", ""),
        ("out/old", ""),
    ])?;
    assert_eq!(project.paths("a.py")?, ["conf.yaml", "data/x.csv", "inbox/1"]);
    Ok(())
}

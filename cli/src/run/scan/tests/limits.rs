//! What a scan must not do.

use super::*;

#[test]
fn nothing_outside_of_the_project_is_found_and_no_secret() -> anyhow::Result<()> {
    let project = Project::of(&[
        (
            "app/a.py",
            "open('../conf.ini')\nopen('/etc/passwd')\nopen('.env')\nopen('link')\nopen('~/x')",
        ),
        ("conf.ini", ""),
        ("outside", ""),
        ("app/.env", "TOKEN=x"),
    ])?;
    std::os::unix::fs::symlink(project.root().join("outside"), project.root().join("app/link"))?;
    let found = project.scan_in("app", "a.py")?;
    assert_eq!(project.shown(&found), [""; 0]);
    for (note, words) in found.notes.iter().zip([
        "../conf.ini, which a.py names, lies outside",
        ".env, which a.py names, looks like a secret",
        "link, which a.py names, is a link that leads out",
    ]) {
        assert!(note.text.contains(words) && note.text.contains("--include"), "{note:?}");
    }
    assert_eq!(found.notes.len(), 3);
    fs::create_dir(project.root().join(".git"))?;
    let found = project.scan_in("app", "a.py")?;
    assert_eq!(
        project.shown(&found),
        ["conf.ini", "outside"]
            .map(|path| if path == "outside" { "app/link" } else { path })
            .iter()
            .rev()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    );
    Ok(())
}

#[test]
fn bounds_hold_and_are_named() -> anyhow::Result<()> {
    let files: Vec<(String, &str)> = (0..50).map(|n| (format!("data/{n}.csv"), "x")).collect();
    let mut all: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    all.push(("a.py", "import os\nos.listdir('data')\nopen('b.txt')"));
    all.push(("b.txt", "b"));
    let project = Project::of(&all)?;
    let scope = ScanScope::of(&project.root(), Some(Path::new("a.py")), None)?;
    let start = Start {
        script: Some((project.root().join("a.py"), None)),
        ..Start::default()
    };
    let found = scan(&scope, &start, &GlobSet::empty(), Bounds { files: 10, bytes: 1 << 20 });
    assert_eq!(project.shown(&found), ["b.txt"]);
    assert!(
        found.notes[0].text.starts_with("data (more than 10 files") && found.notes[0].text.contains("--include data"),
        "{:?}",
        found.notes
    );
    let found = scan(&scope, &start, &GlobSet::empty(), Bounds { files: 100, bytes: 20 });
    assert_eq!(project.shown(&found), ["b.txt"]);
    Ok(())
}

#[test]
fn texts_that_are_made_to_stop_the_scan_do_not() -> anyhow::Result<()> {
    let doubled: String = (1..40).map(|n| format!("v{n} = v{0} + v{0}\n", n - 1)).collect();
    for (name, text) in [
        ("a.py", "open('%é' % x)\nopen('{é')\n".to_owned()),
        ("a.py", format!("v0 = 'data/' + x\n{doubled}open(v39)\n")),
        ("a.py", format!("open({}x)\n", "-".repeat(20_000))),
        ("a.js", format!("const x = {}1\n", "a ? b : ".repeat(5_000))),
        ("a.js", format!("require({}'x'{})\n", "(".repeat(5_000), ")".repeat(5_000))),
        ("a.js", "`${`${".repeat(5_000)),
        ("a.sh", "$(".repeat(5_000)),
        ("a.py", format!("open('conf.yaml')\n# {}\n", "é".repeat(400))),
    ] {
        let project = Project::of(&[
            (name, &text),
            ("conf.yaml", &"é".repeat(400)),
            ("lib/package.json", "{\"main\": \".\"}"),
        ])?;
        project.paths(name)?;
    }
    let project = Project::of(&[
        ("a.js", "require('./lib')"),
        ("lib/package.json", "{\"main\": \".\", \"exports\": [\".\", \"./\"]}"),
    ])?;
    assert_eq!(project.paths("a.js")?, ["lib/package.json"]);
    // A pipe in the place of a configuration is not waited for.
    let project = Project::of(&[("a.py", "open('conf.yaml')\nimport os\nos.listdir('.')\n")])?;
    for pipe in ["conf.yaml", ".gitignore"] {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            project.root().join(pipe),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )?;
    }
    project.paths("a.py")?;
    Ok(())
}

#[test]
fn a_strangers_repository_runs_nothing_and_gives_nothing_of_its_own() -> anyhow::Result<()> {
    let project = Project::of(&[
        ("a.py", "import os\nos.listdir('.')\nopen('.git/config')\nopen('e.txt')\n"),
        (".env", "A=1"),
        ("b", ""),
    ])?;
    let root = project.root();
    let git = |words: &[&str]| std::process::Command::new("git").args(words).current_dir(&root).status();
    assert!(git(&["init", "-q", "."])?.success());
    let ran = root.join("ran");
    assert!(git(&["config", "core.fsmonitor", &format!("touch {}", ran.display())])?.success());
    std::os::unix::fs::symlink(".env", root.join("e.txt"))?;
    let found = project.scan_in("", "a.py")?;
    assert_eq!(project.shown(&found), ["b"]);
    assert!(!ran.exists());
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.text.starts_with("e.txt, which a.py names, looks like a secret")),
        "{:?}",
        found.notes
    );
    Ok(())
}

#[test]
fn of_a_home_directory_only_what_is_named_exactly_goes_along() -> anyhow::Result<()> {
    let text =
        "import os\nopen('near.csv')\nos.listdir(os.path.dirname(__file__))\nopen('.bashrc')\nimport glob\nglob.glob('Documents/*')\n";
    let project = Project::of(&[
        ("home/a.py", text),
        ("home/near.csv", ""),
        ("home/.bashrc", ""),
        ("home/Documents/diary", ""),
        ("else/x", ""),
    ])?;
    let home = project.root().join("home");
    for (cwd, script) in [("home", "a.py"), ("else", "../home/a.py")] {
        let cwd = project.root().join(cwd);
        let scope = ScanScope::of(&cwd, Some(Path::new(script)), Some(&home))?;
        let start = Start {
            script: Some((home.join("a.py"), None)),
            ..Start::default()
        };
        let found = scan(&scope, &start, &GlobSet::empty(), WIDE);
        assert_eq!(project.shown(&found), ["home/near.csv"], "{}", cwd.display());
    }
    Ok(())
}

proptest::proptest! {
    #[test]
    fn no_script_stops_the_scan(text in "\\PC{0,600}(\n\\PC{0,80}){0,8}", which in 0_usize..8) {
        let name = ["a.py", "a.js", "a.rb", "a.pl", "a.php", "a.R", "a.jl", "a.sh"][which];
        let project = Project::of(&[(name, &text)]).expect("a project");
        project.paths(name).expect("a scan");
    }
}

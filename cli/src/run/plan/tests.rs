use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::run::args::files::FileArgs;

struct Here {
    temp: tempfile::TempDir,
}

impl Here {
    fn new(files: &[&str]) -> anyhow::Result<Self> {
        let temp = tempfile::tempdir()?;
        fs::create_dir(temp.path().join("here"))?;
        for file in files {
            let path = temp.path().join("here").join(file);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, "x")?;
        }
        Ok(Self { temp })
    }

    fn plan(&self, words: &[&str]) -> anyhow::Result<Plan> {
        self.plan_with(words, &PlanOptions::default())
    }

    fn plan_with(&self, words: &[&str], options: &PlanOptions<'_>) -> anyhow::Result<Plan> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        plan(&self.temp.path().join("here"), &words, options)
    }
}

fn paths(plan: &Plan) -> Vec<&str> {
    plan.inputs.iter().map(|input| input.path.as_str()).collect()
}

#[test]
fn the_script_and_its_files_go_along_and_keep_their_names() -> anyhow::Result<()> {
    let here = Here::new(&["tools/a.py", "data/x.csv", "ü b.txt", "--odd"])?;
    let words = [
        "tools/a.py",
        "data/x.csv",
        "--in=data/x.csv",
        "./ü b.txt",
        "-n",
        "5",
        "",
        "--odd",
        "nothing.csv",
        "--",
        "--name",
    ];
    let plan = here.plan(&words)?;
    assert_eq!(plan.command, words);
    assert_eq!(plan.runtime.as_deref(), Some("python"));
    assert_eq!(paths(&plan), ["tools/a.py", "data/x.csv", "ü b.txt", "--odd"]);
    Ok(())
}

#[test]
fn files_from_elsewhere_stand_in_directories_of_their_own_and_are_called_so() -> anyhow::Result<()> {
    let here = Here::new(&["a.py", "x.csv", "../other/x.csv", "../y.csv", "../z/y.csv"])?;
    let absolute = here.temp.path().join("here/x.csv").display().to_string();
    let plan = here.plan(&[
        "a.py",
        "../other/x.csv",
        "x.csv",
        "--a=../y.csv",
        "../z/y.csv",
        "../y.csv",
        &absolute,
    ])?;
    assert_eq!(
        plan.command,
        [
            "a.py",
            "rgrid-1/x.csv",
            "x.csv",
            "--a=rgrid-2/y.csv",
            "rgrid-3/y.csv",
            "rgrid-2/y.csv",
            "x.csv"
        ]
    );
    assert_eq!(paths(&plan), ["a.py", "rgrid-1/x.csv", "x.csv", "rgrid-2/y.csv", "rgrid-3/y.csv"]);
    Ok(())
}

#[test]
fn a_script_is_never_taken_for_an_option_or_a_program_of_that_name() -> anyhow::Result<()> {
    let here = Here::new(&["-v.py", "true"])?;
    assert_eq!(here.plan(&["-v.py"])?.command, ["./-v.py"]);
    let path = here.temp.path().join("here/true");
    fs::write(&path, "#!/usr/bin/awk -f\n")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let plan = here.plan(&["true"])?;
    assert_eq!(
        (plan.command, plan.runtime, plan.inputs[0].executable()),
        (vec!["./true".to_owned()], None, true)
    );
    let program = PlanOptions {
        program: true,
        ..PlanOptions::default()
    };
    let plan = here.plan_with(&["echo", "hi"], &program)?;
    assert_eq!((plan.command.len(), plan.inputs.len(), plan.runtime), (2, 0, None));
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_said() -> anyhow::Result<()> {
    let here = Here::new(&["a.py", "data/x.csv", "notes"])?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        here.temp.path().join("here/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )?;
    let cases: [(&[&str], &str); 5] = [
        (&["missing.py"], "there is no script `missing.py`"),
        (&["--cpus"], "has no option `--cpus`"),
        (&["data"], "is a directory, not a script"),
        (&["notes"], "cannot determine the runtime of `notes`"),
        (&["a.py", "pipe"], "is a pipe"),
    ];
    for (words, expected) in cases {
        let error = here.plan(words).expect_err("refused").to_string();
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    Ok(())
}

#[test]
fn what_an_argument_means_is_told_by_what_is_here() -> anyhow::Result<()> {
    let here = Here::new(&["a.py", "data.csv", "res/old", "../d/f", "runs/1/a"])?;
    let root = here.temp.path().join("here");
    std::os::unix::fs::symlink("runs/1", root.join("latest"))?;
    std::os::unix::fs::symlink("data.csv", root.join("cur"))?;
    let command = |words: &[&str]| here.plan(words).map(|plan| plan.command);
    // What is there goes before what may be made there.
    assert_eq!(paths(&here.plan(&["a.py", "res/k=data.csv"])?), ["a.py", "data.csv"]);
    let new = format!("{}/res/new/", root.display());
    assert_eq!(
        command(&["a.py", &new, &format!("--o={new}")])?,
        ["a.py", "res/new/", "--o=res/new/"]
    );
    assert_eq!(
        command(&["a.py", "s/a/b/", "http://host/x", "none/such"])?,
        ["a.py", "s/a/b/", "http://host/x", "none/such"]
    );
    // A file in a directory that goes along is in that.
    let both = here.plan(&["a.py", "../d/f", "../d"])?;
    assert_eq!((&both.command[1], paths(&both).len()), (&"rgrid-1/d/f".to_owned(), 2));
    // A link to a directory is that directory, whatever is named in it.
    for words in [
        &["a.py", "latest", "latest/a"][..],
        &["a.py", "latest", "--out=latest/sub/new"],
        &["a.py", "latest", "--out=latest/new"],
    ] {
        let plan = here.plan(words)?;
        assert!(plan.links.is_empty() && paths(&plan).contains(&"latest/a"), "{words:?}");
    }
    let cur = here.plan(&["a.py", "cur", "data.csv"])?;
    assert_eq!((cur.links.len(), paths(&cur)), (1, vec!["a.py", "data.csv"]));
    Ok(())
}

#[test]
fn directories_go_along_with_all_that_is_in_them() -> anyhow::Result<()> {
    let here = Here::new(&["a.py", "data/x.csv", "data/deep/y.csv", "../far/z.csv", "far/w"])?;
    let root = here.temp.path().join("here");
    fs::create_dir(root.join("data/empty"))?;
    std::os::unix::fs::symlink("x.csv", root.join("data/link"))?;
    let plan = here.plan(&["a.py", "./data/", "--in=../far", "key=data/x.csv"])?;
    assert_eq!(plan.command, ["a.py", "./data/", "--in=rgrid-1/far", "key=data/x.csv"]);
    assert_eq!(paths(&plan), ["a.py", "data/deep/y.csv", "data/x.csv", "rgrid-1/far/z.csv"]);
    let link = (plan.links[0].path.as_str(), plan.links[0].target.as_str());
    assert_eq!((link, plan.dirs[0].as_str()), (("data/link", "x.csv"), "data/empty"));
    let all = here.plan(&["a.py", "."])?;
    assert_eq!(all.command, ["a.py", "."]);
    assert_eq!(all.inputs.len(), 4);
    Ok(())
}

#[test]
fn what_is_wished_goes_along_too_and_stands_where_it_is_wished() -> anyhow::Result<()> {
    let here = Here::new(&["a.py", "m.py", "conf/a.yaml", "conf/b.txt", "../secret/list", "big.tmp"])?;
    fs::write(here.temp.path().join("here/a.py"), "import m")?;
    let pair = |text: &str| text.parse().expect("a pair");
    let mut files = FileArgs {
        include: vec!["conf/*.yaml".to_owned()],
        input: vec![pair("../secret/list=in/names.txt"), pair("conf=settings")],
        ..FileArgs::default()
    };
    let options = PlanOptions {
        files: Some(&files),
        ..PlanOptions::default()
    };
    let plan = here.plan_with(&["a.py", "../secret/list"], &options)?;
    assert_eq!(plan.command, ["a.py", "in/names.txt"]);
    let mut found = paths(&plan);
    found.sort_unstable();
    assert_eq!(
        found,
        ["a.py", "conf/a.yaml", "in/names.txt", "m.py", "settings/a.yaml", "settings/b.txt"]
    );
    files = FileArgs {
        workdir: true,
        exclude: vec!["*.tmp".to_owned(), "conf".to_owned()],
        ..FileArgs::default()
    };
    let options = PlanOptions {
        files: Some(&files),
        ..PlanOptions::default()
    };
    assert_eq!(paths(&here.plan_with(&["a.py"], &options)?), ["a.py", "m.py"]);
    for (include, input, expected) in [
        (Some("*.nothing"), None, "matches no file here"),
        (Some("a[b"), None, "is not a glob"),
        (None, Some("nowhere=x"), "there is no file or directory `nowhere`"),
        (None, Some("conf=../x"), "cannot send ../x"),
    ] {
        let files = FileArgs {
            include: include.map(str::to_owned).into_iter().collect(),
            input: input.map(pair).into_iter().collect(),
            ..FileArgs::default()
        };
        let options = PlanOptions {
            files: Some(&files),
            ..PlanOptions::default()
        };
        let error = here.plan_with(&["a.py"], &options).expect_err("refused").to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    Ok(())
}

#[test]
fn what_is_not_to_be_sent_stays_as_it_is() -> anyhow::Result<()> {
    let here = Here::new(&["a.py", "data/x.csv"])?;
    let no_input = [OsString::from("data"), OsString::from("data/x.csv")];
    let options = PlanOptions {
        no_input: &no_input,
        ..PlanOptions::default()
    };
    let plan = here.plan_with(&["a.py", "data", "--in=data/x.csv"], &options)?;
    assert_eq!(
        (plan.command, plan.inputs.len()),
        (vec!["a.py".to_owned(), "data".to_owned(), "--in=data/x.csv".to_owned()], 1)
    );
    assert!(here.plan_with(&["a.py"], &options).is_err());
    Ok(())
}

use proptest::{collection::vec, prelude::*};

use super::*;

struct Here(tempfile::TempDir);

impl Here {
    fn new(files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let here = Self(tempfile::tempdir()?);
        for (path, text) in files {
            let path = here.0.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent"))?;
            fs::write(path, text)?;
        }
        Ok(here)
    }

    fn read(&self, path: &str) -> anyhow::Result<Read> {
        read(&self.0.path().join(path), path, self.0.path())
    }
}

fn names(read: &Read) -> Vec<&str> {
    read.files.iter().map(|(path, _)| path.as_str()).collect()
}

fn text(read: &Read, name: &str) -> String {
    let (_, content) = read.files.iter().find(|(path, _)| path.as_str() == name).expect("it goes along");
    match content {
        Content::Made(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Content::Of(path) => panic!("{path:?} is not read"),
    }
}

#[test]
fn lines_that_name_nothing_of_this_machine_stay_as_they_are() -> anyhow::Result<()> {
    let lines = "# comment\n\nsix==1.17.0  # why\nrequests[socks] >= 2.8 ; python_version < '4'\n--index-url http://127.0.0.1:1/simple\n\
                 pip @ https://host.example/pip-1.whl\nhttps://host.example/a-1.tar.gz\n\
                 git+https://host.example/lib@v1#egg=lib\nrich --hash=sha256:00\n--requirement https://host.example/more.txt\n\
                 lib @ git+ssh://git@host.example/lib.git\n--pre\n${WHEELS}/a.whl\n";
    let here = Here::new(&[("requirements.txt", lines)])?;
    let read = here.read("requirements.txt")?;
    assert_eq!(text(&read, "requirements.txt"), lines);
    assert_eq!((read.packages, names(&read)), (9, vec!["requirements.txt"]));
    assert_eq!(read.index.as_deref(), Some("requirements.txt, line 5"));
    Ok(())
}

#[test]
fn options_get_a_line_each_and_lines_keep_their_numbers() -> anyhow::Result<()> {
    let lines = "# -*- coding: latin-1 -*-\n-i 'https://a.example/s' --extra-index-url=https://b.example/s  # both\nsix==1 \\\n    --hash=sha256:00 \\\n    \
                 --hash=sha256:01\n-f wheels --no-index\n--use-feature 'a b'\nrich\n";
    let here = Here::new(&[("requirements.txt", lines), ("wheels/a-1-py3-none-any.whl", "a")])?;
    let read = here.read("requirements.txt")?;
    assert_eq!(
        text(&read, "requirements.txt"),
        "\n--index-url https://a.example/s\n--extra-index-url https://b.example/s\nsix==1     --hash=sha256:00     --hash=sha256:01\n\n\n\
         --find-links ./links-1\n--no-index\n--use-feature 'a b'\nrich\n"
    );
    assert_eq!(read.packages, 2);
    let here = Here::new(&[("requirements.txt", "-r https://host.example/more.txt\n")])?;
    assert_eq!(here.read("requirements.txt")?.packages, 1, "what it names is installed");
    Ok(())
}

#[test]
fn a_list_is_read_in_every_encoding_and_sent_as_utf_8() -> anyhow::Result<()> {
    let here = Here::new(&[("requirements.txt", "-r more.txt\n")])?;
    for bytes in crate::text::in_each_encoding("six  # größer\r\nrich\r\n") {
        fs::write(here.0.path().join("more.txt"), bytes)?;
        let read = here.read("requirements.txt")?;
        assert_eq!((read.packages, text(&read, "list-1.txt").as_str()), (2, "six  # größer\nrich\n"));
    }
    fs::write(here.0.path().join("more.txt"), b"six\n\xe9\n")?;
    let error = here.read("requirements.txt").expect_err("Latin-1").to_string();
    assert!(
        error.contains("more.txt: line 2 is not text") && error.contains("--no-requirements"),
        "{error}"
    );
    Ok(())
}

#[test]
fn what_lines_name_goes_along_and_the_lines_follow() -> anyhow::Result<()> {
    let here = Here::new(&[
        (
            "app/requirements.txt",
            "-r more/base.txt\n--constraint=../limits.txt\n./wheels/a-1-py3-none-any.whl[fast] ; python_version > '3'\nb @ file://HERE/b-1.tar.gz\n\
             wheels/a-1-py3-none-any.whl\nc\n-f wheels\n",
        ),
        ("app/more/base.txt", "d\n-r ../requirements.txt\n"),
        ("limits.txt", "d<2\ne<3\n"),
        ("app/wheels/a-1-py3-none-any.whl", "a"),
        ("app/wheels/readme.md", "not an archive"),
        ("b-1.tar.gz", "b"),
    ])?;
    let file = here.0.path().join("app/requirements.txt");
    let said = fs::read_to_string(&file)?.replace("HERE", &here.0.path().display().to_string());
    fs::write(&file, said)?;
    let read = here.read("app/requirements.txt")?;
    assert_eq!(
        text(&read, "requirements.txt"),
        "--requirement list-1.txt\n--constraint list-2.txt\n./archive-3/a-1-py3-none-any.whl[fast] ; python_version > '3'\n\
         b @ file://${RGRID_PACKAGES_DIR}/archive-4/b-1.tar.gz\n./archive-3/a-1-py3-none-any.whl\nc\n--find-links ./links-5\n"
    );
    assert_eq!(text(&read, "list-1.txt"), "d\n--requirement requirements.txt\n");
    assert_eq!(text(&read, "list-2.txt"), "d<2\ne<3\n");
    assert_eq!(
        names(&read),
        [
            "list-1.txt",
            "list-2.txt",
            "archive-3/a-1-py3-none-any.whl",
            "archive-4/b-1.tar.gz",
            "links-5/a-1-py3-none-any.whl",
            "requirements.txt"
        ]
    );
    assert_eq!(read.packages, 5, "constraints name none");
    Ok(())
}

#[test]
fn what_cannot_be_sent_is_said_with_the_line() -> anyhow::Result<()> {
    for (line, expected) in [
        ("-e ../lib", "pip wheel"),
        ("--editable git+https://host.example/lib", "a URL without -e"),
        (".", "the directory `.`"),
        ("./lib", "pip wheel --no-deps ./lib"),
        ("./gone.whl", "is not there"),
        ("-r gone.txt", "is not there"),
        ("--find-links gone", "is not a directory here"),
        ("-f lib/setup.py", "is not a directory here"),
        ("lib/setup.py", "which is not an archive"),
        ("-r a.txt -c b.txt", "another option, of which pip takes one"),
        ("six --index-url https://host.example", "behind a requirement"),
        ("--index-url ./simple", "the index `./simple` of this machine"),
        ("--extra-index-url file:///simple", "the index `file:///simple` of this machine"),
        ("--hash=sha256:00", "without a requirement"),
        ("--no-deps", "which is not an option of a requirements file"),
        ("--index-url", "without a value"),
    ] {
        let here = Here::new(&[("requirements.txt", &format!("six\n{line}\n")), ("lib/setup.py", "")])?;
        let error = here.read("requirements.txt").expect_err(line).to_string();
        assert!(error.starts_with("requirements.txt, line 2"), "{error}");
        assert!(
            error.contains(expected) || (line == "-e ../lib" && error.contains("build a wheel")),
            "{line}: {error}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// A list is refused with a sentence that names its line, or is sent with as many lines as it has; whatever it says, nothing but what is
    /// in its own directory is sent.
    #[test]
    fn any_list_is_refused_or_sent_line_by_line(
        lines in vec(prop_oneof![
            Just("six==1.17.0".to_owned()), Just("-r more.txt".to_owned()), Just("-e .".to_owned()), Just("./lib.whl".to_owned()),
            Just("-c ../../etc/passwd".to_owned()), Just("name @ file:///etc/passwd".to_owned()), Just("--find-links wheels".to_owned()),
            Just("a \\".to_owned()), "[-a-z@=./:;#<>~\"' \\\\]{0,30}",
        ], 0..8),
    ) {
        let text = lines.join("\n");
        let here = Here::new(&[("project/requirements.txt", &text), ("project/more.txt", "rich\n"), ("project/lib.whl", "x")]).expect("files");
        let project = here.0.path().join("project");
        match read(&project.join("requirements.txt"), "requirements.txt", &project) {
            Ok(read) => for (name, content) in &read.files {
                if let Content::Of(path) = content {
                    prop_assert!(path.canonicalize().is_ok_and(|path| path.starts_with(project.canonicalize().expect("it is there"))), "{name}: {path:?}");
                }
            },
            Err(error) => prop_assert!(error.to_string().contains("requirements.txt") || error.to_string().contains("more.txt"), "{error}"),
        }
    }
}

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use bus::{output::manifest::OutputFile, spec::RelPath};
use rustix::fs::FileType;
use store::Files;

use super::*;
use crate::{
    beneath::{self, Stop},
    inputs::{StagedFile, StagedInputs},
};

fn layout(files: &[&str], links: &[(&str, &str)], dirs: &[&str]) -> StagedInputs {
    let staged = StagedFile {
        sha256: bus::ids::Digest::of(b""),
        size: 0,
        modified: None,
        mode: None,
        stamp: None,
    };
    StagedInputs {
        files: files.iter().map(|path| (PathBuf::from(path), staged)).collect::<HashMap<_, _>>(),
        links: links.iter().map(|(path, to)| (PathBuf::from(path), (*to).to_owned())).collect(),
        dirs: dirs.iter().map(PathBuf::from).collect(),
    }
}

fn deleted(found: &FoundOutputs) -> Vec<&str> {
    found.deleted.iter().map(RelPath::as_str).collect()
}

#[test]
fn removed_inputs_are_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let work = dir.path();
    // `left` is as it was; `turned` became a directory, and `linked` a link; of `part` one file is gone.
    for path in ["left", "turned/x", "part/stays"] {
        let path = work.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, "").expect("a file");
    }
    symlink("left", work.join("linked")).expect("a link");
    let staged = layout(
        &["left", "turned", "linked", "part/stays", "part/gone", "inbox/x"],
        &[("old-link", "left"), ("node_modules", "")],
        &["empty/in"],
    );
    let found = find(work, &staged, None, &Stop::default());
    assert_eq!(
        deleted(&found),
        ["empty", "empty/in", "inbox", "inbox/x", "old-link", "part/gone", "turned"]
    );
    let only = ["part".to_owned(), "*.csv".to_owned()];
    let found = find(work, &staged, Some(&only), &Stop::default());
    assert_eq!(
        (deleted(&found), found.unmatched.clone()),
        (vec!["part/gone"], vec!["*.csv".to_owned()])
    );
    assert!(deleted(&find(work, &staged, Some(&[]), &Stop::default())).is_empty());
}

#[test]
fn a_removed_work_directory_removes_no_inputs() {
    let dir = tempfile::tempdir().expect("a directory");
    let staged = layout(&["a", "d/b"], &[], &[]);
    assert!(deleted(&find(&dir.path().join("gone"), &staged, None, &Stop::default())).is_empty());
}

#[test]
fn the_manifest_stays_within_the_size_that_can_be_read() {
    let mut found = FoundOutputs::default();
    let path = "\u{1}".repeat(255);
    let mut listed = 0;
    while found.has_room(&path, ENTRY) {
        listed += 1;
    }
    let output = OutputFile {
        path: path.parse().expect("a path"),
        sha256: bus::ids::Digest::of(b""),
        size: u64::MAX,
        executable: true,
        mode: Some(0o777),
    };
    let one = serde_json::to_vec(&output).expect("JSON").len() + 1;
    assert!(listed * one <= 64 << 20 && listed * one > 48 << 20, "{listed} of {one} bytes");
}

#[tokio::test]
async fn an_unreadable_output_does_not_prevent_others_from_being_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", dir.path().join("store").display());
    let files = Files::open(&url.parse().expect("a store"), None).await.expect("a store");
    let work = dir.path().join("work");
    fs::create_dir(&work).expect("a directory");
    fs::write(work.join("a"), "a").expect("a file");
    fs::write(work.join("b"), "b").expect("a file");
    let found = find(&work, &StagedInputs::default(), None, &Stop::default());
    fs::remove_file(work.join("a")).expect("it is there");
    let kept = found.store(&files).await.expect("the rest is stored");
    assert_eq!(kept.outputs.iter().map(|output| output.path.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(kept.left_out[0].starts_with("a: it cannot be read: "), "{:?}", kept.left_out);
}

#[tokio::test]
async fn pipes_sockets_and_too_deep_files_are_reported_and_do_not_block() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", dir.path().join("store").display());
    let files = Files::open(&url.parse().expect("a store"), None).await.expect("a store");
    let work = dir.path().join("work");
    let name = "n".repeat(250);
    let deep: PathBuf = std::iter::repeat_n(name.as_str(), 11).collect();
    fs::create_dir_all(work.join(&deep)).expect("a directory");
    fs::write(work.join(&deep).join("fits"), "").expect("a file");
    let inner = fs::File::open(work.join(&deep)).expect("a directory");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mkdirat(&inner, &name, mode).expect("a directory");
    let inner = beneath::directory(&inner, Path::new(&name)).expect("a directory");
    rustix::fs::mkdirat(&inner, &name, mode).expect("a directory");
    rustix::fs::mknodat(rustix::fs::CWD, work.join("pipe"), FileType::Fifo, mode, 0).expect("a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(work.join("socket")).expect("a socket");
    fs::write(work.join("turned"), "x").expect("a file");
    let found = find(&work, &StagedInputs::default(), None, &Stop::default());
    // A file that became a pipe since.
    fs::remove_file(work.join("turned")).expect("it is there");
    rustix::fs::mknodat(rustix::fs::CWD, work.join("turned"), FileType::Fifo, mode, 0).expect("a pipe");
    let kept = found.store(&files).await.expect("the rest is stored");
    assert_eq!(kept.outputs.len(), 1);
    assert_eq!(kept.left_out.len(), 4, "{:?}", kept.left_out);
    assert!(
        kept.left_out.iter().any(|sentence| sentence.contains("too deep")),
        "{:?}",
        kept.left_out
    );
}

#[tokio::test]
async fn a_sparse_file_of_terabytes_is_refused_and_a_small_one_is_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", dir.path().join("store").display());
    let files = Files::open(&url.parse().expect("a store"), None).await.expect("a store");
    let work = dir.path().join("work");
    fs::create_dir(&work).expect("a directory");
    for (name, size) in [("some", 64 << 20), ("vast", 3 << 40)] {
        let file = fs::File::create(work.join(name)).expect("a file");
        file.set_len(size).expect("a size");
    }
    let kept = find(&work, &StagedInputs::default(), None, &Stop::default());
    let kept = kept.store(&files).await.expect("the rest is stored");
    assert_eq!(kept.outputs[0].sha256, bus::ids::Digest::of(&vec![0; 64 << 20]));
    assert_eq!(kept.left_out.len(), 1);
    assert!(
        kept.left_out[0].starts_with("vast: it is 3072 GiB, nearly all of it holes"),
        "{:?}",
        kept.left_out
    );
}

#[test]
fn files_that_are_mounted_in_a_work_directory_are_not_outputs() {
    let dir = tempfile::tempdir().expect("a directory");
    let (work, data) = (dir.path().join("1/work"), dir.path().join("data"));
    fs::create_dir_all(work.join("mnt")).expect("a directory");
    fs::write(work.join("made"), "").expect("a file");
    fs::create_dir(&data).expect("a directory");
    fs::write(data.join("precious"), "data").expect("a file");
    let staged = layout(&["mnt/input", "gone"], &[], &[]);
    let Some(mounted) = beneath::Mounted::bind(&data, &work.join("mnt")) else {
        return;
    };
    let found = find(&work, &staged, None, &Stop::default());
    assert_eq!(found.candidates.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["made"]);
    assert_eq!(found.left_out.sentences, [format!("mnt: {MOUNTED}")]);
    assert_eq!(deleted(&found), ["gone"]);
    drop(mounted);
    let Some(_over) = beneath::Mounted::bind(&data, &work) else {
        return;
    };
    let found = find(&work, &staged, None, &Stop::default());
    assert!(found.candidates.is_empty() && deleted(&found).is_empty());
    assert_eq!(found.left_out.sentences, [format!(".: {MOUNTED}")]);
}

#[test]
fn sentences_are_bounded() {
    let mut left_out = LeftOut::default();
    (0..1_000).for_each(|number| left_out.push(number.to_string()));
    let sentences = left_out.into_sentences();
    assert_eq!(sentences.len(), SENTENCES + 1);
    assert_eq!(sentences.last().map(String::as_str), Some("and 950 more could not be kept"));
}

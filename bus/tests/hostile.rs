//! What comes from outside may be anything. Each decoder of it either refuses damaged bytes, or reads them as something that it would
//! also write; it never panics, and what it lets through keeps its promises.

use std::{fs, sync::LazyLock};

use bus::{
    batch::BatchEvent,
    envelope::{Envelope, Event},
    grid::{
        image::ImageEvent,
        runtimes::RuntimesEvent,
        secrets::{self, Key},
    },
    ids::{Namespace, Token},
    job::JobEvent,
    output::{
        frame::{Frame, Stream},
        patterns,
    },
    spec::{
        submission::{MAX_SPEC_BYTES, parse},
        tree::Tree,
    },
    worker::WorkerEvent,
};
use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*, sample::Index};

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Damage {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Truncate(Index),
    /// A stretch of it once more, elsewhere.
    Repeat(Index, Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    // Bytes that mean something to JSON, and any others.
    let byte = || prop_oneof![any::<u8>(), proptest::sample::select(br#"{}[]",:\0-9.eE"#.to_vec())];
    prop_oneof![
        4 => (at(), byte()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        3 => (at(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        3 => at().prop_map(Damage::Remove),
        1 => at().prop_map(Damage::Truncate),
        2 => (at(), at(), at()).prop_map(|(from, to, at)| Damage::Repeat(from, to, at)),
    ]
}

fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let len = bytes.len() + 1;
        match damage {
            Damage::Replace(at, byte) => {
                if let Some(place) = bytes.get_mut(at.index(len)) {
                    *place = *byte;
                }
            }
            Damage::Insert(at, byte) => bytes.insert(at.index(len), *byte),
            Damage::Remove(at) => {
                let at = at.index(len);
                if at < bytes.len() {
                    bytes.remove(at);
                }
            }
            Damage::Truncate(at) => bytes.truncate(at.index(len)),
            Damage::Repeat(from, to, at) => {
                let (from, to, at) = (from.index(len), to.index(len), at.index(len));
                let stretch = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(at..at, stretch);
            }
        }
    }
    bytes
}

/// Every event that was ever stored: its type, and its bytes.
static EVENTS: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).expect("the fixtures are there");
    let mut events: Vec<_> = files
        .map(|entry| entry.expect("a file").path())
        .map(|path| {
            (
                path.file_stem().expect("a name").to_string_lossy().into_owned(),
                fs::read(&path).expect("readable"),
            )
        })
        .collect();
    events.sort();
    events
});

/// What is read is written as what is read again.
fn reads_back<E: Event + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(event) = Envelope::<E>::from_json(bytes) {
        let again = Envelope::<E>::from_json(&event.to_json());
        prop_assert_eq!(again.ok(), Some(event));
    }
    Ok(())
}

const SUBMISSION: &str = r#"{"command":["report.py","--all"],"runtime":"python:3.12","name":"weekly",
    "inputs":[{"path":"data/a.csv","sha256":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5,"mode":420}],
    "files":[{"path":"report.py","content":"print(1)","executable":true}],"env":{"A":"b"},"secrets":{"TOKEN":"api-token"},
    "resources":{"cpu_milli":500,"memory_bytes":268435456},"timeout_ms":60000,"retry":{"max":3,"on":[75],"backoff_ms":10},
    "outputs":["out/**/*.csv"],"start":{"delay_ms":5},"queue":"night","priority":"high","labels":{"team":"a"},"key":"k-1","dir":"data"}"#;

const TREE: &str = r#"{"files":[{"path":"a/b.txt","sha256":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5}],
    "links":[{"path":"a/l","target":"../c/d"},{"path":"m","target":"a"}],"dirs":["c","c/d"]}"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_event_is_refused_or_is_what_it_would_be_written_as(which in any::<Index>(), damages in vec(damage(), 0..6)) {
        let (name, bytes) = which.get(&EVENTS);
        let bytes = damaged(bytes, &damages);
        match name.split('.').next() {
            Some("job") => reads_back::<JobEvent>(&bytes)?,
            Some("batch") => reads_back::<BatchEvent>(&bytes)?,
            Some("image") => reads_back::<ImageEvent>(&bytes)?,
            Some("runtimes") => reads_back::<RuntimesEvent>(&bytes)?,
            _ => reads_back::<WorkerEvent>(&bytes)?,
        }
    }

    #[test]
    fn a_submission_that_is_accepted_is_within_its_bounds(damages in vec(damage(), 0..6)) {
        let Ok(submission) = parse(&damaged(SUBMISSION.as_bytes(), &damages)) else { return Ok(()) };
        let Ok(accepted) = submission.accept() else { return Ok(()) };
        prop_assert!(accepted.bytes <= MAX_SPEC_BYTES);
        prop_assert!(!accepted.spec.command.is_empty());
        for input in &accepted.spec.inputs {
            let path = std::path::Path::new(input.path.as_str());
            prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{}", path.display());
        }
    }

    #[test]
    fn a_tree_that_is_read_stays_inside(damages in vec(damage(), 0..6)) {
        let Ok(tree) = Tree::read(&damaged(TREE.as_bytes(), &damages), &[]) else { return Ok(()) };
        for link in &tree.links {
            prop_assert!(link.leads_to().is_some(), "{link:?}");
        }
        let (json, reference) = tree.to_json();
        prop_assert_eq!(json.len() as u64, reference.size);
        prop_assert_eq!(Tree::read(&json, &[]).ok(), Some(tree));
    }

    #[test]
    fn frames_are_read_the_same_in_any_pieces(damages in vec(damage(), 0..4), cuts in vec(any::<Index>(), 0..6)) {
        let mut written = BytesMut::new();
        for (stream, text) in [(Stream::Stdout, "one\n"), (Stream::Stderr, ""), (Stream::Stdout, "a longer piece of output")] {
            Frame { stream, time_us: 7, bytes: Bytes::from_static(text.as_bytes()) }.write(&mut written);
        }
        let bytes = Bytes::from(damaged(&written, &damages));
        let mut whole = (Vec::new(), bytes.clone());
        while let Ok(Some(frame)) = Frame::read(&mut whole.1) {
            whole.0.push(frame);
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let (mut frames, mut held) = (Vec::new(), BytesMut::new());
        for ends in cuts.windows(2) {
            held.extend_from_slice(&bytes[ends[0]..ends[1]]);
            let mut buffer = held.clone().freeze();
            while let Ok(Some(frame)) = Frame::read(&mut buffer) {
                frames.push(frame);
            }
            held = BytesMut::from(&buffer[..]);
        }
        prop_assert_eq!(frames, whole.0);
    }

    #[test]
    fn a_sealed_secret_opens_as_it_was_or_not_at_all(damages in vec(damage(), 1..4), value in "[ -~]{8,40}") {
        let (key, namespace, name): (_, Namespace, Token) = (Key::generate(), "default".parse().expect("a name"), "token".parse().expect("a name"));
        let sealed = secrets::seal(&key.public(), &namespace, &name, &value).expect("it can be sealed");
        let Ok(text) = String::from_utf8(damaged(sealed.as_bytes(), &damages)) else { return Ok(()) };
        if let Ok(opened) = secrets::open(&key, &namespace, &name, &text) {
            prop_assert_eq!(opened, value);
        }
    }

    #[test]
    fn a_pattern_is_refused_or_names_something(pattern in r"[a-z*?\[\]{},!/\\. -]{0,40}") {
        if let Ok(globs) = patterns::globs(&pattern) {
            prop_assert!(!globs.is_empty());
        }
    }
}

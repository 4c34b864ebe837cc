use std::time::Duration;

use bus::{
    envelope::{Actor, Envelope},
    grid::image::{ImageEvent, ImagePushed, ImageRemoved},
    ids::{Attempt, SessionId, default_token},
    job::{CancelRequested, Cancelled, Claimed, Died, Finished, LossCause, ManifestRef, Outcome, Requeued, Submitted, Usage},
    spec::{InputFile, tree::TreeRef},
    subjects,
};

use super::*;
use crate::storage::retention::Retention;

const NOW: i64 = 1_000_000;

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

struct Log {
    fold: Fold,
    at: Moment,
    sequence: u64,
    job: JobId,
    session: SessionId,
}

impl Log {
    fn new(inputs: i64, outputs: Option<i64>) -> Self {
        let span = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let retention = Retention {
            inputs: span(inputs),
            outputs: outputs.map(span),
            packages: Retention::PACKAGES,
            despite_lost: false,
        };
        Self {
            fold: Fold::default(),
            at: Moment { retention, now: time(NOW) },
            sequence: 0,
            job: JobId::new(),
            session: SessionId::new(),
        }
    }

    fn say(&mut self, at: i64, actor: &Actor, event: JobEvent) {
        let namespace = default_token();
        let subject = match &event {
            JobEvent::Submitted(_) | JobEvent::Requeued(_) => {
                subjects::job_ready(&namespace, self.job, &namespace, bus::spec::Class::ALL[0])
            }
            _ => subjects::job_by(&namespace, self.job, actor),
        };
        let mut envelope = Envelope::new(actor.clone(), event);
        envelope.time = time(at);
        self.sequence += 1;
        self.fold.take(&subject, self.sequence, &envelope.to_json(), time(at));
    }

    fn submit(&mut self, at: i64) {
        let event = JobEvent::Submitted(Box::new(Submitted { spec: spec() }));
        self.say(at, &Actor::Api, event);
    }

    fn worker(&self) -> Actor {
        Actor::Worker(default_token())
    }

    fn claim(&mut self, at: i64) {
        let event = JobEvent::Claimed(Claimed {
            attempt: Attempt::FIRST,
            worker: default_token(),
            session: self.session,
        });
        self.say(at, &self.worker(), event);
    }

    fn finish(&mut self, at: i64, retry_after_ms: Option<u64>) {
        let event = JobEvent::Finished(Box::new(Finished {
            attempt: Attempt::FIRST,
            session: self.session,
            outcome: Outcome::Succeeded,
            manifest: Some(ManifestRef {
                sha256: digest("manifest"),
                files: 1,
                links: 0,
                bytes: 7,
                stdout_bytes: 2,
                stderr_bytes: 1,
                deleted: 0,
                notes: 0,
            }),
            usage: Usage::default(),
            retry_after_ms,
        }));
        self.say(at, &self.worker(), event);
    }

    fn live(&self) -> HashSet<Digest> {
        self.fold.live().flat_map(|inputs| inputs.contents.iter().copied()).collect()
    }

    fn ended(&self) -> usize {
        self.fold.ended(&self.at).count()
    }
}

fn spec() -> JobSpec {
    JobSpec {
        inputs: vec![InputFile {
            path: "a".parse().expect("a path"),
            sha256: digest("input"),
            size: 5,
            executable: false,
            mode: None,
            modified_ms: None,
        }],
        tree: Some(TreeRef {
            sha256: digest("tree"),
            size: 1,
            files: 1,
            bytes: 1,
        }),
        ..JobSpec::new(vec!["x".to_owned()])
    }
}

#[test]
fn inputs_are_in_use_until_the_end_and_kept_for_a_time_after_it() {
    for (ended, kept) in [(NOW - 50, 2), (NOW - 150, 0)] {
        let mut log = Log::new(100, None);
        log.submit(NOW - 900);
        assert_eq!(log.live(), HashSet::from([digest("input"), digest("tree")]));
        assert_eq!(
            log.fold.live().flat_map(|inputs| inputs.trees.to_vec()).collect::<Vec<_>>(),
            [digest("tree")]
        );
        assert_eq!(log.fold.oldest_claim(), None);
        log.claim(NOW - 800);
        assert_eq!(log.fold.oldest_claim(), Some((log.job, time(NOW - 800))));
        log.finish(ended, None);
        assert_eq!((log.live().len(), log.ended(), log.fold.oldest_claim()), (0, kept, None), "{ended}");
        let trees = log.fold.ended(&log.at).filter(|(_, tree)| *tree);
        assert_eq!(trees.map(|(digest, _)| digest).collect::<Vec<_>>(), vec![digest("tree"); kept / 2]);
    }
}

#[test]
fn outputs_are_kept_as_the_job_or_the_grid_says_and_those_of_a_failed_try_not_at_all() {
    for (grid, own, ended, retried, keeps) in [
        (None, None, NOW - 10_000, None, true),
        (Some(100), None, NOW - 99, None, true),
        (Some(100), None, NOW - 100, None, false),
        (Some(100), Some(200_000), NOW - 150, None, true),
        (None, Some(100_000), NOW - 150, None, false),
        (None, None, NOW - 1, Some(5), false),
    ] {
        let mut log = Log::new(0, grid);
        let spec = JobSpec {
            keep_outputs_ms: own,
            ..spec()
        };
        log.say(NOW - 20_000, &Actor::Api, JobEvent::Submitted(Box::new(Submitted { spec })));
        log.claim(NOW - 20_000);
        log.finish(ended, retried);
        let left = log.fold.left[0];
        assert_eq!((left.manifest, left.log), (digest("manifest"), 3));
        assert_eq!(log.fold.keeps(&left, &log.at), keeps, "{grid:?} {own:?} {ended} {retried:?}");
        assert_eq!(log.live().is_empty(), retried.is_none());
    }
}

#[test]
fn a_word_that_its_speaker_may_not_say_ends_nothing() {
    let mut log = Log::new(0, None);
    log.submit(NOW - 10);
    log.say(NOW - 9, &log.worker(), JobEvent::Cancelled(Cancelled { reason: None }));
    log.finish(NOW - 8, None);
    assert_eq!(log.live().len(), 2, "it has not ended, and nobody has it");
    log.say(NOW - 7, &Actor::Api, JobEvent::CancelRequested(CancelRequested { reason: None }));
    log.say(NOW - 6, &Actor::Api, JobEvent::Cancelled(Cancelled { reason: None }));
    assert!(log.live().is_empty());
}

#[test]
fn a_requeued_job_is_in_use_again() {
    let mut log = Log::new(5, None);
    log.submit(NOW - 900);
    log.claim(NOW - 800);
    let died = Died {
        attempt: Attempt::FIRST,
        cause: LossCause::WorkerLost { worker: default_token() },
    };
    log.say(NOW - 700, &Actor::Watcher, JobEvent::Died(died));
    assert_eq!((log.live().len(), log.ended()), (0, 0));
    let requeued = Requeued {
        attempt: Attempt::FIRST.next(),
        spec: spec(),
        reason: None,
    };
    log.say(NOW - 1, &Actor::Api, JobEvent::Requeued(Box::new(requeued)));
    assert_eq!((log.live().len(), log.fold.oldest_claim()), (2, None));
}

#[test]
fn what_cannot_be_read_and_what_is_not_known_keeps_what_it_names() {
    let mut log = Log::new(0, None);
    let job = subjects::job_by(&default_token(), log.job, &Actor::Api);
    let text = |name: &str| format!(r#"{{"type":"job.submitted.v9","x":"{}"}}"#, digest(name)).into_bytes();
    log.fold.take(&job, 1, &text("odd"), time(1));
    log.fold.take("rgrid.evt.sys.thing.a", 2, &text("image 1"), time(1));
    log.fold.take("rgrid.evt.sys.thing.b", 3, &text("image 2"), time(1));
    log.fold.take("rgrid.evt.sys.thing.a", 4, &text("image 3"), time(1));
    log.fold.take("rgrid.evt.sys.thing.b", 5, b"{}", time(1));
    assert_eq!(log.fold.odd, HashSet::from([digest("odd")]));
    assert_eq!(log.fold.named().collect::<Vec<_>>(), [digest("image 3")]);
}

#[test]
fn an_image_keeps_its_archive_until_it_is_removed() {
    let mut log = Log::new(0, None);
    let subject = subjects::image(&"science:2".parse().expect("a name"));
    let pushed = ImageEvent::Pushed(ImagePushed {
        archive: digest("archive"),
        archive_bytes: 1,
        id: "sha256:x".to_owned(),
        size: 1,
        platform: "linux/amd64".to_owned(),
        by: None,
    });
    let events = [(pushed, 1), (ImageEvent::Removed(ImageRemoved::default()), 0)];
    for (sequence, (event, named)) in (1..).zip(events) {
        log.fold
            .take(&subject, sequence, &Envelope::new(Actor::Api, event).to_json(), time(1));
        assert_eq!((log.fold.named().count(), log.fold.odd.len()), (named, 0));
    }
}

#[test]
fn a_hash_is_found_wherever_it_stands_and_nothing_else_is() {
    let (a, b) = (digest("a").to_string(), digest("b").to_string());
    let text = format!("{a}:\"{b}\" {a}0 x{} sha256:{a}", &b[1..]);
    let found: Vec<Digest> = digests_in(text.as_bytes()).collect();
    assert_eq!(found, [digest("a"), digest("b"), digest("a")]);
    assert_eq!(digests_in(&[b'a'; 65]).count(), 0);
    assert_eq!(digests_in(&[b'g'; 64]).count(), 0);
}

#[test]
fn an_event_that_changes_nothing_takes_nothing_off_a_job() {
    let mut log = Log::new(0, None);
    log.submit(NOW - 10);
    let spec = Box::new(Submitted {
        spec: JobSpec::new(vec!["other".to_owned()]),
    });
    log.say(NOW - 9, &Actor::Api, JobEvent::Submitted(spec));
    assert_eq!(log.live(), HashSet::from([digest("input"), digest("tree")]));
}

#[test]
fn what_is_forgotten_is_known_to_be() {
    let mut log = Log::new(100, None);
    log.submit(NOW - 900);
    log.claim(NOW - 800);
    log.finish(NOW - 150, None);
    let at = |seconds: u64| Moment {
        retention: Retention {
            inputs: Duration::from_secs(seconds),
            ..log.at.retention
        },
        ..log.at
    };
    let longer = at(200);
    assert!(log.fold.suffices(&longer) && log.fold.ended(&longer).count() == 2);
    log.fold.forget(log.at.inputs_horizon());
    assert!(log.fold.suffices(&log.at) && log.fold.suffices(&at(0)));
    assert!(!log.fold.suffices(&longer), "what would be kept so long is not there any more");
    assert!(!log.fold.suffices(&at(u64::MAX)));
    let again = read_back(&log.fold);
    assert!(!again.suffices(&longer) && again.suffices(&log.at));
}

fn text(fold: &Fold) -> Vec<u8> {
    let mut text = Vec::new();
    fold.write(&mut text).expect("memory");
    text
}

fn read_back(fold: &Fold) -> Fold {
    Fold::read(&text(fold)[..]).expect("it is whole")
}

/// A log that holds every kind of event, one in a line: its sequence, its subject, and the event.
const EVERY_KIND: &str = include_str!("../../../../watcher/fixtures/log.txt");

#[test]
fn wherever_a_checkpoint_was_taken_the_rest_makes_the_same_of_it() {
    let mut lines: Vec<(String, String)> = EVERY_KIND
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.split_once(' '))
        .map(|(subject, event)| (subject.to_owned(), event.to_owned()))
        .collect();
    // Jobs of its own name contents; they are mixed in.
    let name = |n: usize| format!(r#"{{"x":"{}"}}"#, digest(&n.to_string()));
    for (n, line) in lines.clone().into_iter().enumerate().rev() {
        let (subject, event) = line;
        let named = event.replacen(r#""command":["true"]"#, &format!(r#""command":["{}"]"#, digest(&n.to_string())), 1);
        lines[n] = (subject, named);
        lines.insert(n, (format!("rgrid.evt.sys.thing.{}", n % 5), name(n)));
        lines.insert(n, ("rgrid.evt.sys.worker.a".to_owned(), name(n + 1_000)));
    }
    let take = |fold: &mut Fold, from: usize, to: usize| {
        for (n, (subject, event)) in lines.iter().enumerate().take(to).skip(from) {
            fold.take(subject, n as u64 + 1, event.as_bytes(), time(n as i64));
        }
    };
    let mut whole = Fold::default();
    take(&mut whole, 0, lines.len());
    assert!(
        whole.live.len() > 2 && whole.ended.len() > 3 && whole.named.len() == 5 && whole.odd.len() > 9,
        "{whole:?}"
    );
    for cut in 0..=lines.len() {
        let mut fold = Fold::default();
        take(&mut fold, 0, cut);
        let mut fold = read_back(&fold);
        take(&mut fold, cut, lines.len());
        assert_eq!(String::from_utf8(text(&fold)), String::from_utf8(text(&whole)), "cut at {cut}");
    }
}

#[test]
fn a_text_that_is_not_whole_is_not_read() {
    let mut log = Log::new(100, None);
    log.submit(NOW - 900);
    log.claim(NOW - 800);
    log.finish(NOW - 150, Some(5));
    let text = text(&log.fold);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    assert!(lines.len() > 4);
    for n in 0..lines.len() {
        assert!(Fold::read(&lines[..n].concat()[..]).is_err(), "it ends before line {n}");
        let without = [&lines[..n], &lines[n + 1..]].concat().concat();
        assert!(Fold::read(&without[..]).is_err(), "without line {n}");
        let twice = [&lines[..=n], &lines[n..]].concat().concat();
        assert!(Fold::read(&twice[..]).is_err(), "line {n} twice");
    }
    let other = String::from_utf8(text).expect("text").replace(",0,true]}", ",9,true]}");
    assert!(Fold::read(other.as_bytes()).is_err(), "a term that is not there");
}

mod against_the_job;

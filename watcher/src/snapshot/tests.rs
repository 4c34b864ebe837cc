use super::*;
use crate::observation;

fn place() -> Place {
    Place {
        sequence: 7,
        subject: "rgrid.evt.x".to_owned(),
        id: Some("a".to_owned()),
    }
}

#[test]
fn what_is_written_is_read_and_what_is_damaged_is_not() {
    let bytes = written(&Saved::default(), &place(), false, Utc::now()).expect("JSON");
    let (found, _, skipped, saved) = read(&bytes).expect("it is whole");
    assert_eq!((found, skipped, saved), (place(), false, Saved::default()));
    let last = bytes.len() - 1;
    let damaged: [Vec<u8>; 4] = [
        bytes[..last].to_vec(),
        [&bytes[..last], b" "].concat(),
        bytes[..20].to_vec(),
        Vec::new(),
    ];
    for bytes in damaged {
        assert!(matches!(read(&bytes), Err(Error::Damaged(_))));
    }
    let text = String::from_utf8(bytes).expect("text");
    let other = text.replacen(&format!(r#""format":{FORMAT}"#), r#""format":999"#, 1);
    assert!(matches!(read(other.as_bytes()), Err(Error::Format(999))));
    let before = text.replacen(
        &format!(r#""format":{FORMAT}"#),
        &format!(r#""made_by":"{}""#, Digest::of(b"older")),
        1,
    );
    assert!(matches!(read(before.as_bytes()), Err(Error::Format(0))));
}

#[test]
fn only_the_same_program_goes_on_from_what_skipped_something() {
    let bytes = written(&Saved::default(), &place(), true, Utc::now()).expect("JSON");
    assert!(read(&bytes).expect("of this program").2, "the next snapshot tells it as well");
    let other = String::from_utf8(bytes).expect("text");
    let other = other.replacen(&PROGRAM.to_string(), &Digest::of(b"older").to_string(), 1);
    assert!(matches!(read(other.as_bytes()), Err(Error::Skipped)));
}

/// A log that holds every kind of event, one in a line: its sequence, its subject, and the event.
const LOG: &str = include_str!("../../fixtures/log.txt");
/// The snapshot of it, as a watcher of this format writes it.
const WRITTEN: &[u8] = include_bytes!("../../fixtures/snapshot-1.txt");

fn fold(log: &str) -> (State, Place) {
    let now = Instant::now();
    let (mut state, mut place) = (State::new(now), place());
    for line in log.lines() {
        let mut parts = line.splitn(3, ' ');
        let mut part = || parts.next().expect("three parts");
        let (sequence, subject, event) = (part().parse().expect("a sequence"), part(), part());
        let observed = observation::observe(subject, event.as_bytes()).expect("it is readable");
        if let Some(observed) = observed {
            state.fold(sequence, &observed, now);
        }
        (place.sequence, place.subject) = (sequence, subject.to_owned());
    }
    (state, place)
}

/// Fails where what is kept, how it is written, or what an event means was changed: raise `FORMAT` then, and put what this test
/// found into a fixture of that name.
#[test]
fn the_format_is_that_of_the_fixture() {
    assert_eq!(FORMAT, 1, "the fixture is of this format");
    let (state, place) = fold(LOG);
    let written = written(&state.saved(), &place, false, DateTime::UNIX_EPOCH).expect("JSON");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&written), text(WRITTEN));
    // A watcher that is upgraded goes on from it.
    let (found, _, _, saved) = read(WRITTEN).expect("it is readable");
    assert_eq!((found, &saved), (place, &state.saved()));
    assert_eq!(State::restored(saved, Instant::now()).saved(), state.saved());
}

#[test]
fn the_fixture_holds_every_kind_of_event() {
    let kinds = [
        "job.submitted.v1",
        "job.claimed.v1",
        "job.started.v1",
        "job.finished.v1",
        "job.returned.v1",
        "job.rescheduled.v1",
        "job.released.v1",
        "job.requeued.v1",
        "job.cancel_requested.v1",
        "job.cancelled.v1",
        "job.died.v1",
        "job.expired.v1",
        "worker.registered.v1",
        "worker.lost.v1",
        "worker.left.v1",
        "worker.restarting.v1",
        "batch.submitted.v1",
        "batch.sealed.v1",
        "batch.advanced.v1",
        "batch.stopped.v1",
        "batch.cancelled.v1",
    ];
    for kind in kinds {
        assert!(LOG.contains(&format!(r#"{{"type":"{kind}""#)), "{kind}");
    }
}

use super::*;
use crate::{
    envelope::Actor,
    ids::{Digest, default_token},
};

/// A batch that applies its own decisions.
struct Told {
    id: BatchId,
    batch: Option<Batch>,
    sequence: u64,
}

impl Told {
    fn new() -> Self {
        Self {
            id: BatchId::new(),
            batch: None,
            sequence: 0,
        }
    }

    fn apply(&mut self, command: Command) -> Result<(), Rejection> {
        let event = decide(self.batch.as_ref(), command)?;
        self.sequence += 1;
        let recorded = Recorded {
            namespace: default_token(),
            batch: self.id,
            sequence: self.sequence,
            envelope: Envelope::new(Actor::Api, event),
        };
        self.batch = Batch::evolve(self.batch.take(), &recorded);
        assert_eq!(self.batch.as_ref().map(|batch| batch.sequence), Some(self.sequence));
        Ok(())
    }

    fn phase(&self) -> Option<&Phase> {
        self.batch.as_ref().map(|batch| &batch.phase)
    }
}

fn submitted(parallel: Option<u32>) -> BatchSubmitted {
    BatchSubmitted {
        name: "data/*.csv".to_owned(),
        total: 10,
        parallel,
        max_failures: None,
        fail_fast: false,
        retry_of: None,
        sha256: Digest::of(b"all of it"),
    }
}

#[test]
fn a_batch_advances_only_after_it_is_sealed() {
    let advance = || Command::Advance { released: vec![0, 1] };
    let mut told = Told::new();
    assert_eq!(told.apply(advance()), Err(Rejection::Absent));
    told.apply(Command::Submit(submitted(Some(2)))).expect("new");
    assert_eq!(told.apply(advance()), Err(Rejection::NotSealed));
    assert_eq!(told.apply(Command::Submit(submitted(Some(2)))), Err(Rejection::Exists));
    assert_eq!(told.apply(Command::Submit(submitted(Some(3)))), Err(Rejection::Different));
    told.apply(Command::Seal).expect("all there");
    assert_eq!(told.apply(Command::Seal), Err(Rejection::Sealed));
    told.apply(advance()).expect("two slots");
    assert_eq!(told.phase(), Some(&Phase::Sealed));
    told.apply(Command::Stop { failures: 1 }).expect("moving");
    assert_eq!(told.apply(advance()), Err(Rejection::Over));
    told.apply(Command::Cancel { reason: None }).expect("those that run are ended too");
    assert_eq!(told.apply(Command::Cancel { reason: None }), Err(Rejection::Over));
}

#[test]
fn a_batch_without_a_limit_has_no_window() {
    let mut told = Told::new();
    told.apply(Command::Submit(submitted(None))).expect("new");
    told.apply(Command::Seal).expect("all there");
    assert_eq!(told.apply(Command::Advance { released: vec![0] }), Err(Rejection::NoWindow));
    assert!(!told.batch.expect("there").has_limits());
}

#[test]
fn a_members_id_follows_from_its_index() {
    let batch = BatchId::new();
    let members: std::collections::BTreeSet<JobId> = (0..1_000).map(|index| JobId::of_member(batch, index)).collect();
    assert_eq!(members.len(), 1_000);
    assert!(members.contains(&JobId::of_member(batch, 7)));
    assert!(!members.contains(&JobId::of_member(BatchId::new(), 7)));
}

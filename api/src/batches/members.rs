//! The members of a batch, built one page at a time, so that what they share is in memory once.

use std::sync::Arc;

use bus::{
    batch::{BatchMember, MAX_BATCH_BYTES},
    grid::runtimes::RuntimesSet,
    ids::{BatchId, JobId},
    spec::{JobSpec, Refusal, policy::Start, submission::Submission},
};
use model::{Kind, MemberSubmission};

use crate::{error::ApiError, queries::Tables};

/// The most members of a page.
const PAGE: usize = 1_024;
/// The size of a page, in bytes of JSON: one page is being appended at a time.
pub(super) const PAGE_BYTES: u64 = 4 << 20;
/// How many members, and how many bytes of them, are built before other requests may make progress.
const YIELD_AFTER: (usize, u64) = (256, 1 << 20);

/// Where the members of a batch come from.
pub(super) enum Members {
    /// From a request.
    New(Box<NewMembers>),
    /// From an earlier batch, whose members are in the tables.
    Retried(RetriedMembers),
}

/// Members as a request describes them.
pub(super) struct NewMembers {
    pub(super) batch: BatchId,
    /// What all of them share.
    pub(super) shared: Submission,
    pub(super) own: Vec<MemberSubmission>,
    /// The runtimes when the request came: the same for all members, even if they are changed meanwhile.
    pub(super) deployed: Arc<RuntimesSet>,
    /// Whether each waits for a slot of the batch's window.
    pub(super) window: bool,
}

/// Members of an earlier batch that a new batch retries.
pub(super) struct RetriedMembers {
    pub(super) batch: BatchId,
    pub(super) of: BatchId,
    pub(super) failed_only: bool,
    pub(super) tables: Tables,
}

/// Reads the members in their order.
pub(super) struct Reader<'a> {
    members: &'a Members,
    /// The index of the next member.
    next: u32,
    /// The index that the last member had in the earlier batch.
    last: Option<i32>,
}

impl Members {
    /// Reads from the first member on.
    pub(super) const fn read(&self) -> Reader<'_> {
        Reader {
            members: self,
            next: 0,
            last: None,
        }
    }
}

impl Reader<'_> {
    /// The next page of members, and its size in bytes of JSON. Empty after the last member.
    pub(super) async fn page(&mut self) -> Result<(Vec<JobSpec>, u64), ApiError> {
        let (specs, bytes) = match self.members {
            Members::New(members) => members.page(self.next).await?,
            Members::Retried(members) => {
                let (specs, bytes, last) = members.page(self.next, self.last).await?;
                self.last = last;
                (specs, bytes)
            }
        };
        self.next += u32::try_from(specs.len()).unwrap_or(u32::MAX);
        Ok((specs, bytes))
    }
}

impl NewMembers {
    async fn page(&self, from: u32) -> Result<(Vec<JobSpec>, u64), ApiError> {
        let (mut specs, mut bytes, mut turn) = (Vec::new(), 0, 0);
        let own = self.own.iter().zip(0..).skip(from as usize).take(PAGE);
        for (member, index) in own {
            let (spec, size) = self.spec(member, index)?;
            specs.push(spec);
            bytes += size;
            if bytes >= PAGE_BYTES {
                break;
            }
            if specs.len() % YIELD_AFTER.0 == 0 || bytes - turn >= YIELD_AFTER.1 {
                turn = bytes;
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
        Ok((specs, bytes))
    }

    /// The job of a member, and its size in bytes of JSON.
    fn spec(&self, member: &MemberSubmission, index: u32) -> Result<(JobSpec, u64), ApiError> {
        let mut one = self.shared.clone();
        if !member.command.is_empty() {
            one.command.clone_from(&member.command);
        }
        one.inputs.extend(member.inputs.iter().cloned());
        one.tree = member.tree.or(one.tree);
        one.env.extend(member.env.clone());
        let at = |Refusal(why)| {
            ApiError::from(Refusal(format!(
                "member {index} of the batch ({}): {why}",
                member.item.escape_debug()
            )))
        };
        self.deployed.resolve(&mut one).map_err(at)?;
        let accepted = one.accept().map_err(at)?;
        let mut spec = accepted.spec;
        if self.window {
            spec.start = Some(Start {
                window: true,
                ..Start::default()
            });
        }
        spec.batch = Some(BatchMember {
            batch: self.batch,
            index,
            item: member.item.clone(),
            of: None,
        });
        Ok((spec, accepted.bytes as u64))
    }
}

impl RetriedMembers {
    async fn page(&self, from: u32, after: Option<i32>) -> Result<(Vec<JobSpec>, u64, Option<i32>), ApiError> {
        let page = self
            .tables
            .member_specs(self.of, self.failed_only, after, (PAGE, PAGE_BYTES))
            .await?;
        let last = page.last().map_or(after, |member| Some(member.index));
        let bytes = page.iter().map(|member| member.bytes).sum();
        let again = page.into_iter().zip(from..).map(|(member, index)| {
            let mut spec = member.spec;
            let item = spec.batch.take().map_or_else(|| index.to_string(), |member| member.item);
            spec.batch = Some(BatchMember {
                batch: self.batch,
                index,
                item,
                of: Some(JobId::from(member.job)),
            });
            spec
        });
        Ok((again.collect(), bytes, last))
    }
}

/// Refuses a batch whose jobs are too large together.
pub(super) fn check_bytes(bytes: u64, members: u32) -> Result<(), ApiError> {
    if bytes <= MAX_BATCH_BYTES {
        return Ok(());
    }
    let detail = format!(
        "each member is stored as a complete job, and the {members} jobs of this batch have {bytes} bytes or more; a batch may have \
         {MAX_BATCH_BYTES} bytes: put what the members share (variables, arguments, names of inputs) into an input file, or submit several \
         batches"
    );
    Err(ApiError::new(Kind::TooLarge, detail))
}

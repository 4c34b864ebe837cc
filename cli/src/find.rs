//! Which job a user means: an id, a part of one, or the last.

use std::time::Duration;

use anyhow::bail;
use bus::ids::{BatchId, JobId};
use client::Client;
use model::{BatchList, BatchView, JobList, JobView, MemberView, Members, Projection};

use crate::failure::usage;

/// The shortest part of an id that is looked for.
const MIN_PART: usize = 6;
/// Jobs that are looked through for a part of an id, newest first.
const DEPTH: usize = 5_000;
/// The last batch, where `last` is the last job.
const LAST_BATCH: &str = "last-batch";
/// The pause before a job is looked at again where the grid was away.
const AGAIN: Duration = Duration::from_millis(500);
/// Jobs that are asked for at once.
const PAGE: usize = 500;

/// The id of the job that a user names: as it is, by its beginning or end, or `last`.
///
/// # Errors
/// If no job, or more than one, is meant.
pub(crate) async fn find_job(client: &Client, text: &str) -> anyhow::Result<JobId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    if text == "last" {
        return last(client).await;
    }
    let part = text.to_ascii_lowercase();
    if part.len() < MIN_PART || !part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(usage(format!(
            "`{text}` is not a job id; give an id as in `rgrid list`, its first or last {MIN_PART} or more characters, or `last` (for a batch: its whole id, or `last-batch`)"
        )));
    }
    let found = search(client, &part).await?;
    match found.as_slice() {
        [one] => Ok(one.id),
        [] => bail!("no job has an id that begins or ends with `{text}`; see `rgrid list --all`"),
        several => {
            let ids: Vec<String> = several
                .iter()
                .take(5)
                .map(|job| format!("{} ({}, {})", job.id, job.name, job.state))
                .collect();
            bail!(
                "{} jobs have an id that begins or ends with `{text}`; give more characters: {}",
                several.len(),
                ids.join(", ")
            )
        }
    }
}

/// The batch that a user names by its id; nothing where there is none of that id. `last` is the last one.
///
/// # Errors
/// If the grid cannot be asked, or there is no last one.
pub(crate) async fn find_batch(client: &Client, text: &str) -> anyhow::Result<Option<BatchView>> {
    let min_sequence = ("min_sequence", now(client).await?.to_string());
    if matches!(text, "last" | LAST_BATCH) {
        let list: BatchList = client.get("/v1/batches", &[("limit", "1".to_owned()), min_sequence]).await?;
        let last = list.batches.into_iter().next();
        return match last {
            Some(last) => Ok(Some(last)),
            None => bail!("there is no last batch: no batch was submitted yet; submit one with `rgrid run --batch`"),
        };
    }
    let Ok(id) = text.parse::<BatchId>() else { return Ok(None) };
    match client.get(&format!("/v1/batches/{id}"), &[min_sequence]).await {
        Ok(view) => Ok(Some(view)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As [`find_batch`], where nothing but a batch is meant.
///
/// # Errors
/// If there is no such batch.
pub(crate) async fn the_batch(client: &Client, text: &str) -> anyhow::Result<BatchView> {
    let found = find_batch(client, text).await?;
    found.ok_or_else(|| {
        usage(format!(
            "`{text}` is not a batch id; give an id as in `rgrid list --batches`, or `last`"
        ))
    })
}

/// A batch, where its id is given and not a job's, or `last-batch`: `last` is the last job then.
///
/// # Errors
/// If the grid cannot be asked.
pub(crate) async fn batch_by_id(client: &Client, text: &str) -> anyhow::Result<Option<BatchView>> {
    if text == LAST_BATCH || text.parse::<BatchId>().is_ok() {
        find_batch(client, text).await
    } else {
        Ok(None)
    }
}

/// All members of a batch in these states (all, where none is given), in their order.
///
/// # Errors
/// If the grid cannot be asked.
pub(crate) async fn members(client: &Client, batch: BatchId, states: &str) -> Result<Vec<MemberView>, client::Error> {
    let (mut found, mut after) = (Vec::new(), None::<u32>);
    let min_sequence = now(client).await?.to_string();
    loop {
        let mut query = vec![
            ("limit", PAGE.to_string()),
            ("state", states.to_owned()),
            ("min_sequence", min_sequence.clone()),
        ];
        query.extend(after.map(|after| ("after", after.to_string())));
        let page: Members = client.get(&format!("/v1/batches/{batch}/jobs"), &query).await?;
        found.extend(page.members);
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// The sequence that the tables must have reached for a reader to see everything that was said until now.
pub(crate) async fn now(client: &Client) -> Result<u64, client::Error> {
    let projection: Projection = client.get("/v1/projection", &()).await?;
    Ok(projection.last)
}

/// A job, once it has ended. Waits for that over every outage.
///
/// # Errors
/// If the API refuses for good.
pub(crate) async fn until_ended(client: &Client, job: JobId) -> Result<JobView, client::Error> {
    loop {
        let looked: Result<JobView, _> = client.get(&format!("/v1/jobs/{job}"), &[("wait", "30s"), ("until", "end")]).await;
        match looked {
            Ok(view) if view.state.is_end() => return Ok(view),
            Ok(_) => {}
            Err(error) if error.may_pass() => tokio::time::sleep(AGAIN).await,
            Err(error) => return Err(error),
        }
    }
}

async fn last(client: &Client) -> anyhow::Result<JobId> {
    let query = [("limit", "1".to_owned()), ("min_sequence", now(client).await?.to_string())];
    let list: JobList = client.get("/v1/jobs", &query).await?;
    match list.jobs.first() {
        Some(job) => Ok(job.id),
        None => bail!("there is no last job: no job was submitted yet; submit one with `rgrid run`"),
    }
}

async fn search(client: &Client, part: &str) -> anyhow::Result<Vec<JobView>> {
    let mut query = vec![("limit", PAGE.to_string()), ("min_sequence", now(client).await?.to_string())];
    let (mut found, mut seen) = (Vec::new(), 0);
    loop {
        let list: JobList = client.get("/v1/jobs", &query).await?;
        seen += list.jobs.len();
        found.extend(list.jobs.into_iter().filter(|job| is_part(&job.id.to_string(), part)));
        match list.next {
            Some(next) if seen < DEPTH => {
                query.truncate(2);
                query.push(("before", next));
            }
            _ => return Ok(found),
        }
    }
}

fn is_part(id: &str, part: &str) -> bool {
    let plain = id.replace('-', "");
    [id, &plain].iter().any(|id| id.starts_with(part) || id.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_known_by_its_beginning_and_its_end() {
        let id = "0190f3c2-1111-7aaa-8bbb-0123456789ab";
        for (part, is) in [
            ("0190f3", true),
            ("0190f3c2-1111", true),
            ("0190f3c21111", true),
            ("6789ab", true),
            ("0bbb01", false),
            ("f3c211", false),
        ] {
            assert_eq!(is_part(id, part), is, "{part}");
        }
    }
}

//! Checks for jobs that wait although they could run.

use std::{collections::BTreeMap, time::Duration};

use bus::{
    ids::Queue,
    log::{EVENTS, setup::work_consumer_name},
    spec::Class,
};
use model::{Finding, WorkerState, WorkerView};
use serde::Deserialize;
use serde_json::json;

use super::{PATIENCE, count, tables::Known};
use crate::app::App;

/// The pause before a second look: between two pull requests, a healthy runner has none waiting for a moment.
const RECHECK_AFTER: Duration = Duration::from_millis(700);

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    consumers: Vec<Consumer>,
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct Consumer {
    name: String,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    num_waiting: u64,
}

pub(super) async fn look(app: &App, known: &Known) -> Vec<Finding> {
    let mut findings: Vec<Finding> = known.queued.iter().filter_map(|queued| unserved(queued, known)).collect();
    let first = without_pull_requests(app).await;
    if first.is_empty() {
        return findings;
    }
    tokio::time::sleep(RECHECK_AFTER).await;
    let second = without_pull_requests(app).await;
    for (queue, waiting) in second.into_iter().filter(|(queue, _)| first.contains_key(queue)) {
        findings.extend(not_pulled(&queue, waiting, known));
    }
    findings
}

/// Jobs of a queue that no worker serves.
fn unserved((queue, jobs, oldest): &(String, u64, chrono::DateTime<chrono::Utc>), known: &Known) -> Option<Finding> {
    let workers = known.workers.as_deref()?;
    let serving: Vec<&WorkerView> = workers
        .iter()
        .filter(|worker| worker.state == WorkerState::Live && worker.queues.iter().any(|served| served.as_str() == queue))
        .collect();
    if serving.iter().any(|worker| worker.takes_work()) {
        return None;
    }
    let uncordon = serving
        .first()
        .map(|worker| format!(", or uncordon one: `rgrid uncordon {}`", worker.id));
    let wait = if *jobs == 1 { "waits" } else { "wait" };
    Some(
        Finding::warning(
            "queues",
            format!(
                "{} {wait} in queue {queue}, and no worker that takes work serves it",
                count(*jobs, "job")
            ),
            format!("start one: `rgrid runner --queue {queue}`{}", uncordon.unwrap_or_default()),
        )
        .since(Some(*oldest)),
    )
}

/// Jobs that no worker pulls although a worker of their queue is idle; or, if the workers are not known, that no worker pulls.
fn not_pulled(queue: &Queue, waiting: u64, known: &Known) -> Option<Finding> {
    let wait = if waiting == 1 { "waits" } else { "wait" };
    let jobs = format!("{} {wait} in queue {queue}", count(waiting, "job"));
    let Some(workers) = known.workers.as_deref() else {
        let advice = format!("check whether a worker serves the queue and has room: `rgrid runner --queue {queue}`");
        return Some(Finding::warning(
            "queues",
            format!("{jobs}, and no worker pulls from it at this moment"),
            advice,
        ));
    };
    let mut serving = workers
        .iter()
        .filter(|worker| worker.takes_work() && worker.queues.contains(queue))
        .peekable();
    serving.peek()?;
    // A worker that is full does not pull.
    let idle: Vec<String> = serving
        .filter(|worker| worker.running.is_empty())
        .map(|worker| worker.id.to_string())
        .collect();
    (!idle.is_empty()).then(|| {
        Finding::error(
            "queues",
            format!(
                "{jobs}, although the queue is served by workers that are idle and do not pull: {}",
                idle.join(", ")
            ),
            "check whether the jobs fit these workers (`rgrid workers`); if so, read the log of the runner, and restart it",
        )
    })
}

/// The queues with a class in which jobs wait and no pull request does, and how many jobs.
async fn without_pull_requests(app: &App) -> BTreeMap<Queue, u64> {
    let mut queues = BTreeMap::new();
    let mut seen = 0;
    loop {
        let asked = json!({ "offset": seen });
        let page = app.bus.js.request::<_, _, Page>(format!("CONSUMER.LIST.{EVENTS}"), &asked);
        let Ok(Ok(page)) = tokio::time::timeout(PATIENCE, page).await else {
            return queues;
        };
        seen += page.consumers.len();
        let done = page.consumers.is_empty() || seen >= page.total;
        for consumer in page
            .consumers
            .into_iter()
            .filter(|consumer| consumer.num_pending > 0 && consumer.num_waiting == 0)
        {
            if let Some(queue) = queue_of(&consumer.name) {
                *queues.entry(queue).or_insert(0) += consumer.num_pending;
            }
        }
        if done {
            return queues;
        }
    }
}

/// The queue of a work queue's consumer.
fn queue_of(name: &str) -> Option<Queue> {
    let of = |class: Class| {
        let queue = name.strip_prefix("work-")?.strip_suffix(class.token())?.strip_suffix('-')?;
        queue.parse().ok().filter(|queue| work_consumer_name(queue, class) == name)
    };
    Class::ALL.into_iter().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_says_which_queue_it_is_of() {
        let queue: Queue = "night-shift".parse().expect("a queue");
        for class in Class::ALL {
            assert_eq!(queue_of(&work_consumer_name(&queue, class)), Some(queue.clone()));
        }
        for other in ["projector", "work-", "work-normal-s", "intake"] {
            assert_eq!(queue_of(other), None, "{other}");
        }
    }
}

use bus::spec::{Priority, Size};

use super::*;

const GIB: u64 = 1 << 30;

fn room(cpu_milli: u32) -> Room {
    Room {
        cpu_milli,
        memory_bytes: 0,
    }
}

fn machine(cpus: u32) -> Dispatcher {
    Dispatcher::new(
        Room {
            cpu_milli: cpus * 1000,
            memory_bytes: 8 * GIB,
        },
        Class::ALL,
    )
}

fn work_queue(priority: Priority, size: Size) -> usize {
    Class::ALL
        .iter()
        .position(|class| *class == Class { priority, size })
        .expect("every class is a work_queue")
}

fn asked(responses: &[Action]) -> Vec<(usize, usize)> {
    let ask = |response: &Action| match response {
        Action::Ask { work_queue, count } => Some((*work_queue, *count)),
        Action::CountWaiting { .. } => None,
    };
    responses.iter().filter_map(ask).collect()
}

/// A dispatcher whose requests are all out, and for so long without a message that every work queue is known to be empty.
fn settled(cpus: u32, now: Instant) -> Dispatcher {
    let mut dispatcher = machine(cpus);
    for step in 0..4 {
        dispatcher.plan(now - QUIET * (8 - step));
    }
    dispatcher
}

#[test]
fn lower_priorities_are_asked_only_after_higher_ones_are_empty() {
    let (mut dispatcher, now) = (machine(2), Instant::now());
    let first = asked(&dispatcher.plan(now).0);
    assert!(
        first
            .iter()
            .all(|(work_queue, _)| Class::ALL[*work_queue].priority == Priority::High),
        "{first:?}"
    );
    let (second, _) = dispatcher.plan(now + QUIET);
    assert!(
        asked(&second)
            .iter()
            .all(|(work_queue, _)| Class::ALL[*work_queue].priority == Priority::Normal),
        "{second:?}"
    );
}

#[test]
fn an_urgent_job_that_was_handed_back_is_asked_for_first() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let (high, normal) = (work_queue(Priority::High, Size::S), work_queue(Priority::Normal, Size::S));
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(high, room(1000), now), Verdict::NoRoom);
    dispatcher.released(now, room(1000), Some(SHORT));
    let asks = asked(&dispatcher.plan(now).0);
    assert!(
        asks.iter()
            .all(|(work_queue, _)| Class::ALL[*work_queue].priority == Priority::High),
        "{asks:?}"
    );
}

#[test]
fn a_known_backlog_is_asked_at_once_when_a_slot_is_freed() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let normal = work_queue(Priority::Normal, Size::S);
    dispatcher.delivered(normal, room(1000), now);
    dispatcher.delivered(normal, room(1000), now);
    assert!(asked(&dispatcher.plan(now).0).is_empty(), "nothing is free");
    dispatcher.released(now, room(1000), Some(SHORT));
    assert!(asked(&dispatcher.plan(now).0).contains(&(normal, 1)));
}

#[test]
fn a_job_that_does_not_fit_now_differs_from_one_that_is_too_large() {
    let (mut dispatcher, now) = (machine(2), Instant::now());
    assert_eq!(dispatcher.delivered(0, room(2001), now), Verdict::TooBig);
    assert_eq!(dispatcher.delivered(0, room(1500), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(0, room(600), now), Verdict::NoRoom);
    dispatcher.released(now, room(1500), Some(SHORT));
    assert_eq!(dispatcher.free().cpu_milli, 2000);
}

#[test]
fn small_jobs_are_asked_for_in_large_portions() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let normal = work_queue(Priority::Normal, Size::S);
    let mut most = 0;
    for _ in 0..MOST {
        dispatcher.delivered(normal, room(10), now);
        let asks = asked(&dispatcher.plan(now).0);
        most = most.max(
            asks.iter()
                .find(|(work_queue, _)| *work_queue == normal)
                .map_or(0, |(_, count)| *count),
        );
    }
    assert!(most > 20, "at most {most} at once");
}

#[test]
fn a_quiet_class_is_asked_for_one_job_and_each_delivery_allows_one_more() {
    let now = Instant::now();
    let mut dispatcher = settled(8, now);
    let normal = work_queue(Priority::Normal, Size::S);
    assert_eq!(dispatcher.work_queues[normal].outstanding, 1);
    let mut counts = Vec::new();
    for _ in 0..8 {
        assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
        counts.extend(
            asked(&dispatcher.plan(now).0)
                .into_iter()
                .filter(|(work_queue, _)| *work_queue == normal),
        );
    }
    let at_once: Vec<usize> = counts.into_iter().map(|(_, count)| count).collect();
    assert_eq!(at_once.first(), Some(&2), "{at_once:?}");
    assert_eq!(at_once.iter().sum::<usize>(), 7, "all eight CPUs have work: {at_once:?}");
    // After a request without a message, the portion is one again.
    for _ in 0..8 {
        dispatcher.released(now, room(1000), Some(Duration::from_secs(1)));
    }
    dispatcher.ended(normal, 1);
    assert!(asked(&dispatcher.plan(now).0).contains(&(normal, 1)));
}

#[test]
fn half_a_free_cpu_is_offered_by_recent_sizes_or_for_one_job() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let (small, medium) = (work_queue(Priority::Normal, Size::S), work_queue(Priority::Normal, Size::M));
    assert_eq!(dispatcher.delivered(medium, room(1500), now), Verdict::Run);
    let asks = asked(&dispatcher.plan(now).0);
    assert!(
        !asks.iter().any(|(work_queue, _)| *work_queue == medium),
        "no job of that class fits: {asks:?}"
    );
    // The sizes of small jobs are not known: the request is out, and the job that arrives is too large.
    assert_eq!(dispatcher.work_queues[small].outstanding, 1);
    assert_eq!(dispatcher.delivered(small, room(1000), now), Verdict::NoRoom);
    assert!(!asked(&dispatcher.plan(now).0).iter().any(|(work_queue, _)| *work_queue == small));
    // Later, it is tried again; and jobs that need half a CPU get it, one after the other.
    let later = now + REMEMBERED;
    assert!(asked(&dispatcher.plan(later).0).contains(&(small, 1)));
    for _ in 0..3 {
        assert_eq!(dispatcher.delivered(small, room(500), later), Verdict::Run);
        dispatcher.released(later, room(500), Some(Duration::from_secs(1)));
        assert!(asked(&dispatcher.plan(later).0).contains(&(small, 1)));
    }
}

#[test]
fn short_attempts_are_prefetched_and_long_ones_are_not() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let normal = work_queue(Priority::Normal, Size::S);
    for _ in 0..2 {
        assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    }
    assert_eq!(
        dispatcher.delivered(normal, room(1000), now),
        Verdict::NoRoom,
        "nothing is known of how long they take"
    );
    for _ in 0..2 {
        dispatcher.released(now, room(1000), Some(Duration::from_millis(1)));
        assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    }
    assert!(
        asked(&dispatcher.plan(now).0).contains(&(normal, 2)),
        "as many as ended lately are asked for ahead"
    );
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Prefetch);
    assert!(!dispatcher.prefetched_fits(room(1000)));
    dispatcher.released(now, room(1000), Some(Duration::from_millis(1)));
    assert!(dispatcher.prefetched_fits(room(1000)));
    for _ in 0..40 {
        dispatcher.released(now, Room::default(), Some(Duration::from_secs(10)));
    }
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::NoRoom);
}

#[test]
fn no_more_jobs_are_prefetched_than_get_a_slot_in_time() {
    let start = Instant::now();
    let mut dispatcher = settled(16, start);
    let (small, big) = (work_queue(Priority::Normal, Size::S), work_queue(Priority::Normal, Size::L));
    for _ in 0..16 {
        assert_eq!(dispatcher.delivered(small, room(1000), start), Verdict::Run);
    }
    // Fifteen attempts are long; on the core that is left, one after the other ends after 40 ms.
    let took = Duration::from_millis(40);
    for number in 1..50 {
        let now = start + took * number;
        dispatcher.released(now, room(1000), Some(took));
        assert_eq!(dispatcher.delivered(small, room(1000), now), Verdict::Run);
        let ahead = asked(&dispatcher.plan(now).0);
        let most = usize::try_from(PREFETCHED_MAX.as_millis() / took.as_millis()).expect("few");
        assert!(
            ahead.iter().all(|(work_queue, count)| *work_queue == small && *count <= most),
            "{ahead:?}"
        );
        // A job that needs more than one core gets no slot from an attempt that ends there.
        assert_eq!(dispatcher.delivered(big, room(2000), now), Verdict::NoRoom);
        dispatcher.requests_are_lost();
    }
    // After that, no further slots are expected.
    let later = start + took * 50 + PACE;
    assert_eq!(dispatcher.delivered(small, room(1000), later), Verdict::NoRoom);
}

#[test]
fn an_unused_slot_does_not_count_for_the_pace() {
    let now = Instant::now();
    let mut dispatcher = settled(1, now);
    let normal = work_queue(Priority::Normal, Size::S);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    dispatcher.released(now, room(1000), None);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::NoRoom);
}

#[test]
fn after_a_prefetched_job_expired_none_is_prefetched_until_an_attempt_ends() {
    let now = Instant::now();
    let mut dispatcher = settled(1, now);
    let normal = work_queue(Priority::Normal, Size::S);
    let short = |dispatcher: &mut Dispatcher| dispatcher.released(now, room(1000), Some(Duration::from_millis(1)));
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    short(&mut dispatcher);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Prefetch);
    dispatcher.prefetched_expired();
    dispatcher.ended(normal, usize::MAX);
    assert!(asked(&dispatcher.plan(now).0).is_empty(), "nothing is asked for ahead");
    assert_eq!(
        dispatcher.delivered(normal, room(1000), now),
        Verdict::NoRoom,
        "it was asked for before"
    );
    short(&mut dispatcher);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Prefetch);
}

#[test]
fn a_large_job_gets_its_room_in_bounded_time() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let (small, big) = (work_queue(Priority::Normal, Size::S), work_queue(Priority::Normal, Size::M));
    dispatcher.delivered(small, room(1000), now);
    for index in 0..Class::ALL.len() {
        dispatcher.ended(index, usize::MAX);
    }
    // It is tried with the present room, which is too little, and is handed back.
    assert!(asked(&dispatcher.plan(now).0).contains(&(big, 1)));
    assert_eq!(dispatcher.delivered(big, room(2000), now), Verdict::NoRoom);
    let soon = now + Duration::from_secs(1);
    assert!(
        !asked(&dispatcher.plan(soon).0).iter().any(|(work_queue, _)| *work_queue == big),
        "not again at once"
    );
    // A further try does not reset that.
    let again = now + REMEMBERED;
    assert!(asked(&dispatcher.plan(again).0).contains(&(big, 1)));
    assert_eq!(dispatcher.delivered(big, room(2000), again), Verdict::NoRoom);
    let starved = soon + STARVED;
    let (responses, _) = dispatcher.plan(starved);
    assert!(responses.contains(&Action::CountWaiting { work_queue: big }), "{responses:?}");
    dispatcher.waiting(big, 1);
    assert!(asked(&dispatcher.plan(starved).0).is_empty(), "nothing smaller is asked for");
    dispatcher.released(starved, room(1000), Some(SHORT));
    assert_eq!(asked(&dispatcher.plan(starved).0), [(big, 1)]);
    assert_eq!(dispatcher.delivered(big, room(2000), starved), Verdict::Run);
}

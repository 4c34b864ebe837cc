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

fn lane(priority: Priority, size: Size) -> usize {
    Class::ALL
        .iter()
        .position(|class| *class == Class { priority, size })
        .expect("every class is a lane")
}

fn asked(responses: &[Response]) -> Vec<(usize, usize)> {
    let ask = |response: &Response| match response {
        Response::Ask { lane, count } => Some((*lane, *count)),
        Response::LookUp { .. } => None,
    };
    responses.iter().filter_map(ask).collect()
}

/// A dispatcher whose asks are all out and have brought nothing for long enough to know every lane empty.
fn settled(cpus: u32, now: Instant) -> Dispatcher {
    let mut dispatcher = machine(cpus);
    for step in 0..4 {
        dispatcher.plan(now - QUIET * (8 - step));
    }
    dispatcher
}

#[test]
fn lower_priorities_are_asked_only_once_the_higher_are_known_to_be_empty() {
    let (mut dispatcher, now) = (machine(2), Instant::now());
    let first = asked(&dispatcher.plan(now).0);
    assert!(
        first.iter().all(|(lane, _)| Class::ALL[*lane].priority == Priority::High),
        "{first:?}"
    );
    let (second, _) = dispatcher.plan(now + QUIET);
    assert!(
        asked(&second)
            .iter()
            .all(|(lane, _)| Class::ALL[*lane].priority == Priority::Normal),
        "{second:?}"
    );
}

#[test]
fn an_urgent_job_that_was_handed_back_is_asked_for_before_all_else() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let (high, normal) = (lane(Priority::High, Size::S), lane(Priority::Normal, Size::S));
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(high, room(1000), now), Verdict::NoRoom);
    dispatcher.released(now, room(1000), Some(BRISK));
    let asks = asked(&dispatcher.plan(now).0);
    assert!(
        asks.iter().all(|(lane, _)| Class::ALL[*lane].priority == Priority::High),
        "{asks:?}"
    );
}

#[test]
fn a_known_backlog_is_asked_at_once_when_room_is_freed() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let normal = lane(Priority::Normal, Size::S);
    dispatcher.delivered(normal, room(1000), now);
    dispatcher.delivered(normal, room(1000), now);
    assert!(asked(&dispatcher.plan(now).0).is_empty(), "nothing is free");
    dispatcher.released(now, room(1000), Some(BRISK));
    assert!(asked(&dispatcher.plan(now).0).contains(&(normal, 1)));
}

#[test]
fn no_more_is_taken_than_fits_and_too_big_is_told_from_no_room() {
    let (mut dispatcher, now) = (machine(2), Instant::now());
    assert_eq!(dispatcher.delivered(0, room(2001), now), Verdict::TooBig);
    assert_eq!(dispatcher.delivered(0, room(1500), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(0, room(600), now), Verdict::NoRoom);
    dispatcher.released(now, room(1500), Some(BRISK));
    assert_eq!(dispatcher.free().cpu_milli, 2000);
}

#[test]
fn tiny_jobs_are_asked_for_by_the_dozen() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let normal = lane(Priority::Normal, Size::S);
    let mut most = 0;
    for _ in 0..MOST {
        dispatcher.delivered(normal, room(10), now);
        let asks = asked(&dispatcher.plan(now).0);
        most = most.max(asks.iter().find(|(lane, _)| *lane == normal).map_or(0, |(_, count)| *count));
    }
    assert!(most > 20, "at most {most} at once");
}

#[test]
fn a_quiet_class_is_asked_for_one_and_each_that_comes_lets_one_more_be_asked_for() {
    let now = Instant::now();
    let mut dispatcher = settled(8, now);
    let normal = lane(Priority::Normal, Size::S);
    assert_eq!(dispatcher.lanes[normal].outstanding, 1);
    let mut counts = Vec::new();
    for _ in 0..8 {
        assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
        counts.extend(asked(&dispatcher.plan(now).0).into_iter().filter(|(lane, _)| *lane == normal));
    }
    let at_once: Vec<usize> = counts.into_iter().map(|(_, count)| count).collect();
    assert_eq!(at_once.first(), Some(&2), "{at_once:?}");
    assert_eq!(at_once.iter().sum::<usize>(), 7, "all eight CPUs have work: {at_once:?}");
    // Once an ask was in vain, it begins anew.
    for _ in 0..8 {
        dispatcher.released(now, room(1000), Some(Duration::from_secs(1)));
    }
    dispatcher.ended(normal, 1);
    assert!(asked(&dispatcher.plan(now).0).contains(&(normal, 1)));
}

#[test]
fn half_a_cpu_that_is_free_is_asked_for_by_what_came_lately_and_else_for_one_job_to_find_out() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let (small, medium) = (lane(Priority::Normal, Size::S), lane(Priority::Normal, Size::M));
    assert_eq!(dispatcher.delivered(medium, room(1500), now), Verdict::Run);
    let asks = asked(&dispatcher.plan(now).0);
    assert!(!asks.iter().any(|(lane, _)| *lane == medium), "no job of that class fits: {asks:?}");
    // Nothing is known of the small ones: the ask is out, and what comes is too large.
    assert_eq!(dispatcher.lanes[small].outstanding, 1);
    assert_eq!(dispatcher.delivered(small, room(1000), now), Verdict::NoRoom);
    assert!(!asked(&dispatcher.plan(now).0).iter().any(|(lane, _)| *lane == small));
    // Later, it is tried again; and what asks for half a CPU gets it, one after the other.
    let later = now + REMEMBERED;
    assert!(asked(&dispatcher.plan(later).0).contains(&(small, 1)));
    for _ in 0..3 {
        assert_eq!(dispatcher.delivered(small, room(500), later), Verdict::Run);
        dispatcher.released(later, room(500), Some(Duration::from_secs(1)));
        assert!(asked(&dispatcher.plan(later).0).contains(&(small, 1)));
    }
}

#[test]
fn brisk_work_is_held_for_room_and_slow_work_is_not() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let normal = lane(Priority::Normal, Size::S);
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
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Hold);
    assert!(!dispatcher.held_fits(room(1000)));
    dispatcher.released(now, room(1000), Some(Duration::from_millis(1)));
    assert!(dispatcher.held_fits(room(1000)));
    for _ in 0..40 {
        dispatcher.released(now, Room::default(), Some(Duration::from_secs(10)));
    }
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::NoRoom);
}

#[test]
fn no_more_is_held_than_gets_room_in_time() {
    let start = Instant::now();
    let mut dispatcher = settled(16, start);
    let (small, big) = (lane(Priority::Normal, Size::S), lane(Priority::Normal, Size::L));
    for _ in 0..16 {
        assert_eq!(dispatcher.delivered(small, room(1000), start), Verdict::Run);
    }
    // Fifteen of them last; on the core that is left, one after the other ends after 40 ms.
    let took = Duration::from_millis(40);
    for number in 1..50 {
        let now = start + took * number;
        dispatcher.released(now, room(1000), Some(took));
        assert_eq!(dispatcher.delivered(small, room(1000), now), Verdict::Run);
        let ahead = asked(&dispatcher.plan(now).0);
        let most = usize::try_from(HELD.as_millis() / took.as_millis()).expect("few");
        assert!(ahead.iter().all(|(lane, count)| *lane == small && *count <= most), "{ahead:?}");
        // What needs more than one core gets it from none that ends there.
        assert_eq!(dispatcher.delivered(big, room(2000), now), Verdict::NoRoom);
        dispatcher.asks_are_gone();
    }
    // When it came to an end, nothing is to be expected any more.
    let later = start + took * 50 + PACE;
    assert_eq!(dispatcher.delivered(small, room(1000), later), Verdict::NoRoom);
}

#[test]
fn what_room_was_not_used_tells_nothing() {
    let now = Instant::now();
    let mut dispatcher = settled(1, now);
    let normal = lane(Priority::Normal, Size::S);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    dispatcher.released(now, room(1000), None);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::NoRoom);
}

#[test]
fn where_what_was_held_gets_no_room_nothing_more_is_held_until_something_ends() {
    let now = Instant::now();
    let mut dispatcher = settled(1, now);
    let normal = lane(Priority::Normal, Size::S);
    let brisk = |dispatcher: &mut Dispatcher| dispatcher.released(now, room(1000), Some(Duration::from_millis(1)));
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    brisk(&mut dispatcher);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Hold);
    dispatcher.waited_in_vain();
    dispatcher.ended(normal, usize::MAX);
    assert!(asked(&dispatcher.plan(now).0).is_empty(), "nothing is asked for ahead");
    assert_eq!(
        dispatcher.delivered(normal, room(1000), now),
        Verdict::NoRoom,
        "it was asked for before"
    );
    brisk(&mut dispatcher);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Run);
    assert_eq!(dispatcher.delivered(normal, room(1000), now), Verdict::Hold);
}

#[test]
fn a_big_job_gets_its_room_in_bounded_time() {
    let now = Instant::now();
    let mut dispatcher = settled(2, now);
    let (small, big) = (lane(Priority::Normal, Size::S), lane(Priority::Normal, Size::M));
    dispatcher.delivered(small, room(1000), now);
    for index in 0..Class::ALL.len() {
        dispatcher.ended(index, usize::MAX);
    }
    // It is tried with the room that is there, which is too little, and goes back.
    assert!(asked(&dispatcher.plan(now).0).contains(&(big, 1)));
    assert_eq!(dispatcher.delivered(big, room(2000), now), Verdict::NoRoom);
    let soon = now + Duration::from_secs(1);
    assert!(
        !asked(&dispatcher.plan(soon).0).iter().any(|(lane, _)| *lane == big),
        "not again at once"
    );
    // Nor is it forgotten when it is tried again.
    let again = now + REMEMBERED;
    assert!(asked(&dispatcher.plan(again).0).contains(&(big, 1)));
    assert_eq!(dispatcher.delivered(big, room(2000), again), Verdict::NoRoom);
    let starved = soon + STARVED;
    let (responses, _) = dispatcher.plan(starved);
    assert!(responses.contains(&Response::LookUp { lane: big }), "{responses:?}");
    dispatcher.waiting(big, 1);
    assert!(asked(&dispatcher.plan(starved).0).is_empty(), "nothing smaller is asked for");
    dispatcher.released(starved, room(1000), Some(BRISK));
    assert_eq!(asked(&dispatcher.plan(starved).0), [(big, 1)]);
    assert_eq!(dispatcher.delivered(big, room(2000), starved), Verdict::Run);
}

use super::*;

const NO_JITTER: f64 = 0.0;

/// A supervisor and a clock of its own.
struct Scene {
    supervisor: Supervisor,
    now: Instant,
}

impl Scene {
    fn begin() -> (Self, Vec<Action>) {
        let now = Instant::now();
        let (supervisor, actions) = Supervisor::begin(now);
        (Self { supervisor, now }, actions)
    }

    fn up() -> Self {
        let (mut scene, _) = Self::begin();
        for part in Part::ALL {
            scene.on(Event::Ready(part));
        }
        scene
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.supervisor.step(self.now, NO_JITTER, event)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn state(&self, part: Part) -> State {
        self.supervisor.state(part)
    }

    /// Ends a part and lets its back-off pass; returns how long that was.
    fn fall_and_rise(&mut self, part: Part) -> Duration {
        let [Action::Wake(woken, epoch, after)] = self.on(Event::Ended(part))[..] else {
            panic!("no back-off")
        };
        assert_eq!(woken, part);
        assert_eq!(self.on(Event::Due(part, epoch)), [Action::Start(part)]);
        self.on(Event::Ready(part));
        after
    }
}

fn signals(actions: &[Action]) -> Vec<(Part, i32)> {
    let of = |action: &Action| {
        if let Action::Signal(part, signal) = action {
            Some((*part, signal.as_raw()))
        } else {
            None
        }
    };
    actions.iter().filter_map(of).collect()
}

const INT: i32 = 2;
const QUIT: i32 = 3;
const KILL: i32 = 9;
const TERM: i32 = 15;

#[test]
fn both_servers_start_at_once_and_each_service_when_what_it_needs_answers() {
    let (mut scene, first) = Scene::begin();
    assert_eq!(first, [Action::Start(Part::Nats), Action::Start(Part::Postgres)]);
    assert_eq!(
        scene.on(Event::Ready(Part::Nats)),
        [Action::Start(Part::Watcher), Action::Start(Part::Runner)]
    );
    assert_eq!(
        scene.on(Event::Ready(Part::Postgres)),
        [Action::Start(Part::Projector), Action::Start(Part::Api)]
    );
    for part in [Part::Watcher, Part::Projector, Part::Runner] {
        assert_eq!(scene.on(Event::Ready(part)), []);
    }
    assert_eq!(scene.on(Event::Ready(Part::Api)), [Action::Up]);
    assert_eq!(scene.on(Event::Ready(Part::Api)), [], "up is said once");
}

#[test]
fn a_part_that_falls_is_started_again_later_and_later() {
    let mut scene = Scene::up();
    let waits: Vec<u128> = (0..10).map(|_| scene.fall_and_rise(Part::Runner).as_millis()).collect();
    assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
    assert_eq!(scene.supervisor.restarts(Part::Runner), 10);
    assert_eq!(scene.supervisor.restarts(Part::Api), 0);
}

#[test]
fn a_part_that_was_steady_is_forgiven() {
    let mut scene = Scene::up();
    for _ in 0..5 {
        scene.fall_and_rise(Part::Nats);
    }
    scene.pass(29);
    assert_eq!(scene.fall_and_rise(Part::Nats).as_millis(), 6_400);
    scene.pass(30);
    assert_eq!(scene.fall_and_rise(Part::Nats).as_millis(), 200);
}

#[test]
fn jitter_only_shortens_a_wait() {
    assert_eq!(back_off(1, 1.0), Duration::from_millis(150));
    assert_eq!(back_off(u32::MAX, 0.0), BACK_OFF_MAX);
}

#[test]
fn a_service_that_falls_with_its_server_waits_for_it() {
    let mut scene = Scene::up();
    let [Action::Wake(_, nats, _)] = scene.on(Event::Ended(Part::Nats))[..] else {
        panic!("no back-off")
    };
    let [Action::Wake(_, api, _)] = scene.on(Event::Ended(Part::Api))[..] else {
        panic!("no back-off")
    };
    assert_eq!(scene.on(Event::Due(Part::Api, api)), []);
    assert_eq!(scene.state(Part::Watcher), State::Running, "what lives reconnects by itself");
    assert_eq!(scene.on(Event::Due(Part::Nats, nats)), [Action::Start(Part::Nats)]);
    assert_eq!(scene.on(Event::Ready(Part::Nats)), [Action::Start(Part::Api)]);
}

#[test]
fn a_grid_that_never_came_up_gives_up_and_takes_everything_down() {
    let (mut scene, _) = Scene::begin();
    for part in [Part::Nats, Part::Postgres] {
        scene.on(Event::Ready(part));
    }
    for _ in 1..START_ATTEMPTS {
        scene.fall_and_rise(Part::Api);
    }
    let last = scene.on(Event::Ended(Part::Api));
    assert_eq!(last.first(), Some(&Action::GiveUp(Part::Api)));
    assert_eq!(signals(&last), [(Part::Runner, TERM)]);
    assert!(scene.supervisor.is_stopping());
}

#[test]
fn a_grid_goes_down_from_the_runner_to_the_log() {
    let mut scene = Scene::up();
    let mut order = vec![signals(&scene.on(Event::Stop))];
    for part in [Part::Runner, Part::Projector, Part::Api, Part::Watcher, Part::Postgres] {
        order.push(signals(&scene.on(Event::Ended(part))));
    }
    let services = vec![(Part::Projector, TERM), (Part::Api, TERM), (Part::Watcher, TERM)];
    let (postgres, nats) = (vec![(Part::Postgres, INT)], vec![(Part::Nats, TERM)]);
    assert_eq!(order, [vec![(Part::Runner, TERM)], services, vec![], vec![], postgres, nats]);
    assert_eq!(scene.on(Event::Ended(Part::Nats)), [Action::Done]);
}

#[test]
fn what_does_not_end_is_made_to() {
    let mut scene = Scene::up();
    for part in [Part::Runner, Part::Projector, Part::Api, Part::Watcher] {
        scene.on(Event::Ended(part));
    }
    let [Action::Signal(_, int), Action::Wake(_, first, _)] = scene.on(Event::Stop)[..] else {
        panic!("no ladder")
    };
    let [Action::Signal(_, quit), Action::Wake(_, second, _)] = scene.on(Event::Due(Part::Postgres, first))[..] else {
        panic!("no rung")
    };
    assert_eq!(
        scene.on(Event::Due(Part::Postgres, first)),
        [],
        "the timer of an earlier rung is void"
    );
    let [Action::Signal(Part::Postgres, kill)] = scene.on(Event::Due(Part::Postgres, second))[..] else {
        panic!("no last rung")
    };
    assert_eq!([int, quit, kill].map(Signal::as_raw), [INT, QUIT, KILL]);
}

#[test]
fn what_is_left_can_be_killed_at_once() {
    let mut scene = Scene::up();
    scene.on(Event::Stop);
    scene.on(Event::Ended(Part::Runner));
    assert_eq!(scene.on(Event::Stop), [], "a second orderly stop waits as well");
    let killed = signals(&scene.on(Event::Kill));
    assert_eq!(killed.len(), 5);
    assert!(killed.iter().all(|(_, signal)| *signal == KILL));
    assert!(!killed.contains(&(Part::Runner, KILL)));
    for part in Part::ALL
        .into_iter()
        .rev()
        .filter(|part| !matches!(part, Part::Runner | Part::Nats))
    {
        assert_eq!(signals(&scene.on(Event::Ended(part))), [], "nothing that was killed is asked again");
    }
    assert_eq!(scene.on(Event::Ended(Part::Nats)), [Action::Done]);
}

#[test]
fn what_waits_or_rests_when_the_end_comes_never_starts() {
    let (mut scene, _) = Scene::begin();
    let [Action::Wake(_, epoch, _)] = scene.on(Event::Ended(Part::Nats))[..] else {
        panic!("no back-off")
    };
    assert_eq!(signals(&scene.on(Event::Stop)), [(Part::Postgres, INT)]);
    assert_eq!(scene.on(Event::Due(Part::Nats, epoch)), []);
    assert_eq!(
        scene.on(Event::Ready(Part::Postgres)),
        [],
        "an answer that comes late changes nothing"
    );
    assert_eq!(scene.on(Event::Ended(Part::Postgres)), [Action::Done]);
}

#[test]
fn with_nothing_alive_the_end_is_at_once() {
    let (mut scene, _) = Scene::begin();
    scene.on(Event::Ended(Part::Nats));
    scene.on(Event::Ended(Part::Postgres));
    assert_eq!(scene.on(Event::Stop), [Action::Done]);
}

#[test]
fn a_supervisor_takes_no_longer_to_end_than_it_is_given() {
    let stage = |stage: u8| {
        let of_stage = Part::ALL.into_iter().filter(|part| part.stop_stage() == stage);
        of_stage
            .map(|part| part.stop_ladder().iter().filter_map(|rung| rung.1).sum::<Duration>())
            .max()
            .unwrap_or_default()
    };
    let total: Duration = (0..Part::STOP_STAGES).map(stage).sum();
    assert!(total + Duration::from_secs(5) < super::super::down::PATIENCE, "{total:?}");
}

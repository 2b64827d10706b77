//! What tells that a root is mounted, what counts once, and what is told once.

use super::*;

#[test]
fn a_sign_of_the_config_tells_that_the_root_is_mounted_and_a_write_does_not() {
    let mut seen = Seen::new();
    seen.says = Some("up".to_owned());
    seen.boots();
    let client = seen.client();
    assert_eq!(
        (client.state, client.stage),
        (State::Booting, Some(Stage::FirstRead))
    );
    let late = seen.all.clients(At(seen.now + 200_000)).remove(0);
    assert!(late.problem.unwrap().contains("has not asked for /up"));
    let (path, step) = ("up".to_owned(), FileStep::Missing);
    seen.then(50, Event::File { path, step });
    let client = seen.client();
    assert_eq!(
        (client.state, client.stage),
        (State::Up, Some(Stage::Mounted))
    );
}

#[test]
fn two_machines_of_one_name_are_told_apart() {
    let mut all = Timelines::default();
    for number in [1, 2] {
        let sign = Sign {
            mac: Some(MacAddress([2, 0, 0, 0, 0, number])),
            name: Some("pc".to_owned()),
            ..Sign::default()
        };
        all.handle(At(0), &sign, &Event::Acknowledged);
    }
    let clients = all.clients(At(0));
    let ids: Vec<_> = clients.iter().map(|client| client.id.as_str()).collect();
    assert_eq!(ids, ["02:00:00:00:00:01", "02:00:00:00:00:02"]);
}

#[test]
fn what_has_changed_is_told_once() {
    let mut seen = Seen::new();
    let mut known = HashMap::new();
    seen.boots();
    let up = seen.all.changes(At(seen.now), &mut known);
    assert_eq!(up[0].state, State::Up);
    assert!(seen.all.changes(At(seen.now), &mut known).is_empty());
    seen.then(5, Event::Disconnected { is_clean: true });
    assert_eq!(
        seen.all.changes(At(seen.now), &mut known)[0].state,
        State::Down
    );
    seen.all.forget(&MAC.to_string());
    assert!(seen.all.changes(At(seen.now), &mut known).is_empty() && known.is_empty());
}

#[test]
fn the_first_read_of_a_boot_is_not_that_of_a_connection_that_is_made_anew() {
    let mut seen = Seen::new();
    seen.boots();
    let first = seen.client().boots[0].stages.clone();
    seen.then(5000, Event::Disconnected { is_clean: false });
    seen.connects(5000).mounts();
    let boot = &seen.client().boots[0];
    assert_eq!((boot.reconnects, &boot.stages), (1, &first));
}

/// A machine that has loaded all that it boots by, asks for its disk.
fn opening() -> Seen {
    let mut seen = Seen::new();
    seen.asks(0, Speaker::Firmware).address();
    seen.loads(50, "core.0").loads(50, "vmlinuz");
    seen.then(50, Event::Opens("disk".to_owned()));
    seen
}

#[test]
fn an_export_that_does_not_open_is_a_handshake_that_hangs() {
    let seen = opening();
    assert_eq!(seen.client().state, State::Booting);
    let late = seen.client_after(25_000);
    assert_eq!(
        (late.state, late.stage),
        (State::Stuck, Some(Stage::Kernel))
    );
    assert_eq!(late.boots[0].stages.last().unwrap().stage, Stage::Connect);
    let problem = late.problem.unwrap();
    assert!(problem.contains("asks for disk") && problem.contains("does not answer"));
}

#[test]
fn connections_that_open_at_once_and_a_refusal_are_one_try() {
    let mut seen = opening();
    let opens = || Event::Opens("disk".to_owned());
    seen.then(0, opens())
        .then(0, Event::Refused("no".to_owned()));
    let tries = |seen: &Seen| seen.client().boots[0].stages.last().unwrap().tries;
    assert_eq!((tries(&seen), seen.client().state), (1, State::Failed));
    seen.then(1000, opens());
    assert_eq!((tries(&seen), seen.client().state), (2, State::Booting));
}

#[test]
fn who_only_opens_a_disk_is_no_machine_yet() {
    let mut seen = Seen::new();
    seen.then(0, Event::Opens("disk".to_owned()));
    assert!(seen.all.clients(At(0)).is_empty());
}

#[test]
fn a_machine_whose_requests_wait_for_our_disk_is_stuck_as_long_as_they_do() {
    let mut seen = Seen::new();
    seen.boots();
    let key = seen.all.key(&seen.sign);
    let mut look = |waits: Option<Duration>| {
        let load = Load {
            waits,
            ..Load::default()
        };
        seen.all.count(&key, &load);
        seen.all.settle(Duration::from_secs(1));
        seen.client()
    };
    let client = look(Some(Duration::from_secs(11)));
    assert_eq!(
        (client.state, client.stage),
        (State::Stuck, Some(Stage::Mounted))
    );
    assert!(
        client
            .problem
            .unwrap()
            .starts_with("its requests wait for our disk")
    );
    assert_eq!(look(None).state, State::Up);
}

#[test]
fn of_a_machine_that_runs_only_the_earlier_boots_are_forgotten() {
    let mut seen = Seen::new();
    for _ in 0..2 {
        seen.boots();
        seen.then(5, Event::Disconnected { is_clean: true });
    }
    seen.boots();
    let newest = seen.client().boots[0].clone();
    assert!(seen.all.forget("10.0.0.7"));
    let client = seen.client();
    assert_eq!((client.state, client.connections), (State::Up, 1));
    assert_eq!(client.boots.len(), 1);
    assert_eq!(client.boots[0].stages.len(), newest.stages.len());
}

#[test]
fn who_fetches_what_is_no_part_of_a_boot_is_no_machine() {
    let mut seen = Seen::new();
    seen.sign = Sign::of_address([10, 0, 0, 9].into());
    seen.loads(0, "static/list.txt");
    // A boot loader finds its menu under the next name; who finds none is none.
    let (path, step) = ("robots.conf".to_owned(), FileStep::Missing);
    seen.then(10, Event::File { path, step });
    assert!(seen.all.clients(At(seen.now + 60_000)).is_empty());
    seen.loads(10, "core.0").loads(10, "i386-pc/normal.mod");
    assert_eq!(seen.client().stage, Some(Stage::Loader));
}

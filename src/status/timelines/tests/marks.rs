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

//! The admin's listener: answers are of the form that its schema says, metrics are what Prometheus
//! takes, and nothing is told or changed that should not be.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use support::{Admin, Room, Server, Setup, TOKEN, Tool, require, skipped, write_file};

/// Prints nothing where every answer is of the form that is named for it.
const CHECK: &str = "
import json, sys
from jsonschema import Draft202012Validator
schema, answers = json.load(open(sys.argv[1])), json.load(open(sys.argv[2]))
Draft202012Validator.check_schema(schema)
for name, answer in answers:
    form = {'$ref': '#/$defs/' + name, '$defs': schema['$defs']}
    for error in Draft202012Validator(form).iter_errors(answer):
        print(name, error.json_path, error.message)
";

/// A server with a listener for admins, and more config.
fn start(more: &str) -> Server {
    let setup = Setup::new();
    let disk = setup.file("disk.img");
    write_file(&disk, &[7; 1 << 20]);
    let config = setup.file("cowherd.toml");
    let text = format!("[admin]\nlisten = \"127.0.0.1:0\"\n{more}[image.disk]\nfile = {disk:?}\n");
    write_file(&config, text.as_bytes());
    setup.with_arg("--config").with_arg(&config).start()
}

/// The same, which asks for a token.
fn start_with_token() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    write_file(&file, TOKEN.as_bytes());
    start(&format!("token-file = {file:?}\n"))
}

/// A Python that knows JSON Schema.
fn python(folder: &Path) -> Option<Tool> {
    let pythons = ["/usr/bin/python3", "python3"];
    let knows = |python: &&str| {
        let tool = Tool::new(python).args(["-c", "import jsonschema"]);
        Path::new("/usr/bin/python3").exists() && tool.run().code == Some(0)
    };
    let Some(python) = pythons.into_iter().find(knows) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "python3-jsonschema is not installed"
        );
        skipped("python3-jsonschema");
        return None;
    };
    let script = folder.join("check.py");
    write_file(&script, CHECK.as_bytes());
    Some(Tool::new(python).arg(script))
}

#[test]
fn every_answer_is_of_the_form_that_the_schema_says() {
    let folder = tempfile::tempdir().unwrap();
    let Some(python) = python(folder.path()) else {
        return;
    };
    if !require(&["curl"]) {
        return;
    }
    let Some(mut room) = Room::new("") else {
        return;
    };
    let token = room.setup.file("token");
    write_file(&token, TOKEN.as_bytes());
    room.write(&format!("token-file = {token:?}\n"));
    room.start();
    room.has_address();
    room.loads(&["core.0", "grub.cfg", "vmlinuz"]);
    room.fetches("initrd-that-is-missing");
    let mut client = room.opens();
    client.read(0, 4096).unwrap();
    client.write(0, &[1; 4096]).unwrap();
    client.flush().unwrap();
    let admin = room.admin().with_token(TOKEN);
    admin.until(|client| client["stage"] == "mounted" && !client["traffic"].is_null());
    let get = |path: &str| admin.get(path).json();
    let mut answers = vec![
        ("clients", get("/api/v1/clients")),
        ("client", get("/api/v1/clients/pc-1")),
        ("images", get("/api/v1/images")),
        ("exports", get("/api/v1/exports")),
        ("overlays", get("/api/v1/overlays")),
        ("leases", get("/api/v1/leases")),
        (
            "error",
            admin.request("GET", "/api/v1/clients/nobody", "").json(),
        ),
        (
            "error",
            admin.post("/api/v1/clients/pc-1/forget-lease").json(),
        ),
    ];
    let printed = |words: &[&str]| -> Value {
        let finished = room.cowherd(words).run();
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
    };
    let config = room.config.to_str().unwrap();
    answers.push(("status", printed(&["status", "--json"])));
    answers.push(("status", printed(&["status", "pc-1", "--json"])));
    answers.push(("leases", printed(&["lease", "list", "--json"])));
    answers.push((
        "doctor",
        printed(&["doctor", "--json", "--silent", "--config", config]),
    ));
    client.disconnect();
    admin.until(|client| client["connections"] == 0);
    answers.push((
        "forget-lease",
        admin.post("/api/v1/clients/pc-1/forget-lease").json(),
    ));
    answers.push((
        "reset",
        admin.post("/api/v1/overlays/disk+1%40pc-1/reset").json(),
    ));
    answers.push((
        "forgotten",
        admin.post("/api/v1/clients/pc-1/forget").json(),
    ));
    let (schema, file) = (folder.path().join("schema"), folder.path().join("answers"));
    write_file(&schema, admin.get("/api/v1/schema").body.as_bytes());
    write_file(&file, json!(answers).to_string().as_bytes());
    let said = python.arg(schema).arg(file).ok();
    assert_eq!(said, "", "{answers:#?}");
    assert!(
        answers[1].1["boots"][0]["stages"].as_array().unwrap().len() > 5,
        "{answers:#?}"
    );
    assert!(
        !answers[1].1["latencies"].as_object().unwrap().is_empty(),
        "{answers:#?}"
    );
    assert_eq!(answers[4].1.as_array().unwrap().len(), 1, "{answers:#?}");
}

/// One family of metrics.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// Values by name and labels.
    samples: BTreeMap<(String, Vec<(String, String)>), f64>,
}

/// Reads a page of metrics as strictly as Prometheus and promtool do.
fn families(page: &str) -> Result<BTreeMap<String, Family>, String> {
    if !page.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let (mut all, mut helped) = (BTreeMap::<String, Family>::new(), BTreeSet::new());
    let mut current = String::new();
    for line in page.lines() {
        let wrong = |what: &str| Err(format!("{what}: {line}"));
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').ok_or("no text of help")?;
            if text.trim().is_empty() || !helped.insert(name.to_owned()) {
                return wrong("help that is empty or there twice");
            }
            current = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("no type")?;
            if name != current || all.contains_key(name) {
                return wrong("a type that is not right behind its help, or there twice");
            }
            if !["counter", "gauge", "histogram"].contains(&kind) || !is_name(name, true) {
                return wrong("a type or a name that there is not");
            }
            if (kind == "counter") != name.ends_with("_total") {
                return wrong("counters, and only those, end with _total");
            }
            all.insert(
                name.to_owned(),
                Family {
                    kind: kind.to_owned(),
                    ..Family::default()
                },
            );
        } else {
            let (name, labels, value) = sample(line)?;
            let family = all.get_mut(&current).ok_or("a sample before its type")?;
            let end = name.strip_prefix(current.as_str());
            let fits = match (family.kind.as_str(), end) {
                ("histogram", Some(end)) => ["_bucket", "_sum", "_count"].contains(&end),
                (_, end) => end == Some(""),
            };
            if !fits {
                return wrong("a sample of another family");
            }
            if family.samples.insert((name, labels), value).is_some() {
                return wrong("a series that is there twice");
            }
        }
    }
    all.values().try_for_each(check_histogram)?;
    Ok(all)
}

fn is_name(text: &str, colons: bool) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    let is_other = |c: char| is_first(c) || c.is_ascii_digit();
    text.starts_with(is_first) && text.chars().all(is_other)
}

type Sample = (String, Vec<(String, String)>, f64);

fn sample(line: &str) -> Result<Sample, String> {
    let wrong = |what: &str| format!("{what}: {line}");
    let end = line.find(['{', ' ']).ok_or_else(|| wrong("no value"))?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err(wrong("no name"));
    }
    let mut labels = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, text) = inside.split_once("=\"").ok_or_else(|| wrong("no label"))?;
            if !is_name(label, false) || labels.iter().any(|(other, _)| other == label) {
                return Err(wrong("a label that is none, or there twice"));
            }
            let (value, behind) = quoted(text).ok_or_else(|| wrong("a label without end"))?;
            labels.push((label.to_owned(), value));
            match behind.strip_prefix(',') {
                Some(more) => inside = more,
                None => {
                    rest = behind
                        .strip_prefix('}')
                        .ok_or_else(|| wrong("no end of labels"))?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or_else(|| wrong("no space"))?;
    let value = value.parse().map_err(|_| wrong("no number"))?;
    labels.sort();
    Ok((name.to_owned(), labels, value))
}

/// The text up to the quote, unescaped, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// Buckets are cumulative, the last is of all, and there are sum and count.
fn check_histogram(family: &Family) -> Result<(), String> {
    if family.kind != "histogram" {
        return Ok(());
    }
    let mut buckets: BTreeMap<Vec<_>, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for ((name, labels), value) in &family.samples {
        let mut labels = labels.clone();
        if name.ends_with("_bucket") {
            let at = labels
                .iter()
                .position(|(label, _)| label == "le")
                .ok_or("no le")?;
            let le = labels.remove(at).1.replace("+Inf", "inf");
            let le = le.parse().map_err(|_| format!("le {le:?}"))?;
            buckets.entry(labels).or_default().push((le, *value));
        } else if name.ends_with("_count") {
            counts.insert(labels, *value);
        }
    }
    for (labels, mut of) in buckets {
        of.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
        let rises = of.windows(2).all(|two| two[0].1 <= two[1].1);
        let last = of.last().expect("a bucket");
        if !rises || last.0 != f64::INFINITY || counts.get(&labels) != Some(&last.1) {
            return Err(format!("the buckets of {labels:?} are {of:?}"));
        }
    }
    Ok(())
}

#[test]
fn metrics_are_what_prometheus_takes() {
    let server = start("");
    let mut client = server.client("disk@pc-1");
    client.read(0, 4096).unwrap();
    client.write(0, &[1; 4096]).unwrap();
    client.read(1 << 30, 4096).unwrap_err();
    let admin = Admin::of(&server, None);
    let reply = admin.get("/metrics");
    assert!(
        reply.head.contains("text/plain; version=0.0.4"),
        "{reply:?}"
    );
    let all = families(&reply.body).unwrap_or_else(|error| panic!("{error}\n{}", reply.body));
    let value = |family: &str, labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        let key = (family.to_owned(), labels.collect());
        all[family].samples.get(&key).copied()
    };
    let of_client = ("client", "pc-1");
    let read = [of_client, ("kind", "read")];
    assert_eq!(
        value("cowherd_client_read_bytes_total", &[of_client]),
        Some(4096.0)
    );
    assert_eq!(value("cowherd_client_requests_total", &read), Some(1.0));
    let invalid = [("cause", "invalid"), of_client];
    assert_eq!(value("cowherd_client_errors_total", &invalid), Some(1.0));
    assert_eq!(
        value("cowherd_client_overlay_bytes", &[of_client]),
        Some(4096.0)
    );
    assert!(all["cowherd_request_duration_seconds"].samples.len() > 30);
}

#[test]
fn what_an_export_is_asked_for_is_counted_over_all_its_machines() {
    if !require(&["curl"]) {
        return;
    }
    let server = start("");
    for who in ["pc-1", "pc-2"] {
        let mut client = server.client(&format!("disk@{who}"));
        client.read(0, 8192).unwrap();
        client.write(4096, &[1; 4096]).unwrap();
        // One that has gone counts as much as one that is there.
        client.disconnect();
    }
    let mut client = server.client("disk@pc-1");
    client.read(0, 4096).unwrap();
    let admin = Admin::of(&server, None);
    let exports = admin.get("/api/v1/exports").json();
    assert_eq!(exports.as_array().unwrap().len(), 1, "{exports}");
    let of_disk = &exports[0];
    assert_eq!(of_disk["export"], "disk+1");
    assert_eq!(of_disk["bytes_read"], 2 * 8192 + 4096);
    assert_eq!(of_disk["bytes_written"], 2 * 4096);
    assert_eq!(of_disk["requests"]["read"], 3);
    assert_eq!(of_disk["latencies"]["write"]["count"], 2);
    let metrics = admin.get("/metrics").body;
    let line = "cowherd_export_read_bytes_total{export=\"disk+1\"} 20480";
    assert!(metrics.lines().any(|other| other == line), "{metrics}");
}

#[test]
fn the_reader_of_metrics_refuses_what_prometheus_refuses() {
    let head = "# HELP a_total b\n# TYPE a_total counter\n";
    families(&format!("{head}a_total{{b=\"\\\\\\\"\\n\"}} 1\n")).unwrap();
    for bad in [
        "a_total 1\n",
        "# HELP a_total b\n# TYPE a_total gauge\na_total 1\n",
        &format!("{head}a_total 1\na_total 2\n"),
        &format!("{head}a_total{{b=\"c\"d\"}} 1\n"),
        &format!("{head}a_total{{b=\"\\x\"}} 1\n"),
        &format!("{head}a_total{{b=\"1\",b=\"2\"}} 1\n"),
        &format!("{head}{head}a_total 1\n"),
        &format!("{head}b_total 1\n"),
        &format!("{head}a_total 1"),
        "# HELP h b\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\n\
         h_count 1\n",
    ] {
        assert!(families(bad).is_err(), "{bad}");
    }
}

#[test]
fn without_its_token_nothing_is_told_and_without_intent_nothing_changed() {
    let server = start_with_token();
    let client = server.client("disk@pc-1");
    client.disconnect();
    let stranger = Admin::of(&server, None);
    for path in [
        "/metrics",
        "/api/v1/clients",
        "/api/v1/events",
        "/api/v1/schema",
    ] {
        assert_eq!(stranger.request("GET", path, "").status, 401, "{path}");
    }
    assert_eq!(stranger.post("/api/v1/clients/pc-1/forget").status, 401);
    let admin = Admin::of(&server, None).with_token(TOKEN);
    admin.until(|client| client["id"] == "pc-1" && client["connections"] == 0);
    let plain = admin.request(
        "POST",
        "/api/v1/clients/pc-1/forget",
        "Content-Length: 0\r\n",
    );
    assert_eq!(plain.status, 403, "{plain:?}");
    assert_eq!(admin.post("/api/v1/clients/pc-1/forget").status, 200);
    assert_eq!(admin.post("/api/v1/clients/pc-1/forget").status, 404);
}

#[test]
fn without_a_token_it_listens_to_those_alone_who_call_it_rightly_and_changes_nothing() {
    let server = start("");
    let admin = Admin::of(&server, None);
    assert_eq!(admin.get("/api/v1/clients").status, 200);
    let elsewhere = Admin::of(&server, None).called("evil.example");
    assert_eq!(elsewhere.request("GET", "/api/v1/clients", "").status, 421);
    assert_eq!(admin.post("/api/v1/overlays/disk%40pc-1/reset").status, 403);
}

#[test]
fn an_overlay_is_reset_by_order_and_not_while_it_is_in_use() {
    let server = start_with_token();
    let admin = Admin::of(&server, None).with_token(TOKEN);
    let mut client = server.client("disk@pc-1");
    client.write(0, &[1; 4096]).unwrap();
    let path = "/api/v1/overlays/disk%40pc-1/reset";
    let refused = admin.post(path);
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("in use"), "{refused:?}");
    client.disconnect();
    admin.until(|client| client["connections"] == 0);
    support::eventually(|| match admin.post(path) {
        done if done.status == 200 => Ok(()),
        other => Err(other),
    });
    let mut client = server.client("disk@pc-1");
    assert_eq!(client.read(0, 4096).unwrap(), [7; 4096]);
}

#[test]
fn a_lease_is_forgotten_by_order_and_its_address_given_to_another() {
    let Some(mut room) = Room::new("") else {
        return;
    };
    let text = std::fs::read_to_string(&room.config).unwrap();
    let one = text.replace("10.77.0.100-10.77.0.199", "10.77.0.100-10.77.0.100");
    write_file(&room.config, one.as_bytes());
    room.start();
    let card = room.machine.card("lan0", 68);
    let [first, second] = [1, 2].map(|last| cowherd::mac::MacAddress([2, 0, 0, 0, 0, last]));
    let offer = room.discovers(&card, first);
    room.requests(&card, &offer);
    let listed = room.cowherd(&["lease", "list"]).ok();
    assert!(
        listed.contains("10.77.0.100") && listed.contains(&first.to_string()),
        "{listed}"
    );
    let unsure = room.cowherd(&["lease", "forget", &first.to_string()]).run();
    assert_eq!(unsure.code, Some(2), "{unsure}");
    let said = room
        .cowherd(&["lease", "forget", "--yes", &first.to_string()])
        .ok();
    assert_eq!(said, "the lease of 10.77.0.100 is forgotten\n");
    let again = room
        .cowherd(&["lease", "forget", "--yes", &first.to_string()])
        .run();
    assert_eq!(again.code, Some(1), "{again}");
    let offer = room.discovers(&card, second);
    assert_eq!(offer.yiaddr, std::net::Ipv4Addr::new(10, 77, 0, 100));
}

#[test]
fn a_machine_that_is_connected_keeps_its_lease() {
    let Some(mut room) = Room::new("") else {
        return;
    };
    room.start();
    room.has_address();
    let _client = room.opens();
    room.admin().until(|client| client["connections"] == 1);
    let refused = room.cowherd(&["lease", "forget", "--yes", "pc-1"]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("switch it off first"), "{refused}");
    let listed = room.cowherd(&["lease", "list"]).ok();
    assert!(listed.contains("pc-1"), "{listed}");
}

#[test]
fn a_sign_that_the_config_names_tells_that_the_root_is_mounted() {
    if !require(&["curl"]) {
        return;
    }
    let Some(mut room) = Room::new("") else {
        return;
    };
    let text = std::fs::read_to_string(&room.config).unwrap();
    write_file(
        &room.config,
        text.replace("[network]", "mounted = \"/up\"\n[network]")
            .as_bytes(),
    );
    room.start();
    room.has_address();
    let mut client = room.opens();
    client.read(0, 4096).unwrap();
    client.write(0, &[1; 4096]).unwrap();
    let seen = room.admin().until(|client| client["stage"] == "first-read");
    assert_eq!(seen["state"], "booting", "{seen}");
    let url = "http://10.77.0.1/up";
    room.machine
        .tool("curl")
        .args(["-sS", "-o", "/dev/null", url])
        .ok();
    let seen = room.admin().until(|client| client["stage"] == "mounted");
    assert_eq!(seen["state"], "up", "{seen}");
}

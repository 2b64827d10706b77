//! What changes, as it changes: server-sent events.
//!
//! First comes an event `clients` with all machines, then one with those that have changed, a
//! second apart at least. An event `gone` names machines that were forgotten. A line of comment
//! tells, while nothing happens, that the connection is alive.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Office;
use super::api::{self, Clients};
use super::reply::{Content, reply};
use crate::status::report::Client;

/// How often it is looked what has changed.
const EVERY: Duration = Duration::from_secs(1);
/// After so many looks without a change the connection is told to be alive.
const ALIVE_AFTER: u32 = 15;

pub(super) fn events(office: Arc<Office>) -> Response<Content> {
    // One event waits while another is being sent; who takes none gets none.
    let (sender, stream) = mpsc::channel(1);
    tokio::spawn(tell(office, sender));
    reply(StatusCode::OK, "text/event-stream", Content::Stream(stream))
}

async fn tell(office: Arc<Office>, sender: mpsc::Sender<Bytes>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: HashMap<String, Client> = HashMap::new();
    let (mut is_first, mut quiet) = (true, 0);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = sender.closed() => return,
        }
        let Clients { now, clients } = api::clients(&office);
        let here: HashSet<_> = clients.iter().map(|client| &client.id).collect();
        let gone = told.keys().filter(|id| !here.contains(id));
        let gone: Vec<_> = gone.cloned().collect();
        let changed = |client: &Client| told.get(&client.id) != Some(client);
        let clients: Vec<_> = clients.into_iter().filter(changed).collect();
        let mut lines = String::new();
        if is_first || !clients.is_empty() {
            let text = serde_json::to_string(&Clients {
                now,
                clients: clients.clone(),
            });
            lines.push_str(&event("clients", &text.unwrap_or_default()));
        }
        if !gone.is_empty() {
            let text = serde_json::to_string(&gone).unwrap_or_default();
            lines.push_str(&event("gone", &text));
        }
        gone.iter().for_each(|id| drop(told.remove(id)));
        told.extend(
            clients
                .into_iter()
                .map(|client| (client.id.clone(), client)),
        );
        quiet = if lines.is_empty() { quiet + 1 } else { 0 };
        if quiet >= ALIVE_AFTER {
            lines.push_str(": alive\n\n");
            quiet = 0;
        }
        is_first = false;
        if !lines.is_empty() && sender.send(lines.into()).await.is_err() {
            return;
        }
    }
}

/// JSON has no line ends of its own in it, so it is one line of data.
fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

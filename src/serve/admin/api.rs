//! The API, version 1: see `page/schema.json`.

use std::ops::ControlFlow;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::reply::{Content, json, refuse, text};
use super::{Office, page, stream};
use crate::serve::control::{Answer, Command, Progress, Reporter};
use crate::status::At;
use crate::status::metrics;
use crate::status::report::{Client, Export};

/// Machines, at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Clients {
    pub(super) now: At,
    pub(super) clients: Vec<Client>,
}

/// An image and its generations.
#[derive(Debug, Serialize)]
struct ImageFacts {
    name: String,
    current: u32,
    generations: Vec<GenerationFacts>,
}

/// A generation, and who runs it.
#[derive(Debug, Serialize)]
struct GenerationFacts {
    generation: u32,
    bytes: u64,
    clients: Vec<String>,
}

pub(super) async fn get(office: &Arc<Office>, path: &str) -> Response<Content> {
    match path {
        "/metrics" => measure(office).await,
        "/api/v1/schema" => text("application/schema+json", page::SCHEMA),
        "/api/v1/clients" => json(StatusCode::OK, &clients(office)),
        "/api/v1/images" => json(StatusCode::OK, &images(office)),
        "/api/v1/exports" => json(StatusCode::OK, &Export::all(&office.herd.exports().await)),
        "/api/v1/overlays" => run(office, Command::List).await,
        "/api/v1/leases" => run(office, Command::Leases).await,
        "/api/v1/events" => stream::events(Arc::clone(office)),
        _ => match path.strip_prefix("/api/v1/clients/").map(decoded) {
            Some(who) => client(office, &who).await,
            None => unknown(),
        },
    }
}

pub(super) async fn post(office: &Arc<Office>, path: &str) -> Response<Content> {
    let rest = path.strip_prefix("/api/v1/").unwrap_or_default();
    let parts: Vec<_> = rest.split('/').map(decoded).collect();
    match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["clients", who, "forget"] => match office.herd.watch().forget(who) {
            true => json(StatusCode::OK, &serde_json::json!({ "forgotten": who })),
            false => refuse(StatusCode::NOT_FOUND, "no such machine was seen"),
        },
        ["clients", who, "forget-lease"] => {
            let who = (*who).to_owned();
            run(office, Command::ForgetLease { who }).await
        }
        ["overlays", overlay, "reset"] => match overlay.parse() {
            Ok(overlay) => run(office, Command::Reset { overlay }).await,
            Err(error) => {
                let error: crate::serve::control::message::OverlayNameError = error;
                refuse(StatusCode::BAD_REQUEST, &error.to_string())
            }
        },
        _ => unknown(),
    }
}

fn unknown() -> Response<Content> {
    refuse(
        StatusCode::NOT_FOUND,
        "there is nothing here: see /api/v1/schema",
    )
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

pub(super) fn clients(office: &Office) -> Clients {
    let watch = office.herd.watch();
    Clients {
        clients: watch.clients(),
        now: watch.now(),
    }
}

async fn client(office: &Office, who: &str) -> Response<Content> {
    let watch = office.herd.watch();
    match watch.client_with_latencies(&office.herd, who).await {
        Some(client) => json(StatusCode::OK, &client),
        None => refuse(StatusCode::NOT_FOUND, "no such machine was seen"),
    }
}

fn images(office: &Office) -> Vec<ImageFacts> {
    let offer = office.herd.offer();
    let clients = office.herd.watch().clients();
    let facts = |name| {
        let generations = offer.images.get(Some(name)).ok()?;
        let of = |(number, image): (&u32, &Arc<crate::image::Image>)| {
            let export = format!("{name}+{number}");
            let runs = clients.iter().filter(|client| {
                let own = client.export.as_deref().unwrap_or_default();
                client.connections > 0 && own.split('@').next() == Some(&export)
            });
            GenerationFacts {
                generation: *number,
                bytes: image.size(),
                clients: runs.map(|client| client.id.clone()).collect(),
            }
        };
        Some(ImageFacts {
            name: name.to_string(),
            current: generations.current,
            generations: generations.images.iter().map(of).collect(),
        })
    };
    offer.images.names().filter_map(facts).collect()
}

async fn measure(office: &Office) -> Response<Content> {
    let herd = &office.herd;
    herd.watch().look(herd).await;
    let exports = herd.exports().await;
    let page = metrics::page(env!("CARGO_PKG_VERSION"), &herd.watch().clients(), &exports);
    text("text/plain; version=0.0.4; charset=utf-8", page)
}

/// Has a command carried out, as `cowherd overlay` does.
async fn run(office: &Office, command: Command) -> Response<Content> {
    let Some(workshop) = &office.workshop else {
        return refuse(StatusCode::CONFLICT, "this server keeps no overlays");
    };
    let report: Reporter = Arc::new(|_: &Progress| ControlFlow::Continue(()));
    match workshop.run(command, report).await {
        Ok(Answer::List(entries)) => json(StatusCode::OK, &entries),
        Ok(Answer::Leases(leases)) => json(StatusCode::OK, &leases),
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(failure) => refuse(StatusCode::CONFLICT, &failure.to_string()),
    }
}

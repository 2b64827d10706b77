//! Connections and who may ask what.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::reply::{Content, refuse};
use super::{Office, api, page};
use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_BYTES, ADMIN_HEADER_TIME};

/// Pause after an accept failed, which only time can mend.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The header of requests that change something. Another site's page can't send it without asking
/// first, and the answer to that is no.
pub(super) const INTENT: &str = "x-cowherd-intent";

pub(super) async fn accept(socket: TcpListener, office: Arc<Office>) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    let mut guests = JoinSet::new();
    loop {
        // One too many waits in the queue of the kernel.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while guests.try_join_next().is_some() {}
        match socket.accept().await {
            Ok((stream, _)) => {
                let office = Arc::clone(&office);
                guests.spawn(async move {
                    converse(stream, office).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("the admin's listener could not accept: {error}");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, office: Arc<Office>) {
    // What is small and late is worse than what is small.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request| {
        let office = Arc::clone(&office);
        async move { Ok::<_, Infallible>(answer(&office, request).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEADER_TIME)
        .max_buf_size(ADMIN_HEADER_BYTES);
    // Who has gone needs no answer.
    if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!("admin: {error}");
    }
}

async fn answer(office: &Arc<Office>, request: Request<Incoming>) -> Response<Content> {
    let path = request.uri().path().to_owned();
    if !is_called_rightly(office, &request) {
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "call this by its address or as localhost",
        );
    }
    if let (&Method::GET, Some(file)) = (request.method(), page::file(&path)) {
        return file;
    }
    if let Some(token) = &office.token
        && !bearer(&request).is_some_and(|said| token.is(said))
    {
        return refuse(StatusCode::UNAUTHORIZED, "the token is wrong or missing");
    }
    match *request.method() {
        Method::GET => api::get(office, &path).await,
        // Any user of this host reaches loopback.
        Method::POST if office.token.is_none() => refuse(
            StatusCode::FORBIDDEN,
            "nothing is changed here without a token: name a `token-file` in [admin]",
        ),
        Method::POST if request.headers().contains_key(INTENT) => api::post(office, &path).await,
        Method::POST => refuse(
            StatusCode::FORBIDDEN,
            "the header x-cowherd-intent is missing",
        ),
        _ => refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and POST are known here",
        ),
    }
}

/// RFC 9110, section 7.2, Host; without a token, a page of elsewhere could otherwise have its own
/// name point to this host and read what is told here.
fn is_called_rightly<T>(office: &Office, request: &Request<T>) -> bool {
    if office.token.is_some() {
        return true;
    }
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<hyper::http::uri::Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host();
        let number = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || number.parse::<std::net::IpAddr>().is_ok()
    })
}

fn bearer<T>(request: &Request<T>) -> Option<&[u8]> {
    let said = request.headers().get(AUTHORIZATION)?.as_bytes();
    said.strip_prefix(b"Bearer ")
}

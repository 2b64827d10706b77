//! HTTP on its sockets, for firmware and boot loaders: the files that TFTP serves too.
//!
//! Invariants:
//! - There are so many connections, in all and from one address; one too many is closed at once.
//! - A client that sends nothing, or takes nothing, has its connection for a bounded time.
//! - Disks are asked beside the runtime: one that is slow holds up its own request only.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::accept::pause;
use super::gate::Gate;
use super::listen;
use super::options::Failure;
use super::posts::{self, Opened, Post};
use super::seats::{Limits, Seat, Seats};
use super::takeover::Given;
use super::takeover::wire::Door as PassedDoor;
use super::tree::{Ends, Tree};
use crate::access::Peer;
use crate::boot::menu::Transport;
use crate::config::HttpConfig;
use crate::http::target::path_in;
use crate::http::{Answer, File};
use crate::limits::{
    HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX, HTTP_HEAD_MAX, HTTP_HEADERS_MAX,
    HTTP_REQUEST_TIME, HTTP_STALL_TIME,
};
use body::{Body, Report};
use patient::Patient;

mod body;
mod patient;

/// HTTP, for as long as it lives.
#[derive(Debug)]
pub(super) struct Http {
    _doors: JoinSet<()>,
    seats: Arc<Seats>,
}

impl Http {
    /// Begins to serve. Inside of a runtime only.
    pub(super) fn start(
        opened: Opened<TcpListener>,
        tree: &Arc<Tree>,
        gate: &Gate,
    ) -> io::Result<Self> {
        let limits = Limits::of_connections(HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX);
        let seats = Arc::new(Seats::new(limits));
        let (of_doors, tree, door_gate) = (Arc::clone(&seats), Arc::clone(tree), gate.clone());
        let _doors = opened.start(gate, move |listener: TcpListener| {
            let door = Door {
                listener: tokio::net::TcpListener::from_std(listener)?,
                gate: door_gate.clone(),
                tree: Arc::clone(&tree),
                seats: Arc::clone(&of_doors),
            };
            Ok(Box::pin(door.run()))
        })?;
        Ok(Self { _doors, seats })
    }

    /// Whether no connection is open.
    pub(super) fn is_idle(&self) -> bool {
        self.seats.is_empty()
    }
}

impl Post for TcpListener {
    const NAME: &'static str = "http";
    const DOOR: PassedDoor = PassedDoor::Http;

    fn bind(address: SocketAddrV4, given: &mut Given) -> Result<Self, Failure> {
        if let Some(socket) = given.on(&PassedDoor::Http, address) {
            return Ok(socket.into());
        }
        let bind = |shares| listen::listen_tcp(address.into(), shares);
        let bound = given.beside(&PassedDoor::Http, address.port(), bind);
        bound
            .map_err(|error| posts::not_bound::<Self>(address, &error, "stop the other web server"))
    }

    fn address(&self) -> io::Result<SocketAddrV4> {
        match self.local_addr()? {
            SocketAddr::V4(address) => Ok(address),
            SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.try_clone()?.into())
    }
}

/// One port.
struct Door {
    listener: tokio::net::TcpListener,
    gate: Gate,
    tree: Arc<Tree>,
    seats: Arc<Seats>,
}

impl Door {
    async fn run(self) {
        let mut guests = JoinSet::new();
        loop {
            match self.gate.pass(|| self.listener.accept()).await {
                Ok((stream, SocketAddr::V4(client))) => self.lead(&mut guests, stream, client),
                // The listeners have addresses of IPv4, and so have those who connect to them.
                Ok((_, SocketAddr::V6(_))) => {}
                Err(error) => pause(&error).await,
            }
        }
    }

    fn lead(&self, guests: &mut JoinSet<()>, stream: TcpStream, client: SocketAddrV4) {
        while guests.try_join_next().is_some() {}
        let seat = match self.seats.take(&Peer::Ip(IpAddr::V4(*client.ip()))) {
            Ok(seat) => seat,
            Err(full) => {
                if let Some(others) = self.seats.complain(Instant::now()) {
                    tracing::warn!(
                        "http: {client}: closed, {full}; so were {others} others before"
                    );
                }
                return;
            }
        };
        // A connection that is gone already says so when it is read from.
        let _ = stream.set_nodelay(true);
        if let Ok(SocketAddr::V4(own)) = stream.local_addr() {
            let guest = Guest {
                tree: Arc::clone(&self.tree),
                own,
                client,
                _seat: seat,
            };
            guests.spawn(guest.serve(stream));
        }
    }
}

/// One connection.
struct Guest {
    tree: Arc<Tree>,
    own: SocketAddrV4,
    client: SocketAddrV4,
    _seat: Seat,
}

impl Guest {
    async fn serve(self, stream: TcpStream) {
        let service = service_fn(|request| self.answer(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // It begins with the end of the request before, so that idle connections end too.
            .header_read_timeout(HTTP_REQUEST_TIME)
            .max_buf_size(HTTP_HEAD_MAX)
            .max_headers(HTTP_HEADERS_MAX)
            // GRUB compares names of headers letter by letter.
            .title_case_headers(true)
            .serve_connection(TokioIo::new(Patient::new(stream, HTTP_STALL_TIME)), service);
        if let Err(error) = connection.await {
            tracing::debug!("http: {}: {error}", self.client);
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let begun = Instant::now();
        let client = self.client;
        let refuse = |status| Ok(response(Answer::without_file(status), Body::empty()));
        let method = request.method();
        if ![Method::GET, Method::HEAD].contains(method) {
            tracing::info!("http: {client}: {method} is not served");
            return refuse(StatusCode::METHOD_NOT_ALLOWED);
        }
        let path = match path_in(request.uri().path()) {
            Ok(path) => path,
            Err(bad) => {
                tracing::info!("http: {client}: {bad}");
                return refuse(StatusCode::NOT_FOUND);
            }
        };
        let ends = Ends {
            own: *self.own.ip(),
            client: *client.ip(),
            via: via(self.own),
        };
        let content = match self.tree.open(ends, &path).await {
            Ok(Some(content)) => content,
            Ok(None) => {
                tracing::info!("http: {client}: {path}: there is no such file");
                return refuse(StatusCode::NOT_FOUND);
            }
            Err(error) => {
                tracing::warn!("http: {client}: {path}: {error}");
                return refuse(StatusCode::FORBIDDEN);
            }
        };
        let file = File {
            path: &path,
            size: content.size(),
            tag: content.tag().map(str::to_owned),
        };
        let answer = Answer::with_file(&file, method, request.headers());
        let report = Report::new(
            (Arc::clone(&self.tree), ends),
            client,
            path,
            method == Method::HEAD,
            begun,
        );
        let body = Body::new(content, answer.bytes.clone(), report);
        Ok(response(answer, body))
    }
}

/// How GRUB is to go on that came this way: before 2.12 it knows the usual port only.
const fn via(own: SocketAddrV4) -> Transport {
    match own.port() {
        HttpConfig::PORT => Transport::Http,
        _ => Transport::Tftp,
    }
}

fn response(answer: Answer, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}

//! The admin's listener of a server, as programs ask it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;

use super::{Host, PATIENCE, Server};

/// The token that tests use.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The listener of a server.
pub(crate) struct Admin<'a> {
    at: SocketAddr,
    /// Where it is on the loopback of.
    host: Option<&'a Host>,
    token: Option<&'static str>,
    /// What it is called; else by its address.
    name: Option<&'static str>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl<'a> Admin<'a> {
    /// That of a server on this host, or on another.
    pub(crate) fn of(server: &Server, host: Option<&'a Host>) -> Self {
        let line = server.said("admin on http://");
        let at = line.trim_start_matches("admin on http://");
        let at = at.trim_end_matches('/').parse().expect("an address");
        Self {
            at,
            host,
            token: None,
            name: None,
        }
    }

    /// Who knows the token.
    pub(crate) fn with_token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    /// Who calls it by a name.
    pub(crate) fn called(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Where its page is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.at)
    }

    fn connect(&self) -> TcpStream {
        let at = self.at;
        let connect = move || TcpStream::connect(at).expect("the admin's listener");
        let stream = match self.host {
            Some(host) => host.within(connect),
            None => connect(),
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream
    }

    fn ask(&self, method: &str, path: &str, more: &str) -> TcpStream {
        let mut stream = self.connect();
        let (at, token) = (self.at.to_string(), self.token);
        let at = self.name.unwrap_or(&at);
        let token = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {at}\r\n{token}{more}");
        write!(stream, "{head}Connection: close\r\n\r\n").expect("a request");
        stream
    }

    /// The answer to a request.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, more: &str) -> Reply {
        let mut text = String::new();
        let mut stream = self.ask(method, path, more);
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Reply {
            status: status.expect("a status"),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    /// What is at a path.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        let reply = self.request("GET", path, "");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply
    }

    /// Does something.
    #[track_caller]
    pub(crate) fn post(&self, path: &str) -> Reply {
        self.request(
            "POST",
            path,
            "X-Cowherd-Intent: yes\r\nContent-Length: 0\r\n",
        )
    }

    /// Waits for an event that has a machine of which `is_it` is true.
    #[track_caller]
    pub(crate) fn until(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let lines = BufReader::new(self.ask("GET", "/api/v1/events", "")).lines();
        let end = Instant::now() + PATIENCE;
        for line in lines.map_while(Result::ok) {
            if Instant::now() > end {
                break;
            }
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            let event: Value = serde_json::from_str(data).expect("JSON");
            let clients = event["clients"].as_array().cloned().unwrap_or_default();
            if let Some(found) = clients.iter().find(|client| is_it(client)) {
                return found.clone();
            }
            last = event;
        }
        panic!("no such event; the last: {last}")
    }
}

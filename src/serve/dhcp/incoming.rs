//! What comes in through the sockets, passed on to the task that drives the core.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::link::OpenedLink;
use crate::dhcp::server::Port;
use crate::dhcp::wire::{Malformed, Message, Op};
use crate::io::{Batch, EAR_BYTES, EchoProbe, Heard};

/// What a socket has received.
#[derive(Debug)]
pub(super) enum Incoming {
    Message {
        link: usize,
        port: Port,
        from: SocketAddrV4,
        message: Message,
    },
    Malformed {
        from: SocketAddrV4,
        why: Malformed,
    },
    Heard(Heard),
    Echoed(Ipv4Addr),
}

/// Starts the tasks that receive from all sockets of a link.
pub(super) fn receive_all(
    of: &Arc<OpenedLink>,
    link: usize,
    to: &mpsc::Sender<Incoming>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for port in [Port::Server, Port::Boot] {
        tasks.spawn(receive(Arc::clone(of), link, port, to.clone()));
    }
    tasks.spawn(hear(Arc::clone(of), to.clone()));
    tasks.spawn(overhear(Arc::clone(of), link, to.clone()));
    tasks
}

/// Receives what comes to one port of one link, until nobody takes it any more.
async fn receive(of: Arc<OpenedLink>, link: usize, port: Port, to: mpsc::Sender<Incoming>) {
    let Some(socket) = of.socket(port) else {
        return;
    };
    let mut batch = Batch::default();
    while socket.readable().await.is_ok() {
        match socket.receive(&mut batch) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => {
                // Such as an interface that went down: what comes next may be fine.
                tracing::debug!("DHCP: {error}");
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
        }
        for (envelope, bytes) in batch.iter() {
            let from = envelope.from;
            let incoming = match Message::read(bytes) {
                Ok(message) => Incoming::Message {
                    link,
                    port,
                    from,
                    message,
                },
                Err(why) => Incoming::Malformed { from, why },
            };
            if to.send(incoming).await.is_err() {
                return;
            }
        }
    }
}

/// Passes on what is heard on a link beside the sockets: the requests that come to the port of
/// another server where we are a proxy, and else what other servers tell all clients.
async fn overhear(of: Arc<OpenedLink>, link: usize, to: mpsc::Sender<Incoming>) {
    let Some(ear) = of.ear() else { return };
    let is_proxy = of.socket(Port::Server).is_none();
    let mut packet = [0; EAR_BYTES];
    loop {
        let Ok((from, bytes)) = ear.hear(&mut packet).await else {
            tokio::time::sleep(RETRY_AFTER).await;
            continue;
        };
        let incoming = match Message::read(bytes) {
            Ok(message) if is_proxy || message.op == Op::Reply => Incoming::Message {
                link,
                port: Port::Server,
                from,
                message,
            },
            Err(why) if is_proxy => Incoming::Malformed { from, why },
            // What strangers send to clients is no business of ours.
            _ => continue,
        };
        if to.send(incoming).await.is_err() {
            return;
        }
    }
}

/// Pause after a socket failed, which only time can mend.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Passes on who says on a link that they have an address.
async fn hear(of: Arc<OpenedLink>, to: mpsc::Sender<Incoming>) {
    let Some(arp) = of.arp.as_ref() else { return };
    loop {
        match arp.hear().await {
            Ok(heard) => {
                if to.send(Incoming::Heard(heard)).await.is_err() {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}

/// Passes on who answers to an echo request.
pub(super) async fn hear_echoes(echo: Arc<EchoProbe>, to: mpsc::Sender<Incoming>) {
    loop {
        match echo.hear().await {
            Ok(address) => {
                if to.send(Incoming::Echoed(address)).await.is_err() {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}

//! What a hostile client costs its neighbours: latency of small reads with and without it, and of
//! new sessions where it is handshakes that it makes, since one thread leads them all.
//!
//! `cargo bench --bench neighbours [-- SECONDS]` (needs openssl). For each kind of hostility three
//! measurements take turns: the neighbour alone; with the hostility against a second server on the
//! same machine, which shows what the machine's processors are worth; and against the server that
//! is measured. Both servers have one shard, so that nothing gets out of the way.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const IMAGE_BYTES: u64 = 256 << 20;
const BLOCK: u32 = 4096;
const ROUNDS: usize = 5;

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(folder: &Path, name: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cowherd"))
            .args(["serve", "--shards", "1", "--listen", "127.0.0.1:0"])
            .arg("--config")
            .arg(folder.join("cowherd.toml"))
            .arg("--state")
            .arg(folder.join(name))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // To the last one, which it must be able to write.
        let lines = stdout.lines().map(Result::unwrap);
        let lines: Vec<_> = lines.take_while(|line| line != "ready").collect();
        let address = lines[0].trim().trim_start_matches("listening on nbd://");
        let address = address.trim_end_matches('/').parse().unwrap();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session of `export`, past its handshake by EXPORT_NAME.
fn open(address: SocketAddr, export: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(b"IHAVEOPT\0\0\0\x01");
    bytes.extend_from_slice(&u32::try_from(export.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(export.as_bytes());
    stream.write_all(&bytes).unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    stream
}

/// A connection that is led through a TLS handshake.
fn open_tls(address: SocketAddr, tls: &Arc<ClientConfig>) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.read_exact(&mut [0; 18]).ok()?;
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(b"IHAVEOPT\0\0\0\x05\0\0\0\0");
    stream.write_all(&bytes).ok()?;
    stream.read_exact(&mut [0; 20]).ok()?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(tls), name).unwrap();
    client.complete_io(&mut stream).ok()?;
    Some(stream)
}

/// The config of both servers, with certificates, and a client that trusts them.
fn configure(folder: &Path) -> Arc<ClientConfig> {
    let made = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tools/make-certificates"
    ))
    .arg(folder)
    .status();
    assert!(made.unwrap().success(), "certificates can be made");
    let file = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "[image.disk]\nfile = {:?}\n[tls]\nmode = \"selective\"\ncertificate = {:?}\nkey = {:?}\n",
        file("disk.img"),
        file("server-cert.pem"),
        file("server-key.pem")
    );
    std::fs::write(folder.join("cowherd.toml"), config).unwrap();
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(folder.join("ca-cert.pem")).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Every handshake is a whole one.
    client.resumption = Resumption::disabled();
    Arc::new(client)
}

fn read_request(offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0; 12]);
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

/// Reads for so long, one at a time; how long each took, in nanoseconds.
fn measure(neighbour: &mut TcpStream, time: Duration) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap();
    let mut reply = vec![0; 16 + BLOCK as usize];
    let mut dice = 7_u64;
    let end = Instant::now() + time;
    while Instant::now() < end {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let offset = (dice >> 33) % (IMAGE_BYTES / u64::from(BLOCK)) * u64::from(BLOCK);
        let begin = Instant::now();
        neighbour.write_all(&read_request(offset, BLOCK)).unwrap();
        neighbour.read_exact(&mut reply).unwrap();
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap();
        histogram.record(nanoseconds).unwrap();
    }
    histogram
}

/// Opens sessions for so long, one after the other; how long each took, in nanoseconds.
fn measure_opening(address: SocketAddr, time: Duration) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let begin = Instant::now();
        let session = open(address, "disk@newcomer");
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap();
        histogram.record(nanoseconds).unwrap();
        drop(session);
    }
    histogram
}

/// A hostility: begins, and goes on in threads until it is told to stop.
#[derive(Clone, Copy, Debug)]
enum Hostile {
    SlowReaders,
    Hoarder,
    Garbage,
    Flood,
    TlsFlood,
}

impl Hostile {
    const fn what(self) -> &'static str {
        match self {
            Self::SlowReaders => "8 clients ask for 64 MiB each and take nothing",
            Self::Hoarder => "1000 connections stay in their handshakes",
            Self::Garbage => "500 connections a second send 64 KiB of garbage",
            Self::Flood => "2000 connections a second open and close",
            Self::TlsFlood => "300 TLS handshakes a second are made and left",
        }
    }

    /// What must live for the hostility to last, and how often it is repeated a second, if it is.
    fn begin(self, address: SocketAddr) -> (Vec<TcpStream>, u32) {
        match self {
            Self::SlowReaders => {
                let ask = |nth| {
                    let mut stream = open(address, &format!("disk@slow-{nth}"));
                    for _ in 0..2 {
                        stream.write_all(&read_request(0, 32 << 20)).unwrap();
                    }
                    stream
                };
                ((0..8).map(ask).collect(), 0)
            }
            Self::Hoarder => {
                let connect = |_| TcpStream::connect(address).unwrap();
                ((0..1000).map(connect).collect(), 0)
            }
            Self::Garbage => (Vec::new(), 500),
            Self::Flood => (Vec::new(), 2000),
            Self::TlsFlood => (Vec::new(), 300),
        }
    }

    /// Whether newcomers have to share a thread with it.
    const fn shakes_hands(self) -> bool {
        matches!(self, Self::Flood | Self::TlsFlood)
    }

    fn again(self, address: SocketAddr, tls: &Arc<ClientConfig>) {
        if matches!(self, Self::TlsFlood) {
            drop(open_tls(address, tls));
            return;
        }
        let Ok(mut stream) = TcpStream::connect(address) else {
            return;
        };
        if matches!(self, Self::Garbage) {
            // The server may have closed before all is out.
            let _ = stream.write_all(&[0x5a; 64 * 1024]);
        }
    }

    /// Measures while the hostility is under way against `address`.
    fn during(
        self,
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
        measured: impl FnOnce() -> Histogram<u64>,
    ) -> Histogram<u64> {
        let (held, rate) = self.begin(address);
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let repeats = (rate > 0).then(|| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let tls = Arc::clone(tls);
            thread::spawn(move || {
                let begin = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let due = begin.elapsed().as_secs_f64() * f64::from(rate);
                    if (done.load(Ordering::Relaxed) as f64) < due {
                        self.again(address, &tls);
                        done.fetch_add(1, Ordering::Relaxed);
                    } else {
                        thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        });
        let histogram = measured();
        stop.store(true, Ordering::Relaxed);
        if let Some(repeats) = repeats {
            repeats.join().unwrap();
        }
        drop(held);
        histogram
    }
}

fn microseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

/// The middle one of several runs, at this quantile.
fn middle(runs: &[Histogram<u64>], quantile: f64) -> f64 {
    let mut values: Vec<_> = runs.iter().map(|run| microseconds(run, quantile)).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo test --all-targets` starts benchmarks too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let time = Duration::from_secs_f64(seconds.unwrap_or(2.0));
    let folder = tempfile::tempdir().unwrap();
    let image = std::fs::File::create(folder.path().join("disk.img")).unwrap();
    let piece: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for _ in 0..IMAGE_BYTES >> 20 {
        (&image).write_all(&piece).unwrap();
    }
    let tls = configure(folder.path());
    let ours = Server::start(folder.path(), "ours");
    let other = Server::start(folder.path(), "other");
    let mut neighbour = open(ours.address, "disk@neighbour");
    measure(&mut neighbour, time);
    println!("microseconds, the middle of {ROUNDS} runs");
    println!("{:<58}{:>8}{:>8}{:>9}", "", "p50", "p99", "p99.9");
    for hostile in [
        Hostile::SlowReaders,
        Hostile::Hoarder,
        Hostile::Garbage,
        Hostile::Flood,
        Hostile::TlsFlood,
    ] {
        println!("{}: reads of 4 KiB, one at a time", hostile.what());
        compare(hostile, &ours, &other, &tls, || {
            measure(&mut neighbour, time)
        });
        if hostile.shakes_hands() {
            println!("{}: new sessions, one at a time", hostile.what());
            compare(hostile, &ours, &other, &tls, || {
                measure_opening(ours.address, time)
            });
        }
    }
}

fn compare(
    hostile: Hostile,
    ours: &Server,
    other: &Server,
    tls: &Arc<ClientConfig>,
    mut measured: impl FnMut() -> Histogram<u64>,
) {
    let mut runs = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        runs[0].push(measured());
        runs[1].push(hostile.during(other.address, tls, &mut measured));
        runs[2].push(hostile.during(ours.address, tls, &mut measured));
    }
    for (name, runs) in ["alone", "against another server", "against this server"]
        .iter()
        .zip(&runs)
    {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| middle(runs, quantile));
        println!("    {name:<54}{p50:>8.1}{p99:>8.1}{p999:>9.1}");
    }
}

//! A server of files by TFTP, for real clients.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::data::{assert_same, pseudo_random, read_file, write_file};
use super::server::{Server, Setup};
use super::tool::Tool;

/// A server whose tree has a file for each size, named after it.
pub(crate) struct TftpServer {
    /// It.
    pub(crate) server: Server,
    /// Where it takes requests.
    pub(crate) at: SocketAddr,
}

impl TftpServer {
    /// One with files of these sizes.
    pub(crate) fn new(sizes: &[usize]) -> Self {
        let setup = Setup::new();
        let root = setup.file("tree");
        std::fs::create_dir(&root).expect("a new folder");
        let disk = setup.file("disk.img");
        write_file(&disk, &[7; 4096]);
        for size in sizes {
            write_file(&root.join(size.to_string()), &content(*size));
        }
        let config = setup.file("cowherd.toml");
        let text = format!(
            "[image.disk]\nfile = {disk:?}\n[tftp]\nroot = {root:?}\nlisten = \"127.0.0.1:0\"\n"
        );
        write_file(&config, text.as_bytes());
        let server = setup.with_arg("--config").with_arg(config).start();
        let line = server.said("tftp on ");
        let at = line.trim_start_matches("tftp on ").parse();
        let at = at.expect("an address and a port");
        Self { server, at }
    }

    /// A path below its home.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.server.setup().file(name)
    }

    /// Fetches every file with `fetch`, which is told its name and where to put it.
    pub(crate) fn fetches(&self, sizes: &[usize], fetch: impl Fn(&str, &str) -> Tool) {
        for size in sizes {
            let name = size.to_string();
            let target = self.file("fetched");
            let _ = std::fs::remove_file(&target);
            fetch(&name, target.to_str().expect("a plain path")).ok();
            assert_same(&read_file(&target), &content(*size), &name);
        }
    }

    pub(crate) fn host(&self) -> String {
        self.at.ip().to_string()
    }

    pub(crate) fn port(&self) -> String {
        self.at.port().to_string()
    }
}

fn content(size: usize) -> Vec<u8> {
    pseudo_random(size as u64, size)
}

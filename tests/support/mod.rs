//! What the end-to-end tests share: the program as a child process, their own client, foreign
//! tools.

mod admin;
mod browser;
mod data;
mod guest;
mod journals;
mod lan;
mod libnbd;
mod manager;
mod mount;
pub(crate) mod nbd;
mod netboot;
mod relay;
pub(crate) mod room;
mod server;
mod stall;
mod stamps;
mod tftp;
mod tls;
mod tool;
mod worker;

pub(crate) use admin::{Admin, TOKEN};
pub(crate) use browser::{Browser, picture, row, seconds_of};
pub(crate) use data::{
    Fingerprint, Seeded, assert_same, btrfs_image, pseudo_random, read_file, write_file,
};
pub(crate) use guest::Guest;
pub(crate) use journals::{checkpoint_generation, nearly_fill_journal};
pub(crate) use lan::{Card, Host, Lan};
pub(crate) use libnbd::libnbd_until;
pub(crate) use manager::Manager;
pub(crate) use mount::{Mount, make_file_system};
pub(crate) use netboot::NetBoot;
pub(crate) use relay::{Odds, Relay};
pub(crate) use room::Room;
pub(crate) use server::{PATIENCE, Refusal, Server, Setup, eventually};
pub(crate) use stall::{Frozen, StallingDisk};
pub(crate) use stamps::{SECTOR, Stamps};
pub(crate) use tftp::TftpServer;
pub(crate) use tls::Certificates;
pub(crate) use tool::{Finished, Tool, is_root, require, skipped};
pub(crate) use worker::{Rewriter, Work, Worker, longest_step, median, pause_in};

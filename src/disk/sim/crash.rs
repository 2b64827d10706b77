//! What a simulated disk may hold after a power loss.
//!
//! Each sector and each name that changed since its last sync is a [`Choice`] of its own: any
//! combination is legal. Who explores them answers the choices; the order in which they are asked
//! is always the same for the same [`Moment`].

use std::sync::Arc;

use super::SimDisk;
use super::content::{Content, FileNode, SECTOR};
use super::tree::{DirNode, Node, Tree};

/// A simulated disk as it was after one call.
#[derive(Clone, Debug)]
pub struct Moment {
    pub(super) tree: Tree,
}

/// Something that the power loss decides.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The number of the file or directory: choices with one number come one after the other.
    pub place: u64,
    /// Option 0 is what is durable; option i is what the call `calls[i - 1]` made of it.
    pub calls: &'a [u64],
    /// Whether there is one more option: garbage, where the file system had no place before.
    pub garbage: bool,
}

impl Choice<'_> {
    /// How many answers there are, at least two.
    #[must_use]
    pub const fn options(&self) -> usize {
        1 + self.calls.len() + self.garbage as usize
    }
}

impl Moment {
    /// How many combinations there are; 1 where everything is durable.
    #[must_use]
    pub fn combinations(&self) -> u128 {
        let mut product = 1u128;
        let _ = self.crash(&mut |choice| {
            product = product.saturating_mul(choice.options() as u128);
            0
        });
        product
    }

    /// The disk after a power loss that left of each choice what `choose` answers.
    #[must_use]
    pub fn crash(&self, choose: &mut dyn FnMut(&Choice<'_>) -> usize) -> SimDisk {
        let mut tree = self.tree.clone();
        for (&place, node) in &mut tree.nodes {
            let crashed = match &**node {
                Node::File(file) if !file.is_settled() => {
                    Node::File(crash_file(file, place, choose))
                }
                Node::Dir(dir) if !dir.changes.is_empty() => {
                    Node::Dir(crash_dir(dir, place, choose))
                }
                _ => continue,
            };
            *node = Arc::new(crashed);
        }
        SimDisk::from_tree(tree)
    }

    /// The same disk, running on: as another process finds it after a kill.
    #[must_use]
    pub fn running(&self) -> SimDisk {
        SimDisk::from_tree(self.tree.clone())
    }
}

fn crash_file(
    file: &FileNode,
    place: u64,
    choose: &mut dyn FnMut(&Choice<'_>) -> usize,
) -> FileNode {
    let mut content = file.durable.clone();
    let mut len = content.len();
    let calls: Vec<u64> = file.sizes.iter().map(|size| size.call).collect();
    if !calls.is_empty() {
        let answer = choose(&Choice {
            place,
            calls: &calls,
            garbage: false,
        });
        let resized = answer.checked_sub(1).and_then(|i| file.sizes.get(i));
        len = resized.map_or(len, |size| size.len);
    }
    content.resize(content.len().max(len));
    crash_sectors(file, &mut content, place, choose);
    content.resize(len);
    FileNode::settled(content)
}

fn crash_sectors(
    file: &FileNode,
    content: &mut Content,
    place: u64,
    choose: &mut dyn FnMut(&Choice<'_>) -> usize,
) {
    let mut calls = Vec::new();
    for (&sector, versions) in &file.sectors {
        calls.clear();
        calls.extend(versions.iter().map(|version| version.call));
        let is_new = sector * SECTOR >= file.durable.len() || !file.durable.is_allocated(sector);
        let answer = choose(&Choice {
            place,
            calls: &calls,
            garbage: is_new,
        });
        let Some(chosen) = answer.checked_sub(1) else {
            continue;
        };
        match versions.get(chosen) {
            Some(version) => content.set_sector(sector, &version.bytes),
            None => content.set_sector(sector, &[0xdb; 512]),
        }
    }
}

fn crash_dir(dir: &DirNode, place: u64, choose: &mut dyn FnMut(&Choice<'_>) -> usize) -> DirNode {
    let mut names = dir.durable.clone();
    for (call, change) in &dir.changes {
        let answer = choose(&Choice {
            place,
            calls: &[*call],
            garbage: false,
        });
        if answer != 0 {
            change.apply(&mut names);
        }
    }
    DirNode {
        durable: names.clone(),
        cached: names,
        changes: Vec::new(),
    }
}

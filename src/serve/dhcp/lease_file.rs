//! The lease file, `STATE/leases`: read once, then appended to, now and then written anew.
//!
//! Invariants:
//! - What was appended is durable before [`LeaseFile::save`] comes back.
//! - A write or sync that failed is not tried again on the same file: the next one writes all that
//!   is known to a new file, which takes the place of the old one as a whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::dhcp::Moment;
use crate::dhcp::lease::Record;
use crate::dhcp::lease::file::{self, BootId, Chain};
use crate::limits::LEASE_FILE_MAX;
use crate::serve::host;
use crate::serve::options::Failure;
use crate::serve::state_dir::durable;

/// Bytes from which on a file is written anew, once that halves it.
const REWRITE_MIN: u64 = 1 << 20;

/// What the file at `path` holds, with moments of this boot.
///
/// # Errors
/// It can't be read, or is damaged.
pub(super) fn read(path: &Path, boot: &BootId, now: Moment) -> Result<Vec<Record>, Failure> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        Failure::failed(format!(
            "lease file {}: {reason}; restore it, or move it away and start all clients again: \
             without it an address could be given twice",
            path.display()
        ))
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(|error| unreadable(&error))?,
    };
    let mut bytes = Vec::new();
    let most = LEASE_FILE_MAX + 1;
    let read = file.take(most).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 == most {
        return Err(unreadable(&"larger than any lease file"));
    }
    let recovered = file::read(&bytes, boot, now).map_err(|damage| unreadable(&damage))?;
    if recovered.torn > 0 {
        tracing::info!(
            "lease file: the last write was not finished, {} bytes are left out",
            recovered.torn
        );
    }
    Ok(recovered.records)
}

/// The open file.
#[derive(Debug)]
pub(super) struct LeaseFile {
    path: PathBuf,
    boot: BootId,
    /// `None` where it has to be written anew before anything else.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    chain: Chain,
    length: u64,
    /// Its length when it was written anew.
    begun: u64,
}

/// What is to be saved.
#[derive(Debug)]
pub(super) enum Saving {
    /// These are new.
    Append(Vec<Record>),
    /// These are all.
    Anew(Vec<Record>),
}

impl LeaseFile {
    /// A file that is written by the first [`Self::save`], which has to be [`Saving::Anew`].
    pub(super) const fn new(path: PathBuf, boot: BootId) -> Self {
        let open = None;
        Self { path, boot, open }
    }

    /// What the file holds now, after another server has had it. In proxy mode there is none.
    ///
    /// # Errors
    /// It can't be read, or is damaged.
    pub(super) fn read_again(&self) -> Result<Vec<Record>, Failure> {
        match self.path.as_os_str().is_empty() {
            true => Ok(Vec::new()),
            false => read(&self.path, &self.boot, host::moment()),
        }
    }

    /// The file, to be written anew before anything else: another server has had it.
    pub(super) fn begin_anew(self) -> Self {
        Self { open: None, ..self }
    }

    /// Whether all records are to be saved, and not only the new ones.
    pub(super) fn wants_all(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| open.length > REWRITE_MIN.max(2 * open.begun))
    }

    /// Saves; what was to be saved is durable afterwards.
    ///
    /// # Errors
    /// The disk failed. Everything is to be saved anew then.
    pub(super) fn save(&mut self, saving: &Saving) -> io::Result<()> {
        match (saving, self.open.take()) {
            (Saving::Append(records), Some(mut open)) => {
                // Only after success is it there again.
                open.append(records)?;
                self.open = Some(open);
                Ok(())
            }
            (Saving::Anew(records), _) => {
                self.open = Some(self.write_anew(records)?);
                Ok(())
            }
            (Saving::Append(_), None) => Err(io::Error::other("an earlier write failed")),
        }
    }

    fn write_anew(&self, records: &[Record]) -> io::Result<Open> {
        let (bytes, chain) = file::start(&self.boot, records.iter().cloned());
        durable::write(&self.path, &bytes)?;
        let file = File::options().append(true).open(&self.path)?;
        let begun = bytes.len() as u64;
        Ok(Open {
            file,
            chain,
            length: begun,
            begun,
        })
    }
}

impl Open {
    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let bytes = self.chain.append(records);
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::lease::{Key, Saved};
    use crate::mac::MacAddress;

    const BOOT: BootId = [7; 16];

    fn record(last: u8) -> Record {
        let mac = MacAddress([2, 0, 0, 0, 0, last]);
        Record {
            address: [10, 0, 0, last].into(),
            key: Key::Mac(mac),
            mac,
            state: Saved::Leased,
            until: Moment(60_000),
            length: 60_000,
        }
    }

    fn addresses(path: &Path) -> Vec<u8> {
        let records = read(path, &BOOT, Moment(0)).unwrap();
        records
            .iter()
            .map(|record| record.address.octets()[3])
            .collect()
    }

    #[test]
    fn what_was_saved_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        assert!(addresses(&path).is_empty());
        let mut file = LeaseFile::new(path.clone(), BOOT);
        file.save(&Saving::Anew(vec![record(1)])).unwrap();
        file.save(&Saving::Append(vec![record(2), record(3)]))
            .unwrap();
        file.save(&Saving::Append(vec![record(4)])).unwrap();
        assert_eq!(addresses(&path), [1, 2, 3, 4]);
    }

    #[test]
    fn a_file_that_grew_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        let mut file = LeaseFile::new(path.clone(), BOOT);
        assert!(file.wants_all());
        file.save(&Saving::Anew(Vec::new())).unwrap();
        let many = vec![record(1); 5000];
        while !file.wants_all() {
            file.save(&Saving::Append(many.clone())).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() > REWRITE_MIN);
        file.save(&Saving::Anew(vec![record(1)])).unwrap();
        assert!(!file.wants_all());
        assert_eq!(addresses(&path), [1]);
        assert!(std::fs::metadata(&path).unwrap().len() < 200);
    }

    #[test]
    fn after_a_write_that_failed_only_a_new_file_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        let mut file = LeaseFile::new(path.clone(), BOOT);
        file.save(&Saving::Anew(Vec::new())).unwrap();
        // A file that was opened for reading takes no bytes.
        file.open.as_mut().unwrap().file = File::open(&path).unwrap();
        assert!(file.save(&Saving::Append(vec![record(1)])).is_err());
        assert!(file.wants_all());
        assert!(file.save(&Saving::Append(vec![record(1)])).is_err());
        file.save(&Saving::Anew(vec![record(1)])).unwrap();
        assert_eq!(addresses(&path), [1]);
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        std::fs::write(&path, "no such thing").unwrap();
        let message = read(&path, &BOOT, Moment(0)).unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
}

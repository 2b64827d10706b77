//! The data of the options INFO and GO: an export's name and the facts that are asked about it.

use super::{InfoType, TextError, text};

/// What makes the data of INFO or GO malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The lengths inside don't add up to the length of the option.
    #[error("the lengths inside the option don't add up to its own length")]
    Length,
    /// The name is no string of the protocol.
    #[error(transparent)]
    Name(#[from] TextError),
}

/// The data of INFO or GO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfoQuery {
    /// The export's name as the client wrote it; empty for the default export.
    pub name: String,
    /// The facts asked for, known or not, in the order they came.
    pub infos: Vec<InfoType>,
}

impl InfoQuery {
    /// The query in `data`, which is the whole data of the option.
    ///
    /// # Errors
    /// Where lengths disagree or the name is malformed.
    pub fn from_bytes(data: &[u8]) -> Result<Self, QueryError> {
        let (name, rest) = split_name(data).ok_or(QueryError::Length)?;
        let infos = split_infos(rest).ok_or(QueryError::Length)?;
        Ok(Self {
            name: text(name)?.to_owned(),
            infos,
        })
    }

    /// The bytes a client sends.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let name_length = u32::try_from(self.name.len()).unwrap_or(u32::MAX);
        let count = u16::try_from(self.infos.len()).unwrap_or(u16::MAX);
        let mut bytes = name_length.to_be_bytes().to_vec();
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
        for info in &self.infos {
            bytes.extend_from_slice(&info.to_wire().to_be_bytes());
        }
        bytes
    }
}

/// "32 bits, length of name (unsigned); MUST be no larger than the option data length - 6".
fn split_name(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

/// "16 bits, number of information requests; 16 bits x n - list of `NBD_INFO` information requests"
fn split_infos(data: &[u8]) -> Option<Vec<InfoType>> {
    let (count, list) = data.split_first_chunk()?;
    let (infos, rest) = list.as_chunks::<2>();
    let complete = infos.len() == usize::from(u16::from_be_bytes(*count)) && rest.is_empty();
    complete.then(|| {
        infos
            .iter()
            .map(|raw| InfoType::from_wire(u16::from_be_bytes(*raw)))
            .collect()
    })
}

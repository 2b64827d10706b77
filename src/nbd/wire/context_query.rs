//! The data of the options LIST_META_CONTEXT and SET_META_CONTEXT.

use super::{QueryError, text};

/// An export's name and what is asked of its contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextQuery {
    /// The export's name as the client wrote it; empty for the default export.
    pub name: String,
    /// The queries, in the order they came.
    pub queries: Vec<String>,
}

impl ContextQuery {
    /// The query in `data`, which is the whole data of the option: "32 bits, length of export name;
    /// String, name of export [...]; 32 bits, number of queries; Zero or more queries, each being:
    /// 32 bits, length of query; String".
    ///
    /// # Errors
    /// Where lengths disagree or a string is malformed.
    pub fn from_bytes(data: &[u8]) -> Result<Self, QueryError> {
        let (name, rest) = split_string(data).ok_or(QueryError::Length)?;
        let name = text(name)?.to_owned();
        let (count, mut rest) = split_number(rest).ok_or(QueryError::Length)?;
        // Each query takes four bytes at least, so the data bound how many can come.
        let mut queries = Vec::new();
        for _ in 0..count {
            let (query, after) = split_string(rest).ok_or(QueryError::Length)?;
            queries.push(text(query)?.to_owned());
            rest = after;
        }
        let complete = rest.is_empty().then_some(Self { name, queries });
        complete.ok_or(QueryError::Length)
    }

    /// The bytes a client sends.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = string_bytes(&self.name);
        let count = u32::try_from(self.queries.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.extend(self.queries.iter().flat_map(|query| string_bytes(query)));
        bytes
    }
}

fn string_bytes(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn split_number(data: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = data.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// A string with its length before it.
fn split_string(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = split_number(data)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_that_disagree_are_refused() {
        let cases: [&[u8]; 7] = [
            b"",
            b"\0\0\0\x01",
            b"\0\0\0\x01a",
            b"\0\0\0\x01a\0\0\0\x01",
            b"\0\0\0\x01a\0\0\0\x01\0\0\0\x02b",
            b"\0\0\0\x01a\0\0\0\0x",
            b"\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0",
        ];
        for data in cases {
            let read = ContextQuery::from_bytes(data);
            assert_eq!(read, Err(QueryError::Length), "{data:?}");
        }
    }

    #[test]
    fn a_query_is_a_string_of_the_protocol() {
        let data = b"\0\0\0\0\0\0\0\x01\0\0\0\x01\xff";
        assert!(matches!(
            ContextQuery::from_bytes(data),
            Err(QueryError::Name(_))
        ));
    }

    proptest! {
        #[test]
        fn queries_come_back_as_sent(
            name in "[^\0]{0,40}",
            queries in proptest::collection::vec("[^\0]{0,20}", 0..5),
        ) {
            let query = ContextQuery { name, queries };
            prop_assert_eq!(ContextQuery::from_bytes(&query.to_bytes()), Ok(query));
        }

        #[test]
        fn arbitrary_bytes_never_panic(data: Vec<u8>) {
            let _ = ContextQuery::from_bytes(&data);
        }
    }
}

//! Which message is meant: its own id, or its partition's id and its producer's id.
//!
//! In: one or two words of a command line. Out: a partition's id and a message's, as routes take them. A
//! message's own id holds its partition, so it is enough. Pure. Called by commands about one message.

use clap::Args;
use onrush_protocol::MessageId;
use onrush_protocol::id::{partition_uuid, uuid_text};

use crate::fault::Fault;

/// Which message.
#[derive(Args, Clone, Debug)]
pub(crate) struct MessageArgs {
    /// Its id; or the id of its partition, with its transaction id behind it
    #[arg(value_name = "ID")]
    first: String,
    /// Its transaction id, as its producer gave it
    #[arg(value_name = "TRANSACTION_ID")]
    second: Option<String>,
}

/// A message's place in routes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    pub(crate) partition_id: String,
    pub(crate) transaction_id: String,
}

impl MessageArgs {
    /// Where the message is.
    pub(crate) fn address(&self) -> Result<Address, Fault> {
        match &self.second {
            Some(transaction_id) => Ok(Address {
                partition_id: self.first.clone(),
                transaction_id: transaction_id.clone(),
            }),
            None => Address::of_id(&self.first),
        }
    }
}

impl Address {
    /// Where the message with this id is.
    pub(crate) fn of_id(id: &str) -> Result<Self, Fault> {
        let parsed = MessageId::parse(id).map_err(|error| {
            Fault::usage_with(
                format!("{id:?} is no message's id: {error}"),
                "for a producer's transaction id, put the id of the partition before it",
            )
        })?;
        let (_, partition, _) = parsed.parts();
        Ok(Self { partition_id: partition_id(partition), transaction_id: id.to_owned() })
    }
}

/// A partition's id as text.
pub(crate) fn partition_id(number: u32) -> String {
    uuid(partition_uuid(number))
}

/// A UUID as text.
pub(crate) fn uuid(bytes: [u8; 16]) -> String {
    std::str::from_utf8(&uuid_text(bytes)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_its_message_is() {
        let id = MessageId::new(1_000, 7, 9).unwrap().to_string();
        let address = Address::of_id(&id).unwrap();
        assert_eq!((address.partition_id, address.transaction_id), (partition_id(7), id));
        assert_eq!(Address::of_id("payment-1").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn two_words_are_taken_as_they_are() {
        let named = MessageArgs { first: "p".to_owned(), second: Some("t".to_owned()) };
        let address = named.address().unwrap();
        assert_eq!((address.partition_id.as_str(), address.transaction_id.as_str()), ("p", "t"));
    }
}

//! Async client for the Onrush binary protocol.
//!
//! ```no_run
//! # async fn example() -> Result<(), onrush_client::Error> {
//! use std::time::Duration;
//! use onrush_client::{Client, Message, Qos};
//!
//! let client = Client::connect("127.0.0.1:6631").await?;
//! let orders = client.queue("orders").partition("customer-123");
//!
//! let result = orders
//!     .push([Message::json(&serde_json::json!({"orderId": "O-12345", "amount": 99.99}))
//!         .transaction_id("order-O-12345")])
//!     .qos(Qos::ExactlyOnce)
//!     .on_duplicate(|receipts| eprintln!("{} were there before", receipts.len()))
//!     .await?;
//! assert!(result.is_complete());
//!
//! let popped = orders.pop().group("billing").batch(100).wait(Duration::from_secs(5)).await?;
//! for message in &popped {
//!     let order: serde_json::Value = message.json()?;
//!     eprintln!("{} in {}: {order}", message.id, message.partition_name());
//! }
//! client.ack(&popped).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What waits, and for how long
//!
//! Every request waits for its answer: at most `request_timeout` for each attempt, plus its own
//! waiting time for a pop; at most `retries` more attempts, with sleeps between. A request is tried
//! again by itself only when its error says that it may help **and** it cannot do anything twice:
//! because nothing was done, or because transaction ids make it safe. All time is tokio's, so
//! tests can pause it.
//!
//! # What dropping a future does
//!
//! A future that was never polled has sent nothing. One that was sent is done by the server all
//! the same; only its answer is thrown away. Each builder says what that means for it.
//!
//! # The crate, one line a file
//!
//! | file | what it decides |
//! |---|---|
//! | `client` | what is tried again, and when |
//! | `builder` | settings and their defaults |
//! | `queue` | the start of every fluent sentence |
//! | `message`, `push` | messages in: batches, splitting, receipts |
//! | `pop`, `received` | messages out |
//! | `ack` | which ranges say it all |
//! | `desk`, `letters` | messages and dead letters as whoever runs queues sees them |
//! | `process` | what is asked of processes, and how far it is waited for |
//! | `group` | where consumer groups stand and are sent |
//! | `consume` | the loop that pops, handles and acknowledges |
//! | `transaction` | acks and pushes that stand or fall as a whole |
//! | `buffer` | collecting messages before they are pushed |
//! | `session` | which connection is used, and who dials |
//! | `connection` | many requests under way on one connection |
//! | `breaker`, `backoff` | pure: when to leave a server alone |
//! | `error` | what can go wrong, and whether to try again |

mod ack;
mod backoff;
mod breaker;
mod buffer;
mod builder;
mod client;
mod connection;
mod consume;
mod desk;
mod error;
mod group;
mod letters;
mod message;
mod pop;
mod process;
mod push;
mod queue;
mod received;
mod session;
mod transaction;

pub use ack::{AckReport, RefusedRange};
pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState};
pub use buffer::{Buffer, FlushReport};
pub use builder::ClientBuilder;
pub use client::Client;
#[cfg(feature = "tls")]
pub use connection::tls::Roots;
pub use connection::{ConnectOptions, Connection};
pub use consume::{Consume, ConsumeReport, Consumer, Each, Handler, InBatches, StopHandle};
pub use desk::{Content, ListOfMessages, OneMessage, StoredMessage};
pub use error::{Error, Refusal};
pub use group::{Group, KeepStart, QueueGroup};
pub use letters::{DeadLetter, DeadLetterPage, LetterJob, ListOfLetters};
pub use message::Message;
pub use pop::Pop;
pub use process::{
    CascadeHandle, Instance, ProcessClass, ProcessPush, ProcessReply, PushSlot, ReplyStatus,
};
pub use push::{MessageReceipt, MessageStatus, Push, PushResult};
pub use queue::{BoxFuture, Config, Queue};
pub use received::{Popped, ReceivedMessage};
pub use transaction::{Committed, Transaction};

pub use onrush_protocol::request::{AckOutcome, AwaitLevel, SubscriptionStart};
pub use onrush_protocol::response::{
    GroupStanding, Job, JobKind, JobState, Letter, LetterReason, MessageGroup, MessagePage,
    MessageShown, MessageStanding, PartitionStanding, QueueShown,
};
pub use onrush_protocol::{
    Code, GroupName, LeaseToken, MessageId, NO_LEASE, Outcome, PartitionName, Qos, QueueName,
    QueueOptions,
};
pub use uuid::Uuid;

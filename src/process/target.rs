//! Where an entry of an outbox goes, as guests write it.
//!
//! ```text
//! class/key                a process, or the partition of a plain queue where there is no such class
//! @name                    an alias of the sender's class
//! queue:name[/partition]   a plain queue
//! $self $sender $reply $timer
//! [METHOD ]https://…       a server elsewhere
//! ```
//!
//! Pure: the words only. What they mean now, `route` finds out.

use onrush_protocol::name::{PartitionName, QueueName};

use crate::process::call::{self, Call};
use crate::state::classes::OWN_NAME;

/// A target that was understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// A process, or a plain queue.
    Named(QueueName, PartitionName),
    /// A plain queue.
    Queue(QueueName, PartitionName),
    /// An alias, without its `@`.
    Alias(Box<str>),
    /// The sender of the entry itself.
    Own,
    /// Whoever sent the message that is being evaluated.
    Sender,
    /// Whoever waits for an answer.
    Reply,
    /// A server elsewhere.
    Outside(Call),
}

/// Reads a target; `None` where it is none.
pub(super) fn parse(text: &str) -> Option<Target> {
    match text {
        "$self" | "$timer" => return Some(Target::Own),
        "$sender" => return Some(Target::Sender),
        "$reply" => return Some(Target::Reply),
        _ => {}
    }
    if text.contains("://") {
        return call::parse(text).map(Target::Outside);
    }
    if let Some(alias) = text.strip_prefix('@') {
        return (!alias.is_empty()).then(|| Target::Alias(alias.into()));
    }
    if text.starts_with('$') {
        return None;
    }
    if let Some(queue) = text.strip_prefix("queue:") {
        let (queue, partition) = split(queue)?;
        return Some(Target::Queue(queue, partition));
    }
    let (class, key) = split(text)?;
    Some(Target::Named(class, key))
}

/// A queue and a partition, which may be left out. The queue of the room itself is nobody's target.
pub(super) fn split(text: &str) -> Option<(QueueName, PartitionName)> {
    let (queue, partition) = match text.split_once('/') {
        Some((queue, partition)) => (queue, partition.parse().ok()?),
        None => (text, PartitionName::default()),
    };
    let queue: QueueName = queue.parse().ok()?;
    let is_open = !queue.as_str().is_empty() && queue.as_str() != OWN_NAME;
    is_open.then_some((queue, partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let named = |class: &str, key: &str| {
            Some(Target::Named(class.parse().unwrap(), key.parse().unwrap()))
        };
        let queue = |name: &str, partition: &str| {
            Some(Target::Queue(name.parse().unwrap(), partition.parse().unwrap()))
        };
        for (text, target) in [
            ("ledger/a", named("ledger", "a")),
            ("ledger/a/b", named("ledger", "a/b")),
            ("ledger", named("ledger", "Default")),
            ("queue:out", queue("out", "Default")),
            ("queue:out/p", queue("out", "p")),
            ("@bank", Some(Target::Alias("bank".into()))),
            ("$self", Some(Target::Own)),
            ("$timer", Some(Target::Own)),
            ("$sender", Some(Target::Sender)),
            ("$reply", Some(Target::Reply)),
            ("$other", None),
            ("@", None),
            ("", None),
            ("ledger/", None),
            ("/a", None),
            ("a\u{1}/b", None),
            ("ftp://a/b", None),
            ("queue:$process/desk", None),
            ("queue:$process", None),
        ] {
            assert_eq!(parse(text), target, "{text}");
        }
    }
}

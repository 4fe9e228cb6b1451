//! What is asked of a queue, and how much of it: all its settings, or only those that are named.
//!
//! In: settings as a client sends them. Out: the settings of the queue afterwards. Pure. Called by `round`,
//! which alone knows what the queue is at that moment, and by `catalog`, which judges beforehand.

use onrush_protocol::options::QueueOptions;

use crate::state::catalog::QueueDefinition;

/// Settings of a queue that a change is about, and no others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Named(u32);

impl Named {
    /// Whether messages are rows too; options have the numbers before it.
    pub const SQL_ROWS: u8 = 16;
    /// The namespace.
    pub const NAMESPACE: u8 = 17;
    /// The task.
    pub const TASK: u8 = 18;

    /// One more, by its number: that of an option is the one in [`QueueOptions::NAMES`].
    #[must_use]
    pub fn with(self, number: u8) -> Self {
        Self(self.0 | 1 << (number & 31))
    }

    /// Whether it is among them.
    #[must_use]
    pub fn has(self, number: u8) -> bool {
        self.0 & 1 << (number & 31) != 0
    }
}

/// What is asked of a queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    /// How it behaves.
    pub options: QueueOptions,
    /// Whether its messages are also to be rows for people who ask in SQL.
    pub sql_rows: bool,
    /// Whether the options say how long a message lives, rather than leaving it to the default.
    pub ttl_asked: bool,
    /// What of it is meant where the rest is to stay as it is; `None` is all of it.
    pub only: Option<Named>,
}

/// The option that says how long a message lives.
const TTL: u8 = 3;

impl Asked {
    /// Whether a setting is to be as it says here.
    #[must_use]
    pub fn names(&self, number: u8) -> bool {
        self.only.is_none_or(|only| only.has(number))
    }

    /// All settings, once these are laid over those of a queue.
    #[must_use]
    pub fn over(self, before: &QueueDefinition, had_sql_rows: bool) -> Self {
        if self.only.is_none() {
            return self;
        }
        let mut options = before.options;
        for (number, _) in QueueOptions::NAMES.iter().filter(|(it, _)| self.names(*it)) {
            options.take(*number, &self.options);
        }
        let sql_rows = if self.names(Named::SQL_ROWS) { self.sql_rows } else { had_sql_rows };
        let ttl_asked = if self.names(TTL) { self.ttl_asked } else { before.ttl_asked };
        Self { options, sql_rows, ttl_asked, only: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> QueueDefinition {
        let options =
            QueueOptions { lease_time_s: 7, ttl_s: 3600, priority: -2, ..QueueOptions::default() };
        QueueDefinition {
            id: 1,
            name: "q".into(),
            namespace: "n".into(),
            task: "t".into(),
            created_ms: 0,
            options,
            sealed: false,
            ttl_asked: true,
        }
    }

    #[test]
    fn what_is_not_named_stays_and_what_is_named_may_be_the_default_again() {
        let number = |name: &str| QueueOptions::NAMES.iter().find(|it| it.1 == name).unwrap().0;
        assert_eq!(number("ttl_s"), TTL);
        let only = Named::default().with(number("priority")).with(number("max_size"));
        let options = QueueOptions { max_size: 9, ..QueueOptions::default() };
        let asked = Asked { options, only: Some(only), ..Asked::default() };
        let all = asked.over(&before(), true);
        let expected =
            QueueOptions { lease_time_s: 7, max_size: 9, priority: 0, ..QueueOptions::default() };
        assert_eq!((all.options, all.sql_rows, all.ttl_asked), (expected, true, true));
        // Where nothing is said of that, everything is meant.
        let asked = Asked { options, ..Asked::default() };
        assert_eq!(asked.over(&before(), true), asked);
        let only = Some(Named::default().with(TTL).with(Named::SQL_ROWS));
        let all = Asked { only, ..Asked::default() }.over(&before(), true);
        assert_eq!((all.sql_rows, all.ttl_asked, all.options.priority), (false, false, -2));
    }

    #[test]
    fn every_option_has_a_number_of_its_own_before_what_is_no_option() {
        let mut seen = Named::default();
        for (number, name) in QueueOptions::NAMES {
            assert!(*number < Named::SQL_ROWS && !seen.has(*number), "{name}");
            seen = seen.with(*number);
        }
        assert!(!seen.has(Named::NAMESPACE) && seen.with(Named::TASK).has(Named::TASK));
    }
}

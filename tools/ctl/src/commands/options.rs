//! A queue's options on the command line.
//!
//! In: flags. Out: the options object of a configure request. Times are durations here and whole seconds or
//! milliseconds there; one that does not fit is refused by the flag's name. Pure. Called by `queues`.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::moments::duration;

/// What may be set.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OptionArgs {
    /// Namespace that the queue belongs to
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// What the queue is for
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// How long a consumer holds what it popped
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Options of the queue")]
    lease_time: Option<Duration>,
    /// How many times a failed message is tried again
    #[arg(long, value_name = "TIMES", help_heading = "Options of the queue")]
    retry_limit: Option<u32>,
    /// How long a failed message waits before it is tried again
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Options of the queue")]
    retry_delay: Option<Duration>,
    /// How long a message stays out of sight after it was pushed
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Options of the queue")]
    delayed_processing: Option<Duration>,
    /// How long a partition has to be quiet before it is handed out
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Options of the queue")]
    window_buffer: Option<Duration>,
    /// Which of several queues is asked first: the highest
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        help_heading = "Options of the queue"
    )]
    priority: Option<i32>,
    /// Most messages that are not done; 0 is no limit
    #[arg(long, value_name = "MESSAGES", help_heading = "Options of the queue")]
    max_size: Option<u64>,
    /// The age at which a message is dropped; 0 is never
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Options of the queue")]
    ttl: Option<Duration>,
    /// The same, without a default; the shorter one counts
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Options of the queue")]
    max_wait_time: Option<Duration>,
    /// Whether the two retentions count
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Options of the queue")]
    retention_enabled: Option<bool>,
    /// The age at which a message is removed, whoever has seen it; 0 is never
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Options of the queue")]
    retention: Option<Duration>,
    /// The age at which a message is removed that all groups are done with; 0 is never
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Options of the queue")]
    completed_retention: Option<Duration>,
    /// Whether payloads are encrypted at rest
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Options of the queue")]
    encryption_enabled: Option<bool>,
    /// Kept and shown for other clients; dead letters are made either way
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Options of the queue")]
    dead_letter_queue: Option<bool>,
    /// Kept and shown for other clients; dead letters are made either way
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Options of the queue")]
    dlq_after_max_retries: Option<bool>,
    /// Whether messages are also rows of the database that the store is in
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Options of the queue")]
    sql_rows: Option<bool>,
}

impl OptionArgs {
    /// Puts what was given over `options`.
    pub(crate) fn lay_over(&self, options: &mut Map<String, Value>) -> Result<(), Fault> {
        let seconds = [
            ("leaseTime", "lease-time", self.lease_time),
            ("delayedProcessing", "delayed-processing", self.delayed_processing),
            ("windowBuffer", "window-buffer", self.window_buffer),
            ("ttl", "ttl", self.ttl),
            ("maxWaitTimeSeconds", "max-wait-time", self.max_wait_time),
            ("retentionSeconds", "retention", self.retention),
            ("completedRetentionSeconds", "completed-retention", self.completed_retention),
        ];
        for (name, flag, given) in seconds {
            if let Some(given) = given {
                options.insert(name.to_owned(), whole_seconds(flag, given)?.into());
            }
        }
        if let Some(delay) = self.retry_delay {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            options.insert("retryDelay".to_owned(), millis.into());
        }
        let others = [
            ("retryLimit", self.retry_limit.map(Value::from)),
            ("priority", self.priority.map(Value::from)),
            ("maxSize", self.max_size.map(Value::from)),
            ("retentionEnabled", self.retention_enabled.map(Value::from)),
            ("encryptionEnabled", self.encryption_enabled.map(Value::from)),
            ("deadLetterQueue", self.dead_letter_queue.map(Value::from)),
            ("dlqAfterMaxRetries", self.dlq_after_max_retries.map(Value::from)),
            ("sqlRows", self.sql_rows.map(Value::from)),
        ];
        for (name, given) in others {
            if let Some(given) = given {
                options.insert(name.to_owned(), given);
            }
        }
        Ok(())
    }

    /// Whether nothing was given.
    pub(crate) fn is_empty(&self) -> bool {
        let mut options = Map::new();
        let laid = self.lay_over(&mut options);
        laid.is_ok() && options.is_empty() && self.namespace.is_none() && self.task.is_none()
    }
}

fn whole_seconds(flag: &str, given: Duration) -> Result<u64, Fault> {
    if given.subsec_nanos() != 0 {
        return Err(Fault::usage(format!("--{flag} takes whole seconds")));
    }
    Ok(given.as_secs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_given_is_laid_over_what_was_there() {
        let given = OptionArgs {
            lease_time: Some(Duration::from_secs(60)),
            retry_delay: Some(Duration::from_millis(250)),
            priority: Some(-3),
            retention_enabled: Some(false),
            ..OptionArgs::default()
        };
        let mut options =
            Map::from_iter([("ttl".to_owned(), json!(7)), ("priority".to_owned(), json!(1))]);
        given.lay_over(&mut options).unwrap();
        let expected = json!({
            "ttl": 7, "priority": -3, "leaseTime": 60, "retryDelay": 250, "retentionEnabled": false,
        });
        assert_eq!(Value::Object(options), expected);
        assert!(!given.is_empty() && OptionArgs::default().is_empty());
    }

    #[test]
    fn parts_of_seconds_are_refused_by_the_flags_name() {
        let ttl = Some(Duration::from_millis(1500));
        let given = OptionArgs { ttl, ..OptionArgs::default() };
        let told = given.lay_over(&mut Map::new()).unwrap_err();
        assert_eq!((told.exit_code(), told.to_string().contains("--ttl")), (2, true));
    }
}

//! News: whoever appends tells the other engines of the store, so that they need not ask all the time.
//!
//! In: appends of this engine, and what others say on a channel of the database. Out: a call to whoever
//! follows. News are a courtesy, apart from the append and after it: said at most every few milliseconds,
//! and only while other engines are there. What is not heard is found by looking now and then. Has a
//! connection of its own; runs as one task of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_postgres::Client;

use super::error::words;
use super::schema::lock_key;
use super::session::{Heard, Role, connect_hearing};
use super::shared::Shared;
use crate::log::Wake;

/// Pause between two words of an engine that appends all the time.
const GAP: Duration = Duration::from_millis(3);
/// How often it is counted who is there, which also shows whether the connection lives.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of the others.
#[derive(Default)]
pub(super) struct News {
    /// Something was appended that nobody was told of.
    appended: Notify,
    /// Other engines are there.
    has_others: AtomicBool,
    /// What others say is heard.
    is_heard: AtomicBool,
    wake: Mutex<Option<Arc<Wake>>>,
}

impl News {
    /// This engine has appended.
    pub(super) fn note_appended(&self) {
        if self.has_others.load(Ordering::Acquire) {
            self.appended.notify_one();
        }
    }

    pub(super) fn on_news(&self, wake: Wake) {
        *self.wake.lock() = Some(Arc::new(wake));
    }

    pub(super) fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Acquire)
    }

    /// Whether other engines were there lately.
    pub(super) fn has_others(&self) -> bool {
        self.has_others.load(Ordering::Acquire)
    }

    fn hear(&self) {
        self.has_others.store(true, Ordering::Release);
        let wake = self.wake.lock().clone();
        if let Some(wake) = wake {
            wake();
        }
    }
}

/// Listens and tells for ever.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let ended = converse(&shared).await;
        shared.news.is_heard.store(false, Ordering::Release);
        tracing::debug!(reason = ended, "news of other engines are not heard now");
        tokio::time::sleep(LOOK).await;
    }
}

/// Until the connection ends; returns why.
async fn converse(shared: &Shared) -> String {
    let (news, own) = (Arc::clone(&shared.news), shared.turns.engine.to_string());
    let (listening, name) = (Arc::clone(&news), own.clone());
    let heard: Heard = Arc::new(move |who: &str| {
        if who != name {
            listening.hear();
        }
    });
    let connecting = connect_hearing(&shared.config, Role::Ears, Some(heard));
    let (client, driver) = match connecting.await {
        Ok(connected) => connected,
        Err(error) => return error.reason,
    };
    let ended = tell(shared, &client, &own).await;
    driver.abort();
    ended
}

async fn tell(shared: &Shared, client: &Client, own: &str) -> String {
    let schema = &shared.config.schema;
    let (channel, key) = (format!("onrush_{}", schema.as_str()), lock_key(schema, "engines"));
    // Nobody takes this lock for himself; who holds it is there. And whoever is there hears of us.
    let begin = format!(
        "LISTEN {channel}; SELECT pg_advisory_lock_shared({key}); NOTIFY {channel}, '{own}'"
    );
    let count = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' \
           AND granted AND objsubid = 1 AND ((classid::int8 << 32) | objid::int8) = {key} \
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let word = format!("NOTIFY {channel}, '{own}'");
    let news = &shared.news;
    let mut look = tokio::time::interval(LOOK);
    let talking = async {
        client.batch_execute(&begin).await?;
        news.is_heard.store(true, Ordering::Release);
        Ok::<(), tokio_postgres::Error>(())
    };
    if let Err(reason) = within(shared, talking).await {
        return reason;
    }
    loop {
        tokio::select! {
            () = news.appended.notified() => {
                if let Err(reason) = within(shared, client.batch_execute(&word)).await {
                    return reason;
                }
                tokio::time::sleep(GAP).await;
            }
            _ = look.tick() => match within(shared, client.query_one(&count, &[])).await {
                Ok(row) => news.has_others.store(row.get::<_, i64>(0) > 1, Ordering::Release),
                Err(reason) => return reason,
            },
        }
    }
}

async fn within<T>(
    shared: &Shared,
    asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(shared.config.read_timeout, asking).await {
        Ok(answer) => answer.map_err(|error| words(&error)),
        Err(_late) => Err("the database did not answer in time".to_owned()),
    }
}

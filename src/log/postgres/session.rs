//! One connection: made within its deadline, with every timeout set, its statements prepared.
//!
//! In: the configuration. Out: a [`Session`] to send statements over, pipelined, and the task that
//! moves its bytes. Nothing here waits without a deadline, and no session waits for another engine's
//! lock for long: an engine that hangs must not hang the others. Called by `link`.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Connection, Statement};

use super::config::PostgresConfig;
use super::error::{is_refusal, words};
use super::statements as sql;
use crate::base::random::{Random, SystemRandom};
use crate::log::postgres::error::OpenError;

/// The oldest major that serves: it can detach a partition while others append.
pub(super) const MAJOR_MIN: i32 = 14;

/// What a session is for; statements may take longer where nobody waits for them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Appends.
    Writer,
    /// Heads and entries, for whoever follows.
    Follower,
    /// Bodies, for consumers.
    Bodies,
    /// Pieces, checkpoints.
    Upkeep,
    /// Messages as rows.
    Projector,
    /// News of other engines.
    Ears,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Follower => "follower",
            Self::Bodies => "bodies",
            Self::Upkeep => "upkeep",
            Self::Projector => "projector",
            Self::Ears => "ears",
        }
    }
}

/// What to do with the text of a notification.
pub(super) type Heard = Arc<dyn Fn(&str) + Send + Sync>;

/// Why there is no session.
#[derive(Debug)]
pub(super) struct NoSession {
    /// In words.
    pub(super) reason: String,
    /// Trying again cannot help until somebody changes something.
    pub(super) is_final: bool,
}

impl From<tokio_postgres::Error> for NoSession {
    fn from(error: tokio_postgres::Error) -> Self {
        Self { reason: words(&error), is_final: is_refusal(&error) }
    }
}

impl From<NoSession> for OpenError {
    fn from(error: NoSession) -> Self {
        Self::Unreachable(error.reason)
    }
}

/// A connection with its statements.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) statements: Statements,
    /// Tells it from others; never 0.
    pub(super) serial: u64,
    /// Whether the database holds every letter there is.
    pub(super) is_unicode: bool,
    driver: tokio::task::AbortHandle,
    is_severed: AtomicBool,
}

/// What is prepared on every session, so that no statement costs a second round trip.
pub(super) struct Statements {
    pub(super) append_one: Statement,
    pub(super) append_many: Statement,
    pub(super) append_named: Statement,
    pub(super) heads_of: Statement,
    pub(super) turn: Statement,
    pub(super) pass: Statement,
    pub(super) heads: Statement,
    pub(super) read: Statement,
    pub(super) follow: Statement,
    pub(super) body: Statement,
}

impl Session {
    /// Makes a connection and sets it up. The task ends when the connection does. The tables must be
    /// there.
    pub(super) async fn open(
        config: &PostgresConfig,
        role: Role,
    ) -> Result<(Self, JoinHandle<()>), NoSession> {
        let (client, driver) = connect(config, role).await?;
        let abort = driver.abort_handle();
        let prepared =
            tokio::try_join!(Statements::prepare(&client), client.query_one(sql::IS_UNICODE, &[]));
        let (statements, row) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                abort.abort();
                return Err(error.into());
            }
        };
        let (serial, is_unicode) = (SystemRandom.next_u64().max(1), row.get(0));
        let is_severed = AtomicBool::new(false);
        let session = Self { client, statements, serial, is_unicode, driver: abort, is_severed };
        Ok((session, driver))
    }

    /// Cuts the connection: whatever is under way on it is given up.
    pub(super) fn sever(&self) {
        // Its task ends a moment later; nobody may begin anything on it until then.
        self.is_severed.store(true, Ordering::Release);
        self.driver.abort();
    }

    /// Whether nothing can be asked over it any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_severed.load(Ordering::Acquire) || self.client.is_closed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sever();
    }
}

impl Statements {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let (
            append_one,
            append_many,
            append_named,
            heads_of,
            turn,
            pass,
            heads,
            read,
            follow,
            body,
        ) = tokio::try_join!(
            client.prepare(sql::APPEND_ONE),
            client.prepare(sql::APPEND_MANY),
            client.prepare(sql::APPEND_NAMED),
            client.prepare(sql::HEADS_OF),
            client.prepare(sql::TURN),
            client.prepare(sql::PASS),
            client.prepare(sql::HEADS),
            client.prepare(sql::READ),
            client.prepare(sql::FOLLOW),
            client.prepare(sql::BODY),
        )?;
        Ok(Self {
            append_one,
            append_many,
            append_named,
            heads_of,
            turn,
            pass,
            heads,
            read,
            follow,
            body,
        })
    }
}

/// Makes a connection within its deadline and sets it up, but for statements.
pub(super) async fn connect(
    config: &PostgresConfig,
    role: Role,
) -> Result<(Client, JoinHandle<()>), NoSession> {
    connect_hearing(config, role, None).await
}

/// The same, calling `heard` with every notification.
pub(super) async fn connect_hearing(
    config: &PostgresConfig,
    role: Role,
    heard: Option<Heard>,
) -> Result<(Client, JoinHandle<()>), NoSession> {
    let mut settings = config.database.settings().clone();
    settings.connect_timeout(config.connect_timeout);
    let (client, driver) = dial(config, &settings, heard).await?;
    match set_up(config, role, &client).await {
        Ok(()) => Ok((client, driver)),
        Err(error) => {
            driver.abort();
            Err(error)
        }
    }
}

#[cfg(feature = "tls")]
async fn dial(
    config: &PostgresConfig,
    settings: &tokio_postgres::Config,
    heard: Option<Heard>,
) -> Result<(Client, JoinHandle<()>), NoSession> {
    let connector = super::tls::connector(config.database.encryption());
    let connector = connector.map_err(|reason| NoSession { reason, is_final: true })?;
    let (client, connection) = settings.connect(connector).await?;
    Ok((client, tokio::spawn(drive(connection, heard))))
}

#[cfg(not(feature = "tls"))]
async fn dial(
    config: &PostgresConfig,
    settings: &tokio_postgres::Config,
    heard: Option<Heard>,
) -> Result<(Client, JoinHandle<()>), NoSession> {
    use super::config::Encryption;
    if !matches!(config.database.encryption(), Encryption::Disable | Encryption::Prefer) {
        let reason = "sslmode asks for encryption, which this build does not have".to_owned();
        return Err(NoSession { reason, is_final: true });
    }
    let (client, connection) = settings.connect(tokio_postgres::NoTls).await?;
    Ok((client, tokio::spawn(drive(connection, heard))))
}

/// Moves the connection's bytes until it ends. Why it did is told to everybody who waits on it.
async fn drive<S, T>(mut connection: Connection<S, T>, heard: Option<Heard>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let Some(heard) = heard else {
        if let Err(error) = connection.await {
            tracing::debug!(error = words(&error), "a connection to the database ended");
        }
        return;
    };
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(news))) => heard(news.payload()),
            Some(Ok(_notice)) => {}
            // Told to everybody who waits on it, as above.
            Some(Err(_)) | None => return,
        }
    }
}

async fn set_up(config: &PostgresConfig, role: Role, client: &Client) -> Result<(), NoSession> {
    // The server gives up before we do, so that its answer, not our deadline, tells the outcome.
    let limit = match role {
        Role::Writer => config.append_timeout.as_millis() * 9 / 10,
        Role::Follower | Role::Bodies | Role::Ears => config.read_timeout.as_millis() * 9 / 10,
        Role::Upkeep | Role::Projector => 60_000,
    };
    // A lock lasts as long as its session: an engine that is paused, whose connections are answered for by
    // its machine alone, must not keep it. While something waits for a lock elsewhere, nothing is said.
    let idle = match role {
        Role::Upkeep | Role::Projector => config.idle_timeout + config.lock_timeout,
        _ => Duration::ZERO,
    };
    let idle_ms = idle.as_millis().min(i32::MAX as u128);
    let schema = config.schema.as_str();
    let lock_ms = config.lock_timeout.as_millis();
    let name = role.name();
    // Partitions that a read does not touch are left out only when its plan knows the numbers.
    let plans = if role == Role::Writer { "force_generic_plan" } else { "force_custom_plan" };
    client
        .batch_execute(&format!(
            "SET search_path = {schema}, pg_catalog; \
             SET statement_timeout = {limit}; \
             SET lock_timeout = {lock_ms}; \
             SET idle_in_transaction_session_timeout = 3000; \
             SET idle_session_timeout = {idle_ms}; \
             SET tcp_keepalives_idle = 2; \
             SET tcp_keepalives_interval = 1; \
             SET tcp_keepalives_count = 3; \
             SET tcp_user_timeout = 5000; \
             SET client_min_messages = warning; \
             SET jit = off; \
             SET plan_cache_mode = {plans}; \
             SELECT set_config('application_name', \
                 left(current_setting('application_name') || ' {name}', 63), false); \
             {}",
            sql::COMMIT_DURABLY
        ))
        .await?;
    let row = client.query_one(sql::SERVER, &[]).await?;
    let (version, fsync): (i32, bool) = (row.get(0), row.get(1));
    let found = version / 10_000;
    if found < MAJOR_MIN {
        let error = OpenError::Server { found, needed: MAJOR_MIN };
        return Err(NoSession { reason: error.to_string(), is_final: true });
    }
    if !fsync && role == Role::Writer {
        tracing::warn!(
            "the database runs with fsync off: what it says is committed, a power cut takes"
        );
    }
    Ok(())
}

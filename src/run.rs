//! What the binary does: `onrush token new`, and `onrush serve`, which is the runtime, the log lines,
//! the three lines of greeting, and the signals.

use std::io::Write;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::base::random::Random;
use crate::config::{Durability, LogFormat, Settings};
use crate::server::{Server, StartError, StoreKind};
use crate::state::effect::ProducerSub;
use crate::wire::auth::role::Role;
use crate::wire::auth::tokens;

/// How long connections may take to end when the server stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes a token: the token itself, and the line by which a server knows it.
///
/// # Errors
/// In words: the name or the role is none.
pub fn new_token(name: &str, role: &str, random: &dyn Random) -> Result<String, String> {
    let parts = |char: char| char.is_control() || ":,#".contains(char);
    let name = ProducerSub::new(name).filter(|_| !name.contains(parts));
    let name = name.ok_or("a name has 1 to 255 bytes, and none of : , #")?;
    let role = Role::named(role).ok_or("a role is read-only, read-write or admin")?;
    let (token, line) = tokens::make(&name, role, random);
    Ok(format!("token: {token}\nline:  {line}\n"))
}

/// Serves until SIGTERM or SIGINT, then stops in order. `greeting` gets where it listens and what it
/// promises, once it does.
///
/// # Errors
/// [`StartError`] when it could not start.
pub fn serve(
    settings: &Settings,
    is_terminal: bool,
    greeting: &mut dyn Write,
) -> Result<(), StartError> {
    // Lives as long as anything may be logged; what waits then is written when it goes.
    let _logs = log_to_stderr(settings, is_terminal);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if settings.server.worker_threads > 0 {
        builder.worker_threads(settings.server.worker_threads);
    }
    let runtime = builder.enable_all().build().map_err(StartError::runtime)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(StartError::runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::runtime)?;
        let server = Server::start(settings).await?;
        // Whoever closed our output still wants the server.
        let _ = greet(settings, &server, greeting);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: answering what is under way");
        server.stop(PATIENCE).await;
        Ok(())
    })
}

fn greet(settings: &Settings, server: &Server, out: &mut dyn Write) -> std::io::Result<()> {
    let store_words = server.store_words();
    let promise = match settings.store.durability {
        _ if store_words.kind == StoreKind::Postgres => {
            "sync: QoS 1 and 2 are answered when the database has committed"
        }
        Durability::Sync => "sync: QoS 1 and 2 are answered when fdatasync has returned",
        Durability::Os => {
            "os: QoS 1 and 2 are answered BEFORE the disk has them; a power cut loses them"
        }
    };
    writeln!(
        out,
        "onrush {} listens on tcp://{} and http://{}",
        env!("CARGO_PKG_VERSION"),
        server.tcp_addr(),
        server.http_addr()
    )?;
    writeln!(out, "store: {}", store_words.place)?;
    writeln!(out, "durability: {promise}")?;
    out.flush()
}

/// Lines are written by a thread of their own: whoever reads them slowly, or not at all, must not hold
/// up a commit. What does not fit its queue is left out and counted.
fn log_to_stderr(settings: &Settings, is_terminal: bool) -> WorkerGuard {
    let filter = EnvFilter::new(format!("onrush={},warn", settings.server.log_level.word()));
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let as_text = match settings.server.log_format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // An error means that a test harness has installed its own.
    let _ = if as_text { logs.with_ansi(is_terminal).try_init() } else { logs.json().try_init() };
    guard
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;
    use crate::wire::auth::tokens::Tokens;

    #[test]
    fn a_new_token_is_known_by_the_line_that_is_printed_with_it() {
        let printed = new_token("ci", "admin", &SeededRandom::new(1)).unwrap();
        let said = |word: &str| {
            let line = printed.lines().find_map(|line| line.strip_prefix(word));
            line.unwrap().trim().to_owned()
        };
        let tokens = Tokens::parse(&said("line:")).unwrap();
        assert_eq!(tokens.find(said("token:").as_bytes()).unwrap().role, Role::Admin);
        for (name, role) in [("", "admin"), ("a:b", "admin"), ("a,b", "admin"), ("ci", "root")] {
            assert!(new_token(name, role, &SeededRandom::new(1)).is_err(), "{name} {role}");
        }
    }
}

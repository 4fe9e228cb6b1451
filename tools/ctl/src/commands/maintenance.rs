//! Maintenance: pushes held back, pops that find nothing.
//!
//! In: which of the two, on or off. Out: how both stand then. Both hold for all servers of the store, and last
//! across restarts. Called by `commands`.

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::column::{Column, Kind, column};
use crate::fault::Fault;
use crate::http::path;
use crate::session::Session;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Whether pushes or pops are held back, and what waits
    Show,
    /// Hold back pushes (they are kept in the failover log), or let pops find nothing, or both
    On {
        #[arg(value_enum)]
        what: What,
    },
    /// Hold nothing back any more
    Off {
        #[arg(value_enum, default_value_t = What::All)]
        what: What,
    },
}

/// What is held back.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum What {
    /// Pushes
    Push,
    /// Pops
    Pop,
    /// Both
    All,
}

const STATE: &[Column] = &[
    column("pushes held back", "/maintenanceMode", Kind::Text),
    column("pops find nothing", "/popMaintenanceMode", Kind::Text),
    column("waiting", "/bufferedMessages", Kind::Count),
    column("set aside", "/bufferStats/failedCount", Kind::Worry),
    column("store healthy", "/bufferStats/dbHealthy", Kind::Text),
];

pub(crate) async fn run(session: &mut Session, command: Command) -> Result<(), Fault> {
    let (what, enabled) = match command {
        Command::Show => return show(session).await,
        Command::On { what } => (what, true),
        Command::Off { what } => (what, false),
    };
    let body = json!({ "enabled": enabled });
    if matches!(what, What::Push | What::All) {
        session.post(&path(&["system", "maintenance"]), &body).await?;
    }
    if matches!(what, What::Pop | What::All) {
        session.post(&path(&["system", "maintenance", "pop"]), &body).await?;
    }
    show(session).await
}

async fn show(session: &mut Session) -> Result<(), Fault> {
    let body = session.get(&path(&["system", "maintenance"])).await?;
    session.output.object(&body, STATE)
}

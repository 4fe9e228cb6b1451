//! Status and health: the server in numbers, and whether it takes work.
//!
//! In: nothing. Out: what several routes say, as one object. Called by `commands`.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::column::{Column, Kind, column};
use crate::fault::Fault;
use crate::http::path;
use crate::output::{to_json, value};
use crate::session::Session;

const STATUS: &[Column] = &[
    column("server", "/server", Kind::Text),
    column("status", "/health/status", Kind::State),
    column("version", "/health/version", Kind::Text),
    column("queues", "/overview/queues", Kind::Count),
    column("partitions", "/overview/partitions", Kind::Count),
    column("messages", "/overview/messages/total", Kind::Count),
    column("pending", "/overview/messages/pending", Kind::Count),
    column("processing", "/overview/messages/processing", Kind::Count),
    column("dead letters", "/overview/messages/deadLetter", Kind::Worry),
    column("longest lag", "/overview/lag/time/max", Kind::Late),
    column("pushed a second", "/overview/throughput/ingestedPerSecond", Kind::Count),
    column("processed a second", "/overview/throughput/processedPerSecond", Kind::Count),
];

const HEALTH: &[Column] = &[
    column("server", "/server", Kind::Text),
    column("status", "/status", Kind::State),
    column("engine", "/checks/engine", Kind::State),
    column("store", "/checks/store", Kind::State),
    column("open", "/checks/open", Kind::State),
    column("failover log", "/checks/failover", Kind::State),
    column("set aside", "/checks/set_aside", Kind::Worry),
];

/// The server in numbers.
pub(crate) async fn run(session: &mut Session) -> Result<(), Fault> {
    let (_, health) = session.http.ask_any(Method::GET, "/health", Vec::new()).await?;
    let overview = session.get(&path(&["resources", "overview"])).await?;
    let status = json!({
        "server": session.target.http.to_string(),
        "health": value(&health)?,
        "overview": value(&overview)?,
    });
    session.output.object(&to_json(&status)?, STATUS)
}

/// Whether the server takes work.
pub(crate) async fn health(session: &mut Session) -> Result<(), Fault> {
    let (status, body) = session.http.ask_any(Method::GET, "/readyz?verbose", Vec::new()).await?;
    let mut told = value(&body)?;
    if let Value::Object(fields) = &mut told {
        fields.insert("server".to_owned(), json!(session.target.http.to_string()));
    }
    session.output.object(&to_json(&told)?, HEALTH)?;
    match status {
        StatusCode::OK => Ok(()),
        _ => Err(Fault::Incomplete("the server does not take work now".to_owned())),
    }
}

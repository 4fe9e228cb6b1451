//! What commands go by: which server is meant, and who said so.
//!
//! In: flags, variables, the file of contexts. Out: the server's two ports, whom is trusted, whether there is a
//! token, and where each of it comes from. A token is never printed. Nothing is asked of any server. Called by
//! `commands`.

use clap::Subcommand;
use serde_json::json;

use crate::cli::Globals;
use crate::column::{Column, Kind, column};
use crate::contexts::{self, Contexts};
use crate::fault::Fault;
use crate::output::{Output, to_json};
use crate::target::{self, Place};

/// What to tell.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The server that commands go to with these flags and variables, and who said so; never the token itself
    Show,
    /// Where contexts are kept, whether the file is there or not
    Path,
}

const CONFIG: &[Column] = &[
    column("server", "/server", Kind::Text),
    column("  said by", "/serverFrom", Kind::Text),
    column("tcp", "/tcp", Kind::Text),
    column("  said by", "/tcpFrom", Kind::Text),
    column("token", "/hasToken", Kind::Text),
    column("  said by", "/tokenFrom", Kind::Text),
    column("trusts", "/caFile", Kind::Text),
    column("  said by", "/caFileFrom", Kind::Text),
    column("context", "/context", Kind::Text),
    column("contexts in", "/path", Kind::Text),
];

pub(crate) fn run(command: &Command, all: &Globals) -> Result<(), Fault> {
    let output = Output::new(all.output);
    match command {
        Command::Path => output.line(&contexts::path()?.display().to_string()),
        Command::Show => show(all, &output),
    }
}

fn show(all: &Globals, output: &Output) -> Result<(), Fault> {
    let found = target::resolve(all.place.clone(), Place::of_environment(), &Contexts::load()?)?;
    let (ca_file, ca_file_from) = found.ca_file.unzip();
    let body = json!({
        "server": found.target.http.to_string(),
        "serverFrom": found.server.to_string(),
        "tcp": found.target.tcp,
        "tcpFrom": found.tcp.to_string(),
        "hasToken": found.token.is_some(),
        "tokenFrom": found.token.map(|it| it.to_string()),
        "caFile": ca_file,
        "caFileFrom": ca_file_from.map(|it| it.to_string()),
        "context": found.context,
        "path": contexts::path().ok(),
    });
    output.object(&to_json(&body)?, CONFIG)
}

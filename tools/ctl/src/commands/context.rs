//! Contexts: named servers.
//!
//! In: names, and what `--server`, `--tcp`, `--token` and `--ca-file` say of a server. Out: the file of contexts,
//! changed as a whole. Tokens are never printed. Called by `commands`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::Globals;
use crate::column::{Kind, column};
use crate::contexts::{Context, Contexts};
use crate::fault::Fault;
use crate::output::{Output, View, to_json};
use crate::target::{HttpPlace, Place};

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a server, or change one: --server says where it is, --tcp, --token and --ca-file what else there is to say
    Add(Add),
    /// Use this server from now on
    Use { name: String },
    /// All servers; the one in use is marked
    #[command(alias = "ls")]
    List,
    /// Forget a server and its token
    #[command(alias = "rm")]
    Delete { name: String },
}

/// A server.
#[derive(Args, Debug)]
pub(crate) struct Add {
    name: String,
    /// Read its token from this file, or from standard input where it is `-`
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<std::path::PathBuf>,
    /// Use it from now on; the first one is used anyway
    #[arg(long = "use")]
    uses: bool,
}

const CONTEXTS: View = View {
    list: None,
    columns: &[
        column("IN USE", "/current", Kind::Text),
        column("NAME", "/name", Kind::Text),
        column("SERVER", "/server", Kind::Text),
        column("TCP", "/tcp", Kind::Text),
        column("TOKEN", "/hasToken", Kind::Text),
        column("TRUSTS", "/caFile", Kind::Text),
    ],
    empty: "no contexts; `onrushctl context add NAME --server URL` makes one",
};

pub(crate) fn run(command: Command, all: &Globals) -> Result<(), Fault> {
    let output = Output::new(all.output);
    let mut contexts = Contexts::load()?;
    match command {
        Command::Add(add) => insert(&mut contexts, &add, &all.place, &output),
        Command::Use { name } => {
            contexts.find(&name)?;
            contexts.current = Some(name.clone());
            contexts.save()?;
            done(&output, &contexts, &name, &format!("context {name:?} is in use"))
        }
        Command::List => list(&contexts, &output),
        Command::Delete { name } => {
            contexts.find(&name)?;
            let shown = shown(&contexts, &name);
            contexts.contexts.remove(&name);
            if contexts.current.as_ref() == Some(&name) {
                contexts.current = None;
            }
            contexts.save()?;
            output.done(&to_json(&shown)?, &format!("context {name:?} is forgotten"))
        }
    }
}

fn insert(contexts: &mut Contexts, add: &Add, place: &Place, output: &Output) -> Result<(), Fault> {
    let server = place.server.clone().ok_or_else(|| {
        Fault::usage_with("a context needs a server", "--server URL says where its HTTP port is")
    })?;
    HttpPlace::parse(&server)?;
    if add.name.is_empty() {
        return Err(Fault::usage("a context needs a name"));
    }
    let token = match &add.token_file {
        None => place.token.clone(),
        Some(file) => Some(read_token(file)?),
    };
    // Other folders must find it too.
    let ca_file = place
        .ca_file
        .as_ref()
        .map(|it| std::path::absolute(it).map_err(|error| Fault::file(it, error)));
    let context = Context { server, tcp: place.tcp.clone(), token, ca_file: ca_file.transpose()? };
    contexts.contexts.insert(add.name.clone(), context);
    if add.uses || contexts.current.is_none() {
        contexts.current = Some(add.name.clone());
    }
    contexts.save()?;
    let is_used = contexts.current.as_ref() == Some(&add.name);
    let hint = if is_used {
        "and in use".to_owned()
    } else {
        format!("; `onrushctl context use {}` uses it", add.name)
    };
    done(output, contexts, &add.name, &format!("context {:?} is kept {hint}", add.name))
}

fn read_token(file: &std::path::Path) -> Result<String, Fault> {
    let failed = |error| Fault::file(file, error);
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()).map_err(failed)?,
        _ => std::fs::read_to_string(file).map_err(failed)?,
    };
    match text.trim() {
        "" => Err(Fault::file(file, "it holds no token")),
        token => Ok(token.to_owned()),
    }
}

/// A context without its secrets.
fn shown(contexts: &Contexts, name: &str) -> Value {
    let context = contexts.contexts.get(name).cloned().unwrap_or_default();
    json!({
        "name": name,
        "current": contexts.current.as_deref() == Some(name),
        "server": context.server,
        "tcp": context.tcp,
        "hasToken": context.token.is_some(),
        "caFile": context.ca_file,
    })
}

fn done(output: &Output, contexts: &Contexts, name: &str, sentence: &str) -> Result<(), Fault> {
    output.done(&to_json(&shown(contexts, name))?, sentence)
}

fn list(contexts: &Contexts, output: &Output) -> Result<(), Fault> {
    let all: Vec<Value> = contexts.contexts.keys().map(|name| shown(contexts, name)).collect();
    output.list(&to_json(&all)?, &CONTEXTS)
}

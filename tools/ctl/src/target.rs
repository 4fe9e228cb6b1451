//! Which server is spoken to.
//!
//! In: flags, variables of the environment, contexts. Out: addresses of both ports, a token, whom to trust.
//! Whoever names a server closest to the command decides: flags, then variables, then the context in use. A token
//! that belongs to a context is never sent to a server that something else named, unless flags put both
//! together. Pure but for reading the environment. Called once for each command.

use std::path::PathBuf;

use clap::Args;
use hyper::Uri;
use onrush_client::Roots;

use crate::contexts::{Context, Contexts};
use crate::fault::Fault;

/// Where a server is if nobody says.
const SERVER_DEFAULT: &str = "http://127.0.0.1:6632";
const HTTP_PORT: u16 = 6632;
const TCP_PORT: u16 = 6631;

/// What flags, or variables, say of it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Place {
    /// Use this context instead of the one in use (variable ONRUSH_CONTEXT)
    #[arg(long, global = true, value_name = "NAME", help_heading = "Server")]
    pub(crate) context: Option<String>,
    /// URL of the server's HTTP port, http or https; port 6632 unless it says another (variable ONRUSH_SERVER; this machine unless said)
    #[arg(long, global = true, value_name = "URL", help_heading = "Server")]
    pub(crate) server: Option<String>,
    /// Host and port of its binary port; port 6631 of the same host unless it says something else (variable ONRUSH_TCP)
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Server")]
    pub(crate) tcp: Option<String>,
    /// Token for the server; other users of this machine can see flags, so better put it into a context or the variable ONRUSH_TOKEN
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Server")]
    pub(crate) token: Option<String>,
    /// Trust the certificates in this file (PEM) instead of the system's (variable ONRUSH_CA_FILE)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Server")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Place {
    /// What the environment says.
    pub(crate) fn of_environment() -> Self {
        let of = |name: &str| std::env::var(name).ok().filter(|it| !it.is_empty());
        Self {
            context: of("ONRUSH_CONTEXT"),
            server: of("ONRUSH_SERVER"),
            tcp: of("ONRUSH_TCP"),
            token: of("ONRUSH_TOKEN"),
            ca_file: of("ONRUSH_CA_FILE").map(PathBuf::from),
        }
    }

    fn of_context(context: &Context) -> Self {
        Self {
            context: None,
            server: Some(context.server.clone()),
            tcp: context.tcp.clone(),
            token: context.token.clone(),
            ca_file: context.ca_file.clone(),
        }
    }
}

/// A server.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) http: HttpPlace,
    /// Host and port of the binary port.
    pub(crate) tcp: String,
    pub(crate) token: Option<String>,
    /// Whom to trust; `None`: both ports are spoken to in the clear.
    pub(crate) roots: Option<Roots>,
}

/// Where HTTP is spoken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HttpPlace {
    pub(crate) is_tls: bool,
    /// As in a URL: an IPv6 address stands in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands before every path, for servers behind a proxy; empty or beginning with a slash.
    pub(crate) base: String,
}

impl HttpPlace {
    /// Reads a URL; without a scheme it is http.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let refused = |why: &str| {
            Fault::usage(format!(
                "--server {text:?} {why}; expected is a URL such as https://host:6632"
            ))
        };
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|_| refused("is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused("is neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| refused("names no host"))?;
        if authority.host().is_empty() {
            return Err(refused("names no host"));
        }
        if authority.as_str().contains('@') {
            return Err(refused("holds a user; tokens go into --token"));
        }
        if uri.query().is_some() {
            return Err(refused("holds a query"));
        }
        Ok(Self {
            is_tls,
            host: authority.host().to_owned(),
            port: uri.port_u16().unwrap_or(HTTP_PORT),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Host and port.
    pub(crate) fn addr(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl std::fmt::Display for HttpPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.base)
    }
}

/// Who said something of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// A flag of the command.
    Flag,
    /// A variable of the environment.
    Variable,
    /// The context of this name.
    Context(String),
    /// Nobody.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => f.write_str("a flag"),
            Self::Variable => f.write_str("a variable"),
            Self::Context(name) => write!(f, "context {name}"),
            Self::Default => f.write_str("nobody said otherwise"),
        }
    }
}

/// Which server is meant, and who said so.
pub(crate) struct Resolved {
    pub(crate) target: Target,
    /// The context whose word counts, where one does.
    pub(crate) context: Option<String>,
    pub(crate) server: Origin,
    pub(crate) tcp: Origin,
    /// `None`: there is no token.
    pub(crate) token: Option<Origin>,
    pub(crate) ca_file: Option<(PathBuf, Origin)>,
}

/// Decides which server is meant.
pub(crate) fn resolve(
    flags: Place,
    environment: Place,
    contexts: &Contexts,
) -> Result<Resolved, Fault> {
    let token_variable = environment.token.clone();
    let layers = layers(flags, environment, contexts)?;
    let server = first(&layers, |place| place.server.clone());
    let (url, server) = server.unwrap_or((SERVER_DEFAULT.to_owned(), Origin::Default));
    let http = HttpPlace::parse(&url)?;
    let own = || (format!("{}:{TCP_PORT}", http.host), Origin::Default);
    let (tcp_addr, tcp) = first(&layers, |place| place.tcp.clone()).unwrap_or_else(own);
    // Whoever sets the variable has no other place for it where a server is named by a flag.
    let token = first(&layers, |place| place.token.clone())
        .or(token_variable.map(|token| (token, Origin::Variable)));
    let (token, token_origin) = token.unzip();
    let ca_file = first(&layers, |place| place.ca_file.clone());
    let trusted = ca_file.as_ref().map_or(Roots::Native, |(file, _)| Roots::File(file.clone()));
    let context = layers.into_iter().find_map(|(origin, _)| match origin {
        Origin::Context(name) => Some(name),
        _ => None,
    });
    let roots = http.is_tls.then_some(trusted);
    let target = Target { tcp: tcp_addr, token, roots, http };
    Ok(Resolved { target, context, server, tcp, token: token_origin, ca_file })
}

/// What the first of them that says anything says, and who it is.
fn first<T>(layers: &[(Origin, Place)], of: impl Fn(&Place) -> Option<T>) -> Option<(T, Origin)> {
    layers.iter().find_map(|(origin, place)| Some((of(place)?, origin.clone())))
}

/// Whose word counts, the one closest to the command first.
fn layers(
    flags: Place,
    environment: Place,
    contexts: &Contexts,
) -> Result<Vec<(Origin, Place)>, Fault> {
    let (by_flag, has_server) = (flags.context.clone(), flags.server.is_some());
    let by_variable = environment.context.clone();
    let mut layers = vec![(Origin::Flag, flags)];
    let named = match by_flag {
        Some(name) => Some(name),
        None if has_server => None,
        None => {
            let is_named = environment.server.is_some();
            layers.push((Origin::Variable, environment));
            by_variable.or(contexts.current.clone()).filter(|_| !is_named)
        }
    };
    if let Some(name) = named {
        let place = Place::of_context(contexts.find(&name)?);
        layers.push((Origin::Context(name), place));
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts() -> Contexts {
        let context = |server: &str, token: &str| Context {
            server: server.to_owned(),
            token: Some(token.to_owned()),
            ..Context::default()
        };
        Contexts {
            current: Some("dev".to_owned()),
            contexts: [
                ("dev".to_owned(), context("http://dev:1", "of-dev")),
                ("prod".to_owned(), context("https://prod", "of-prod")),
            ]
            .into(),
        }
    }

    fn server(url: &str) -> Place {
        Place { server: Some(url.to_owned()), ..Place::default() }
    }

    fn context(name: &str) -> Place {
        Place { context: Some(name.to_owned()), ..Place::default() }
    }

    fn found(flags: Place, environment: Place) -> (String, String, Option<String>) {
        let target = resolve(flags, environment, &contexts()).unwrap().target;
        (target.http.to_string(), target.tcp, target.token)
    }

    fn is(http: &str, tcp: &str, token: Option<&str>) -> (String, String, Option<String>) {
        (http.to_owned(), tcp.to_owned(), token.map(str::to_owned))
    }

    #[test]
    fn who_is_closest_to_the_command_decides() {
        let none = Place::default;
        let dev = is("http://dev:1", "dev:6631", Some("of-dev"));
        let prod = is("https://prod:6632", "prod:6631", Some("of-prod"));
        assert_eq!(found(none(), none()), dev);
        assert_eq!(found(context("prod"), none()), prod);
        assert_eq!(found(none(), context("prod")), prod);
        assert_eq!(found(context("prod"), server("http://env")), prod);
        assert_eq!(found(none(), server("http://env")), is("http://env:6632", "env:6631", None));
        let bare = resolve(none(), none(), &Contexts::default()).unwrap().target;
        assert_eq!(
            (bare.http.to_string().as_str(), &*bare.tcp),
            (SERVER_DEFAULT, "127.0.0.1:6631")
        );
    }

    #[test]
    fn a_contexts_token_goes_to_its_own_server_only() {
        assert_eq!(found(server("x"), Place::default()).2, None);
        assert_eq!(found(server("x"), context("prod")).2, None);
        assert_eq!(found(Place::default(), server("x")).2, None);
        let both = Place { server: Some("x".to_owned()), ..context("prod") };
        assert_eq!(
            found(both, Place::default()).2.as_deref(),
            Some("of-prod"),
            "flags put them together"
        );
        let token = Place { token: Some("t".to_owned()), ..Place::default() };
        assert_eq!(found(Place::default(), token.clone()).2.as_deref(), Some("t"));
        assert_eq!(found(context("prod"), token.clone()).2.as_deref(), Some("of-prod"));
        assert_eq!(found(server("x"), token).2.as_deref(), Some("t"));
    }

    #[test]
    fn who_said_what_is_told() {
        let tcp = Place { tcp: Some("y:1".to_owned()), ..Place::default() };
        let token = Place { token: Some("t".to_owned()), ..Place::default() };
        let found = resolve(tcp, token, &contexts()).unwrap();
        let dev = Origin::Context("dev".to_owned());
        assert_eq!((found.server, found.tcp), (dev, Origin::Flag));
        assert_eq!((found.token, found.context.as_deref()), (Some(Origin::Variable), Some("dev")));
        let found = resolve(server("x"), Place::default(), &contexts()).unwrap();
        assert_eq!((found.server, found.tcp), (Origin::Flag, Origin::Default));
        assert_eq!((found.token, found.context), (None, None));
        let found = resolve(context("prod"), server("env"), &contexts()).unwrap();
        let prod = Origin::Context("prod".to_owned());
        assert_eq!((found.server, found.token), (prod.clone(), Some(prod)));
        let found = resolve(Place::default(), server("env"), &contexts()).unwrap();
        assert_eq!((found.server, found.context), (Origin::Variable, None));
    }

    #[test]
    fn urls_are_read_and_what_is_none_is_refused() {
        let place = |text: &str| HttpPlace::parse(text).map(|place| place.to_string());
        assert_eq!(place("localhost").unwrap(), "http://localhost:6632");
        assert_eq!(place("https://[::1]:1/").unwrap(), "https://[::1]:1");
        assert_eq!(place("https://proxy:443/queue/").unwrap(), "https://proxy:443/queue");
        for wrong in ["", "ftp://x", "http://", "http://u:p@x", "http://x?y", "a b"] {
            assert_eq!(HttpPlace::parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
        assert_eq!(
            resolve(context("none"), Place::default(), &contexts()).err().unwrap().exit_code(),
            2
        );
    }
}

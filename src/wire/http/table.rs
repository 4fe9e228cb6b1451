//! The table of routes: method, path, who may, and what it is called. Nothing is served without a
//! row here.
//!
//! In: the rows of `route` (the message path), of `groups` and of `admin` (all others). Out: the router, which is
//! made from the rows and from nothing else; the rules by which a request is let in before any of
//! its body is read; the labels that `openapi` writes down. A row is made by the function named
//! after its method, so that what is served and what is said of it cannot differ. Called by
//! `listen`, `route` and `openapi`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use hyper::Method;

use crate::wire::auth::role::{Level, Role};
use crate::wire::http::{
    Api, admin, analytics, dead, facade, groups, jobs, messages, processes, resources, route,
    status_page, system, traces, whole,
};

/// Levels, as rows write them.
pub(super) const PUBLIC: Level = Level::Public;
pub(super) const READ_ONLY: Level = Level::AtLeast(Role::ReadOnly);
pub(super) const READ_WRITE: Level = Level::AtLeast(Role::ReadWrite);
pub(super) const ADMIN: Level = Level::AtLeast(Role::Admin);

/// Methods that routes take.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    /// The verb of a method; what is asked of a GET is asked of a HEAD.
    fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PUT => Some(Self::Put),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    /// Its name as OpenAPI writes it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// What is said of a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Label {
    pub(super) verb: Verb,
    /// The path with its parameters in braces.
    pub(super) path: &'static str,
    /// Who may.
    pub(super) level: Level,
    /// Its name for programs, unique.
    pub(super) id: &'static str,
    /// One sentence for people.
    pub(super) summary: &'static str,
}

/// One route.
pub(super) struct Row {
    pub(super) label: Label,
    /// Who answers; `None`: the message path's own matcher.
    by: Option<MethodRouter<Arc<Api>>>,
}

/// A row of the message path.
pub(super) fn hot(label: Label) -> Row {
    Row { label, by: None }
}

/// Declares the makers of rows, so that the method is written once.
macro_rules! makers {
    ($($name:ident, $verb:ident;)*) => {$(
        /// A row for this method.
        pub(super) fn $name<H, T>(
            path: &'static str,
            level: Level,
            id: &'static str,
            summary: &'static str,
            handler: H,
        ) -> Row
        where
            H: Handler<T, Arc<Api>>,
            T: 'static,
        {
            let label = Label { verb: Verb::$verb, path, level, id, summary };
            Row { label, by: Some(routing::$name(handler)) }
        }
    )*};
}

makers! {
    get, Get;
    post, Post;
    put, Put;
    delete, Delete;
}

/// All rows: the message path first, then theme by theme.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = route::rows();
    rows.extend(admin::rows());
    let themes = [dead::rows, jobs::rows, messages::rows, traces::rows, resources::rows];
    for theme in themes.into_iter().chain([status_page::rows, analytics::rows, system::rows]) {
        rows.extend(theme());
    }
    rows.extend(groups::rows::rows());
    rows.extend(whole::rows());
    rows.extend(processes::rows());
    rows.extend(facade::rows());
    rows
}

/// The labels of all rows.
pub(super) fn labels() -> Vec<Label> {
    rows().iter().map(|row| row.label).collect()
}

/// The router of all rows that the message path does not take.
pub(super) fn router(api: Arc<Api>) -> Router {
    let served = rows().into_iter().filter_map(|row| Some((row.label.path, row.by?)));
    let routes = served.fold(Router::new(), |router, (path, by)| router.route(path, by));
    routes.with_state(api)
}

/// What each request needs, by method and path.
pub(super) struct Rules(matchit::Router<BTreeMap<Verb, Level>>);

impl Rules {
    /// The rules of these routes.
    pub(super) fn of(labels: &[Label]) -> Self {
        let mut by_path: BTreeMap<&str, BTreeMap<Verb, Level>> = BTreeMap::new();
        for label in labels {
            by_path.entry(label.path).or_default().insert(label.verb, label.level);
        }
        let mut paths = matchit::Router::new();
        for (path, levels) in by_path {
            if let Err(error) = paths.insert(path, levels) {
                // The router, which matches alike, has refused it before; without a rule it would
                // need what unknown paths need.
                tracing::error!(path, %error, "a route has no rule");
            }
        }
        Self(paths)
    }

    /// What a request needs; what no row knows, it will be refused in the end.
    pub(super) fn level(&self, method: &Method, path: &str) -> Level {
        let found = self.0.at(path).ok();
        let level = found.and_then(|found| found.value.get(&Verb::of(method)?));
        level.copied().unwrap_or(Level::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_its_rule_is_found() {
        let labels = labels();
        let rules = Rules::of(&labels);
        let mut ids = BTreeSet::new();
        let mut places = BTreeSet::new();
        for label in &labels {
            assert!(ids.insert(label.id), "{} stands twice", label.id);
            assert!(places.insert((label.verb, label.path)), "{} stands twice", label.path);
            assert!(!label.summary.is_empty() && !label.summary.ends_with('.'), "{}", label.id);
            let path = label.path.replace(['{', '}'], "");
            let method = Method::from_bytes(label.verb.word().to_uppercase().as_bytes()).unwrap();
            assert_eq!(rules.level(&method, &path), label.level, "{}", label.path);
        }
        assert_eq!(rules.level(&Method::HEAD, "/health"), PUBLIC);
        assert_eq!(rules.level(&Method::PATCH, "/health"), Level::UNKNOWN);
        assert_eq!(rules.level(&Method::GET, "/nowhere"), Level::UNKNOWN);
    }
}

//! Calls of servers elsewhere, as guests write them: `https://host/path`, or with a method before it.
//!
//! Pure: the words, and which addresses a class allows. How calls are made, `effects` knows.

use serde::{Deserialize, Serialize};

/// Methods that an entry may name; the first one where it names none.
const METHODS: [&str; 5] = ["POST", "GET", "PUT", "PATCH", "DELETE"];
/// Longest address in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// A call that was understood.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Call {
    pub(super) method: Box<str>,
    pub(super) url: Box<str>,
    /// How often it was begun.
    #[serde(default)]
    pub(super) attempts: u32,
}

impl Call {
    /// As guests write it.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.url)
    }
}

/// Reads a target that names a server; `None` where it names none, or not well.
pub(super) fn parse(text: &str) -> Option<Call> {
    let [first, ..] = METHODS;
    let (method, url) = text.split_once(' ').unwrap_or((first, text));
    parts(url)?;
    METHODS.contains(&method).then(|| Call { method: method.into(), url: url.into(), attempts: 0 })
}

/// Scheme, host with port, and the rest of an address. `None` for what is no address, for one with a
/// user's name, and for one whose path climbs: what it would come to is for its server to say.
pub(super) fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_text = url.len() <= URL_BYTES_MAX && url.bytes().all(|it| it.is_ascii_graphic());
    let (host, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = rest.split('?').next().unwrap_or_default();
    let is_plain = !host.is_empty() && !host.contains('@') && !url.contains(['#', '\\']);
    let is_fit = matches!(scheme, "http" | "https") && is_text && is_plain && !climbs(path);
    is_fit.then_some((scheme, host, rest))
}

fn climbs(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether an address lies below one that a class allows.
pub(super) fn is_below(url: &str, allowed: &str) -> bool {
    let (Some((scheme, host, rest)), Some((its, at, path))) = (parts(url), parts(allowed)) else {
        return false;
    };
    let is_there = scheme == its && host.eq_ignore_ascii_case(at);
    let further = rest.strip_prefix(path).filter(|_| is_there);
    further.is_some_and(|further| {
        let is_bounded = path.is_empty() || path.ends_with('/');
        is_bounded || further.is_empty() || further.starts_with(['/', '?'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        let read = |text| parse(text).map(|it| it.name());
        for (text, name) in [
            ("https://a.example/x", "POST https://a.example/x"),
            ("GET http://127.0.0.1:9/?q=1", "GET http://127.0.0.1:9/?q=1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(name));
        }
        for text in [
            "ledger/a",
            "ftp://a/x",
            "https://",
            "TRACE https://a/x",
            "GET  https://a/x",
            "https://user:secret@a/x",
            "https://a/x y",
            "https://a/x#part",
            "https://a/x/../y",
            "https://a/x/%2E%2e/y",
            "https://a/x%2f..%2fy",
            "https://a\\b/x",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!("https://a/{}", "x".repeat(URL_BYTES_MAX))), None);
    }

    #[test]
    fn an_address_is_below_one_that_is_allowed() {
        for (url, allowed, is_in) in [
            ("https://a/x/y", "https://a/x", true),
            ("https://A/x?z", "https://a/x", true),
            ("https://a/xy", "https://a/x", false),
            ("https://a/xy", "https://a/", true),
            ("https://a/xy", "https://a", true),
            ("https://a.evil/x", "https://a", false),
            ("https://a:81/x", "https://a", false),
            ("http://a/x", "https://a", false),
            ("https://a/y", "https://a/x", false),
        ] {
            assert_eq!(is_below(url, allowed), is_in, "{url} below {allowed}");
        }
    }
}

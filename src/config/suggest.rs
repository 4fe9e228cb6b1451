//! "Did you mean": the known name that is nearest to one that nobody knows.
//!
//! In: what was written, and all known names. Out: the nearest one, if it is near enough that a slip
//! of the hand explains it. Pure. Called by `config::source` and `config::file`.

use super::table::PREFIX;

/// Similarity below which a suggestion would puzzle more than it helps; 1 is equal.
const SIMILARITY_MIN: f64 = 0.8;

/// The known name that is most like `typed`.
pub(super) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut best: Option<(f64, &str)> = None;
    for name in known {
        let score = similarity(typed, name);
        if score >= SIMILARITY_MIN && best.is_none_or(|(top, _)| score > top) {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name.to_owned())
}

/// Compares whole names, and the last parts alone, so that a key under the wrong section finds its
/// way home. The prefix that all variables share says nothing.
fn similarity(typed: &str, known: &str) -> f64 {
    let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
    let (typed, known) = (bare(typed), bare(known));
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::jaro_winkler(&typed, &known);
    // Slightly less than an equal whole name, so that this one wins.
    let part = strsim::jaro_winkler(&last(&typed), &last(&known)) * 0.99;
    whole.max(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["server.http_addr", "buffer.buffer_ms", "buffer.buffer_max", "wire"];

    #[test]
    fn a_slip_of_the_hand_finds_the_name() {
        let near = |typed| nearest(typed, KNOWN.iter().copied());
        assert_eq!(near("buffer.bufer_ms").as_deref(), Some("buffer.buffer_ms"));
        assert_eq!(near("wires").as_deref(), Some("wire"));
    }

    #[test]
    fn a_key_in_the_wrong_section_finds_the_right_one() {
        let near = nearest("http.http_addr", KNOWN.iter().copied());
        assert_eq!(near.as_deref(), Some("server.http_addr"));
    }

    #[test]
    fn something_else_altogether_gets_no_suggestion() {
        assert_eq!(nearest("zebra", KNOWN.iter().copied()), None);
    }

    #[test]
    fn the_prefix_of_variables_is_not_what_makes_them_alike() {
        let known = ["ONRUSH_WIRE_IN_FLIGHT_MAX", "ONRUSH_TOKEN"];
        assert_eq!(nearest("ONRUSH_TOKN", known.into_iter()).as_deref(), Some("ONRUSH_TOKEN"));
        assert_eq!(nearest("ONRUSH_ZZZZ", known.into_iter()), None);
    }
}

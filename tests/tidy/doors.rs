//! The doors: which room may name which. A new door is a change of the design: say why in the commit.
//!
//! In: a file's place below `src` and its code. Out: each name that goes through a wall. Inside of a
//! crate nothing else keeps rooms in order, so this table does.

use crate::source_text::Code;

/// All rooms, from the cellar up. A room may name the rooms above it in this list.
pub(crate) const ROOMS: &[&str] = &[
    "base",
    "telemetry",
    "sealing",
    "journal",
    "log",
    "state",
    "projection",
    "buffer",
    "failover",
    "shard",
    "catalog",
    "ingest",
    "delivery",
    "transaction",
    "process",
    "dashboard",
    "wire",
    "offline",
    "config",
    "cli",
    "server",
    "run",
];

/// Doors that the order would allow, but that stay shut: the push wing and the pull wing meet below
/// and above, and nowhere else.
const SHUT: &[(&str, &str)] = &[("delivery", "buffer"), ("delivery", "ingest")];

/// Rooms that may name shapes of the protocol: where bytes become requests, and where all is wired.
const SHAPE_ROOMS: &[&str] = &["wire", "server"];

/// Names in `onrush_protocol` that are shapes and not vocabulary.
const SHAPES: &[&str] = &[
    "frame",
    "opcode",
    "request",
    "response",
    "code",
    "Frame",
    "FrameError",
    "Opcode",
    "Request",
    "Response",
    "Code",
    "Outcome",
];

/// Whether `from` may name `to`.
fn is_open(from: &str, to: &str) -> bool {
    let floor = |room: &str| ROOMS.iter().position(|known| *known == room);
    from == to || (floor(to) < floor(from) && !SHUT.contains(&(from, to)))
}

/// The room of a file, by its path below `src`; `None` for the roots of the crate and the binary.
pub(crate) fn room_of(path: &str) -> Option<&str> {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!(rest.is_empty() && ["lib", "main"].contains(&name))).then_some(name)
}

/// Walls that a file below `src` goes through.
pub(crate) fn violations(path: &str, code: &Code) -> Vec<String> {
    let Some(room) = room_of(path) else { return Vec::new() };
    if !ROOMS.contains(&room) {
        return vec![format!(
            "src/{path}: {room} is no room; give it a floor in the table of doors"
        )];
    }
    let mut found = Vec::new();
    for (line, name) in code.names_after("crate").into_iter().chain(climbed(path, code)) {
        if !ROOMS.contains(&name.as_str()) {
            found.push(format!("src/{path}:{line}: crate::{name} hides which room it is of"));
        } else if !is_open(room, &name) {
            found.push(format!("src/{path}:{line}: {room} may not name {name}"));
        }
    }
    if !SHAPE_ROOMS.contains(&room) {
        for (line, name) in code.names_after("onrush_protocol") {
            if SHAPES.contains(&name.as_str()) {
                found.push(format!("src/{path}:{line}: {room} may not name the shape {name}"));
            }
        }
    }
    found
}

/// Names that are reached by climbing with `super` out of the room.
fn climbed(path: &str, code: &Code) -> Vec<(usize, String)> {
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = module.split('/').count();
    let climb = vec!["super"; depth].join("::");
    // `self::super::…` and inner modules climb from deeper; they reach the root with one more step.
    code.names_after(&climb)
        .into_iter()
        .filter(|(_, name)| ROOMS.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
fn found(path: &str, source: &str) -> Vec<String> {
    violations(path, &Code::of(source))
}

#[test]
fn a_room_that_names_one_that_stands_later_is_seen() {
    assert_eq!(found("buffer/ring.rs", "use crate::base::clock;"), Vec::<String>::new());
    let seen = found("buffer/ring.rs", "\nuse crate::{base::clock, shard::Shard};");
    assert_eq!(seen, ["src/buffer/ring.rs:2: buffer may not name shard"]);
    assert_eq!(found("journal.rs", "fn f() { crate::wire::tcp() }").len(), 1);
}

#[test]
fn the_two_wings_never_name_each_other() {
    for (room, other) in [
        ("delivery", "buffer"),
        ("delivery", "ingest"),
        ("buffer", "delivery"),
        ("ingest", "delivery"),
    ] {
        let source = format!("use crate::{other}::Thing;");
        assert_eq!(found(&format!("{room}/mod.rs"), &source).len(), 1, "{room} names {other}");
    }
    assert!(found("delivery/mod.rs", "use crate::shard::Thing;").is_empty());
}

#[test]
fn a_wall_is_not_passed_by_climbing_or_by_a_name_at_the_root() {
    assert_eq!(found("journal/writer.rs", "use super::super::wire::Tcp;").len(), 1);
    assert_eq!(found("journal/mod.rs", "use super::wire::Tcp;").len(), 1);
    assert!(found("journal/writer.rs", "use super::reader::Reader;").is_empty());
    assert_eq!(found("journal/writer.rs", "use crate::Server;").len(), 1);
}

#[test]
fn tests_and_comments_may_name_what_they_like() {
    let source = "// crate::wire\n#[cfg(test)]\nmod tests { use crate::server::Server; }";
    assert!(found("journal/mod.rs", source).is_empty());
}

#[test]
fn shapes_of_the_protocol_stay_where_bytes_become_requests() {
    let source = "use onrush_protocol::{RecordBatch, request::Push};";
    assert_eq!(found("shard/mod.rs", source).len(), 1);
    assert!(found("wire/tcp.rs", source).is_empty());
    assert!(
        found("shard/mod.rs", "use onrush_protocol::{RecordBatch, name::QueueName};").is_empty()
    );
}

#[test]
fn a_room_without_a_floor_is_seen() {
    assert_eq!(found("attic/mod.rs", "").len(), 1);
    assert!(found("lib.rs", "pub use crate::server::Server;").is_empty());
}

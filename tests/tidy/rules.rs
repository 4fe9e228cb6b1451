//! The other rules of the house, each a pure function from a text to what is wrong with it.
//!
//! In: a path from the root of the repository, with slashes, and a file's text or code. Out: one line
//! per violation. Each rule stands beside a test that shows it a violation and sees it found.

use crate::source_text::Code;

/// Lines that a file may have without its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines that a function may have.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that may be longer: path, name, and the reason. Best empty.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];
/// Files that may be longer: path and the reason. Best empty.
const LONG_FILES: &[(&str, &str)] = &[];

/// The one file that may hold unsafe code: the one that maps files into memory.
const UNSAFE_FILE: &str = "src/journal/segment.rs";
/// The one file of the server that may ask what time it is.
const CLOCK_FILE: &str = "src/base/clock.rs";
/// Types that tell the time when asked for `now`.
const CLOCKS: &[&str] = &["Instant", "SystemTime", "Timestamp", "Zoned"];

/// Names that say nothing about what a file holds.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helpers", "common", "types", "manager"];

/// A file says what it decides before anything else.
pub(crate) fn opening(path: &str, source: &str) -> Option<String> {
    // A crate may open with its README instead.
    let opens = source.starts_with("//!") || source.starts_with("#![doc = include_str!");
    (!opens).then(|| format!("{path}: does not open with //!"))
}

/// A file that outgrew its noun.
pub(crate) fn file_length(path: &str, code: &Code) -> Option<String> {
    let excused = LONG_FILES.iter().any(|(file, _)| *file == path);
    (code.lines > FILE_LINES_MAX && !excused)
        .then(|| format!("{path}: {} lines without tests, at most {FILE_LINES_MAX}", code.lines))
}

/// Functions that do more than one thing.
pub(crate) fn function_lengths(path: &str, code: &Code) -> Vec<String> {
    let excused =
        |name: &str| LONG_FUNCTIONS.iter().any(|(file, known, _)| *file == path && *known == name);
    let functions = code.functions().into_iter();
    let long = functions.filter(|(_, name, lines)| *lines > FUNCTION_LINES_MAX && !excused(name));
    long.map(|(line, name, lines)| {
        format!("{path}:{line}: {name} has {lines} lines, at most {FUNCTION_LINES_MAX}")
    })
    .collect()
}

/// Exceptions that no longer are.
pub(crate) fn stale_exceptions(files: &[(String, Code)]) -> Vec<String> {
    let code = |path: &str| files.iter().find(|(file, _)| file == path).map(|(_, code)| code);
    let functions = LONG_FUNCTIONS.iter().filter(|(path, name, _)| {
        let functions = code(path).map(Code::functions).unwrap_or_default();
        !functions.iter().any(|(_, known, lines)| known == name && *lines > FUNCTION_LINES_MAX)
    });
    let functions = functions.map(|(path, name, _)| format!("{path}: {name} is no longer long"));
    let long = |path: &str| code(path).is_some_and(|code| code.lines > FILE_LINES_MAX);
    let files = LONG_FILES.iter().filter(|(path, _)| !long(path));
    functions.chain(files.map(|(path, _)| format!("{path} is no longer long"))).collect()
}

/// Unsafe code outside of its one file.
pub(crate) fn unsafe_code(path: &str, code: &Code) -> Vec<String> {
    let lines = if path == UNSAFE_FILE { Vec::new() } else { code.lines_with("unsafe") };
    lines
        .into_iter()
        .map(|line| format!("{path}:{line}: unsafe outside of {UNSAFE_FILE}"))
        .collect()
}

/// The server asks what time it is in one place, so that tests can tell it.
pub(crate) fn clock(path: &str, code: &Code) -> Vec<String> {
    if path == CLOCK_FILE {
        return Vec::new();
    }
    let asks = |clock: &&str| {
        let names = code.names_after(clock).into_iter();
        let asked = names.filter(|(_, name)| name == "now").map(|(line, _)| line);
        asked.collect::<Vec<usize>>()
    };
    let mut lines: Vec<usize> = CLOCKS.iter().flat_map(asks).collect();
    // Another name would hide the question.
    for clock in CLOCKS {
        lines.extend(code.lines_with(&format!("{clock} as")));
    }
    lines
        .into_iter()
        .map(|line| format!("{path}:{line}: asks the time outside of {CLOCK_FILE}"))
        .collect()
}

/// A name that says nothing, of a file or one of its folders.
pub(crate) fn empty_name(path: &str) -> Option<String> {
    let mut names = path.split('/').map(|part| part.split('.').next().unwrap_or_default());
    let empty = names.find(|name| EMPTY_NAMES.contains(&name.to_lowercase().as_str()))?;
    Some(format!("{path}: {empty} says nothing about what is in it"))
}

/// The protocol stays free of everything that a client in another place would have to carry.
pub(crate) fn protocol_dependencies(manifest: &str) -> Vec<String> {
    let mut names = section(manifest, "[dependencies]");
    names.sort_unstable();
    let expected = ["bytes", "crc32fast"];
    let other_tables = manifest.lines().filter(|line| {
        let line = line.trim();
        line.starts_with('[')
            && line.contains("dependencies")
            && line != "[dependencies]"
            && !line.starts_with("[dev-dependencies")
    });
    let mut found: Vec<String> = other_tables
        .map(|line| format!("protocol/Cargo.toml: unexpected {}", line.trim()))
        .collect();
    if names != expected {
        found.push(format!("protocol/Cargo.toml: depends on {names:?}, not just {expected:?}"));
    }
    found
}

fn section<'a>(manifest: &'a str, header: &str) -> Vec<&'a str> {
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    keys.map(|line| line.split(['.', '=', ' ']).next().unwrap_or_default()).collect()
}

/// Rooms that `lib.rs` declares, but does not explain in its opening.
pub(crate) fn unexplained_rooms(lib: &str) -> Vec<String> {
    let opening: String = lib.lines().filter(|line| line.starts_with("//!")).collect();
    let code = Code::of(lib);
    let modules = code.text.lines().filter_map(|line| {
        let line = line.trim().strip_suffix(';')?;
        line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "))
    });
    let missing = modules.filter(|name| !opening.contains(&format!("`{name}`")));
    missing.map(|name| format!("src/lib.rs: the opening does not name `{name}`")).collect()
}

/// Rooms that exist below `src`, but are not declared in `lib.rs`, so that nobody builds them.
pub(crate) fn undeclared_rooms(lib: &str, rooms: &[&str]) -> Vec<String> {
    let code = Code::of(lib);
    let declared = |room: &str| code.text.contains(&format!("mod {room};"));
    let missing = rooms.iter().filter(|room| !declared(room));
    missing.map(|room| format!("src/lib.rs: does not declare {room}")).collect()
}

/// Promises that nobody keeps: work that is left for later goes into the list of work.
pub(crate) fn left_for_later(path: &str, text: &str) -> Vec<String> {
    // Built from halves, or this file would break its own rule.
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    matches(
        path,
        text,
        |line| words.iter().find(|word| line.contains(*word)).cloned(),
        "is left for later",
    )
}

/// Names of hosts where packages come from: a mirror of one machine must not become everyone's.
pub(crate) fn registry_hosts(path: &str, text: &str) -> Vec<String> {
    let hosts = [
        ["crates", ".io"],
        ["py", "pi.org"],
        ["pythonhosted", ".org"],
        ["registry.npm", "js.org"],
        ["registry.yarn", "pkg.com"],
        ["rubygems", ".org"],
        ["proxy.go", "lang.org"],
        ["arti", "factory"],
        ["jf", "rog"],
    ]
    .map(|halves| halves.concat());
    // A lock file names where the index is kept; cargo writes this line and no other is expected.
    let index = ["registry+https://github.com/rust-lang/crates", ".io-index"].concat();
    let named = |line: &str| {
        let line = line.replace(&index, "");
        hosts.iter().find(|host| line.to_lowercase().contains(*host)).cloned()
    };
    matches(path, text, named, "names a host of packages")
}

/// Places that exist on one machine only.
pub(crate) fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let places =
        [["/wo", "rk"], ["/ro", "ot"], ["/ho", "me"], ["/Us", "ers"]].map(|halves| halves.concat());
    let named = |line: &str| places.iter().find(|place| holds_path(line, place)).cloned();
    matches(path, text, named, "is a place of one machine")
}

/// Whether an absolute path through `place` begins somewhere in the line.
fn holds_path(line: &str, place: &str) -> bool {
    let bytes = line.as_bytes();
    line.match_indices(place).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let after = bytes.get(at + place.len());
        let begins = before
            .is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"._-~/})>$*".contains(byte));
        begins && after == Some(&b'/')
    })
}

fn matches(
    path: &str,
    text: &str,
    find: impl Fn(&str) -> Option<String>,
    complaint: &str,
) -> Vec<String> {
    let lines = text.lines().enumerate();
    let found = lines.filter_map(|(index, line)| Some((index + 1, find(line)?)));
    found.map(|(line, what)| format!("{path}:{line}: {what} {complaint}")).collect()
}

#[test]
fn a_file_without_an_opening_is_seen() {
    assert!(opening("a.rs", "//! Decides.\n").is_none());
    assert!(opening("a.rs", "#![doc = include_str!(\"../README.md\")]\n").is_none());
    assert!(opening("a.rs", "use b;\n//! Late.\n").is_some());
}

#[test]
fn a_long_file_is_seen_and_its_tests_do_not_count() {
    let body = "fn a() {}\n".repeat(FILE_LINES_MAX);
    assert!(file_length("a.rs", &Code::of(&body)).is_none());
    assert!(file_length("a.rs", &Code::of(&format!("{body}fn b() {{}}\n"))).is_some());
    let tested = format!("{body}#[cfg(test)]\nmod tests {{\n{body}\n}}\n");
    assert!(file_length("a.rs", &Code::of(&tested)).is_none());
}

#[test]
fn a_long_function_is_seen() {
    let function = |lines: usize| format!("fn long() {{\n{}}}\n", "a();\n".repeat(lines - 2));
    assert!(function_lengths("a.rs", &Code::of(&function(FUNCTION_LINES_MAX))).is_empty());
    let seen = function_lengths("a.rs", &Code::of(&function(FUNCTION_LINES_MAX + 1)));
    assert_eq!(seen, ["a.rs:1: long has 71 lines, at most 70"]);
}

#[test]
fn unsafe_code_is_seen_outside_of_its_file() {
    let code = Code::of("// unsafe\n#![deny(unsafe_code)]\nfn a() { unsafe { b() } }");
    assert_eq!(unsafe_code("src/journal/writer.rs", &code).len(), 1);
    assert!(unsafe_code(UNSAFE_FILE, &code).is_empty());
}

#[test]
fn who_asks_the_time_is_seen_outside_of_the_clock() {
    for source in [
        "let a = Instant::now();",
        "let a = tokio::time::Instant::now();",
        "let a = f.unwrap_or_else(SystemTime::now);",
        "use std::time::Instant as Moment;",
        "let a = std::time::Instant::\n    now();",
    ] {
        assert_eq!(clock("src/wire/tcp.rs", &Code::of(source)).len(), 1, "{source}");
        assert!(clock(CLOCK_FILE, &Code::of(source)).is_empty());
    }
    assert!(clock("src/wire/tcp.rs", &Code::of("let a: Instant = b; c.now()")).is_empty());
}

#[test]
fn names_that_say_nothing_are_seen() {
    for path in ["src/util.rs", "src/wire/helpers/mod.rs", "tests/common/mod.rs", "tools/Types.rs"]
    {
        assert!(empty_name(path).is_some(), "{path}");
    }
    assert!(empty_name("src/state/timers.rs").is_none());
}

#[test]
fn a_further_dependency_of_the_protocol_is_seen() {
    let good = "[dependencies]\nbytes.workspace = true\n# why\ncrc32fast = \"1\"\n\n[dev-dependencies]\nx = \"1\"\n";
    assert!(protocol_dependencies(good).is_empty());
    assert_eq!(protocol_dependencies(&good.replace("# why", "tokio = \"1\"")).len(), 1);
    assert_eq!(protocol_dependencies("[dependencies]\nbytes = \"1\"\n").len(), 1);
    assert_eq!(protocol_dependencies(&format!("{good}[target.x.dependencies]\n")).len(), 1);
}

#[test]
fn a_room_that_is_not_explained_or_not_declared_is_seen() {
    let lib = "//! * `base`: the ground.\npub mod base;\npub mod wire;\n";
    assert_eq!(unexplained_rooms(lib), ["src/lib.rs: the opening does not name `wire`"]);
    assert_eq!(
        undeclared_rooms(lib, &["base", "wire", "log"]),
        ["src/lib.rs: does not declare log"]
    );
}

#[test]
fn work_that_is_left_for_later_is_seen() {
    let text = format!("a\n// {}: b\n", ["TO", "DO"].concat());
    assert_eq!(left_for_later("a.md", &text).len(), 1);
    assert!(left_for_later("a.md", "todo = \"deny\"").is_empty());
}

#[test]
fn a_host_of_packages_is_seen_except_where_cargo_writes_it() {
    let host = ["crates", ".io"].concat();
    assert_eq!(registry_hosts("a.sh", &format!("curl https://index.{host}/a")).len(), 1);
    let lock = format!("source = \"registry+https://github.com/rust-lang/{host}-index\"");
    assert!(registry_hosts("Cargo.lock", &lock).is_empty());
}

#[test]
fn a_place_of_one_machine_is_seen() {
    let place = ["/wo", "rk/"].concat();
    for line in [format!("cd {place}a"), format!("\"{place}a\""), format!("={place}a")] {
        assert_eq!(machine_paths("a.sh", &line).len(), 1, "{line}");
    }
    assert!(machine_paths("a.sh", &format!("target{place}a")).is_empty());
    assert!(machine_paths("a.sh", &format!("https://example.org{place}a")).is_empty());
}

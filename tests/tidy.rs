//! Tidy: the rules of the house that no compiler keeps, read from the sources with std alone.
//!
//! In: every file that git tracks, and those it would. Out: a failure per rule that lists each
//! violation with its file and line. Rules are pure functions in `tidy/`, each beside a test in which
//! it sees a planted violation; here they meet the repository.

#[path = "tidy/doors.rs"]
mod doors;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source_text.rs"]
mod source_text;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use source_text::Code;

/// Folders with code of ours that ships; tests and fuzz targets are measured less strictly.
const SOURCES: &[&str] = &["src/", "protocol/src/", "tools/"];

/// Every file of the repository with its path from the root, with slashes.
fn tracked() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("tidy asks git which files there are");
    assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let paths = names.split('\0').filter(|path| !path.is_empty()).map(str::to_owned);
    let there: Vec<String> = paths.filter(|path| root().join(path).is_file()).collect();
    assert!(there.iter().any(|path| path == "src/lib.rs"), "this is not the repository: {there:?}");
    there
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file; `None` when it is not text.
fn text(path: &str) -> Option<String> {
    let bytes = std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn rust() -> impl Iterator<Item = (String, String)> {
    let paths = tracked().into_iter().filter(|path| path.ends_with(".rs"));
    paths.map(|path| {
        let source = text(&path).unwrap_or_else(|| panic!("{path} is not UTF-8"));
        (path, source)
    })
}

/// The code that ships. Files that are compiled for tests only are left out.
fn shipped() -> Vec<(String, Code)> {
    let sources = rust().filter(|(path, _)| SOURCES.iter().any(|folder| path.starts_with(folder)));
    let files: Vec<(String, Code)> =
        sources.map(|(path, source)| (path, Code::of(&source))).collect();
    let tests: BTreeSet<String> =
        files.iter().flat_map(|(path, code)| test_files(path, code)).collect();
    let is_test = |path: &str| {
        tests
            .iter()
            .any(|test| path == format!("{test}.rs") || path.starts_with(&format!("{test}/")))
    };
    files.into_iter().filter(|(path, _)| !is_test(path)).collect()
}

/// Where a file's modules that exist in tests only are kept, without the ending.
fn test_files(path: &str, code: &Code) -> Vec<String> {
    let module = path.trim_end_matches(".rs");
    let (folder, name) = module.rsplit_once('/').unwrap_or(("", module));
    let folder = if ["mod", "lib", "main"].contains(&name) { folder } else { module };
    code.test_modules.iter().map(|name| format!("{folder}/{name}")).collect()
}

fn each_text(rule: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let texts = tracked().into_iter().filter_map(|path| Some((text(&path)?, path)));
    texts.flat_map(|(text, path)| rule(&path, &text)).collect()
}

#[track_caller]
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn every_room_keeps_to_its_doors() {
    let files = shipped();
    let rooms = files.iter().filter_map(|(path, code)| Some((path.strip_prefix("src/")?, code)));
    none(rooms.flat_map(|(path, code)| doors::violations(path, code)).collect());
}

#[test]
fn every_source_opens_with_what_it_decides() {
    none(rust().filter_map(|(path, source)| rules::opening(&path, &source)).collect());
}

#[test]
fn every_room_is_declared_and_explained_in_lib() {
    let lib = text("src/lib.rs").expect("lib.rs is text");
    let files = shipped();
    let rooms: BTreeSet<&str> =
        files.iter().filter_map(|(path, _)| doors::room_of(path.strip_prefix("src/")?)).collect();
    let rooms: Vec<&str> = rooms.into_iter().collect();
    none([rules::unexplained_rooms(&lib), rules::undeclared_rooms(&lib, &rooms)].concat());
}

#[test]
fn no_file_outgrew_its_noun() {
    none(shipped().iter().filter_map(|(path, code)| rules::file_length(path, code)).collect());
}

#[test]
fn no_function_does_more_than_one_thing() {
    let files = shipped();
    none(files.iter().flat_map(|(path, code)| rules::function_lengths(path, code)).collect());
}

#[test]
fn no_exception_outlives_its_reason() {
    none(rules::stale_exceptions(&shipped()));
}

#[test]
fn unsafe_code_stays_in_its_file() {
    let code = rust().map(|(path, source)| (path, Code::of(&source)));
    none(code.flat_map(|(path, code)| rules::unsafe_code(&path, &code)).collect());
}

#[test]
fn only_the_clock_asks_the_time() {
    let server = shipped().into_iter().filter(|(path, _)| path.starts_with("src/"));
    none(server.flat_map(|(path, code)| rules::clock(&path, &code)).collect());
}

#[test]
fn the_protocol_carries_two_dependencies() {
    let manifest = text("protocol/Cargo.toml").expect("a manifest is text");
    none(rules::protocol_dependencies(&manifest));
}

#[test]
fn every_file_has_a_name_that_says_something() {
    none(tracked().iter().filter_map(|path| rules::empty_name(path)).collect());
}

#[test]
fn nothing_is_left_for_later() {
    none(each_text(rules::left_for_later));
}

#[test]
fn no_host_of_packages_is_named() {
    none(each_text(rules::registry_hosts));
}

#[test]
fn no_place_of_one_machine_is_named() {
    none(each_text(rules::machine_paths));
}

#[test]
fn modules_for_tests_are_found_where_the_compiler_finds_them() {
    let code = Code::of("#[cfg(test)]\nmod tests;\n");
    assert_eq!(test_files("src/config/mod.rs", &code), ["src/config/tests"]);
    assert_eq!(test_files("src/config/value.rs", &code), ["src/config/value/tests"]);
    assert_eq!(test_files("src/lib.rs", &code), ["src/tests"]);
}

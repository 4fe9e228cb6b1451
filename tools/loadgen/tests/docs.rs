//! Every command line for the load generator that the README and the docs name is one that it
//! understands.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and should say where"
)]

#[path = "../../../tests/support/docs.rs"]
mod docs;

use std::path::Path;

#[test]
fn it_knows_every_command_line_that_pages_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let count = docs::check_all(&root, "onrush-load", env!("CARGO_BIN_EXE_onrush-load"));
    assert!(count >= 8, "{count} found");
}

#[test]
fn what_it_does_not_know_is_seen() {
    for page in ["`onrush-load push --no-such-flag 1`", "`onrush-load pop`, then `--no-such-flag`"]
    {
        let lines = docs::command_lines(page, "onrush-load");
        let known = docs::is_known(env!("CARGO_BIN_EXE_onrush-load"), lines.last().unwrap());
        assert!(known.unwrap_err().contains("--no-such-flag"), "{page}");
    }
}

//! What people at a terminal see: through a pseudo-terminal that `script` opens.

use std::process::Command;

use crate::world::{Ran, World, run};

/// Runs a line at a terminal on which `keys` are typed. What it says on both outputs comes as one.
fn at_terminal(world: &World, line: &str, keys: &str, variables: &[(&str, &str)]) -> Ran {
    let line = format!("{} {line}", env!("CARGO_BIN_EXE_onrushctl"));
    at_terminal_raw(world, &line, keys, variables)
}

/// The same with any program.
fn at_terminal_raw(world: &World, line: &str, keys: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", line, "/dev/null"]);
    command.env("ONRUSH_SERVER", world.server.http_url()).env("ONRUSH_TCP", &world.tcp);
    command.env("XDG_CONFIG_HOME", world.folder.path().join("config"));
    command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("ONRUSH_TOKEN");
    command.envs(variables.iter().copied());
    run(command, keys)
}

#[test]
fn a_terminal_gets_tables_in_colour_and_a_pipe_gets_neither() {
    let world = World::new();
    world.push("orders", "1\n");
    let ran = at_terminal(&world, "queues list", "", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("\u{1b}[1mNAME\u{1b}[0m") && ran.out.contains("orders"), "{ran:?}");
    let plain = at_terminal(&world, "queues list", "", &[("NO_COLOR", "1")]);
    assert!(plain.out.contains("NAME") && !plain.out.contains('\u{1b}'), "{plain:?}");
    let json = at_terminal(&world, "queues list -o json", "", &[]);
    assert!(json.out.contains("\"queues\": [") && !json.out.contains('\u{1b}'), "{json:?}");
    let piped = world.run("queues list").done();
    assert!(piped.starts_with("{\n  \"queues\": ["), "{piped}");
    let forced = world.run("queues list -o table").done();
    assert!(forced.starts_with("NAME") && !forced.contains('\u{1b}'), "{forced}");
}

#[test]
fn people_are_asked_before_something_is_deleted() {
    let world = World::new();
    for (keys, is_deleted) in [("n\n", false), ("\n", false), ("yes\n", true)] {
        world.push("q", "1\n");
        let ran = at_terminal(&world, "queues delete q", keys, &[]);
        assert!(
            ran.out.contains("This will delete queue \"q\" with all it holds. Go on? [y/N]"),
            "{ran:?}"
        );
        let (code, said) = if is_deleted { (0, "is deleted") } else { (2, "nothing was done") };
        assert_eq!((ran.code, ran.out.contains(said)), (code, true), "{keys:?}: {ran:?}");
        assert_eq!(world.run("queues show q").code, i32::from(is_deleted), "{keys:?}");
    }
    world.push("q", "1\n");
    let ran = at_terminal(&world, "queues delete q --yes", "", &[]);
    assert!(ran.code == 0 && !ran.out.contains("[y/N]"), "{ran:?}");
}

#[test]
fn what_takes_long_shows_how_far_it_is_at_a_terminal_only() {
    let world = World::new();
    let slow = "(echo 1; sleep 1.5; echo 2; sleep 0.5; echo 3)";
    let line = format!("sh -c \"{slow} | {} push q\"", env!("CARGO_BIN_EXE_onrushctl"));
    let ran = at_terminal_raw(&world, &line, "", &[]);
    assert!(ran.code == 0 && ran.out.contains("2 messages, "), "{ran:?}");
    assert!(ran.out.contains("pushed\u{1b}[0m      3"), "{ran:?}");
    let piped = world.run_with(&["push", "q"], "1\n");
    assert_eq!((piped.code, piped.err.as_str()), (0, ""));
}

#[test]
fn messages_of_others_cannot_steer_a_terminal() {
    let world = World::new();
    let steering = "{\"data\":\"a\\u001b[2Jb\\u009b2Jc\",\"transactionId\":\"t\\u001b[2J\"}\n";
    assert_eq!(world.run_with(&["push", "q", "--items"], steering).code, 0);
    let plain = [("NO_COLOR", "1")];
    for line in ["tail q", "messages list", "pop q"] {
        let ran = at_terminal(&world, line, "", &plain);
        assert!(ran.code == 0 && !ran.out.contains(['\u{1b}', '\u{9b}']), "{line}: {ran:?}");
    }
}

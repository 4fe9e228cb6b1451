//! Tail: the newest messages, and those that come.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::world::{PATIENCE, Ran, World, wait_until};

/// A tail that is running, and its lines as they come.
struct Tailing {
    child: Child,
    lines: Receiver<String>,
}

impl Tailing {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("a line comes");
        serde_json::from_str::<Value>(&line).unwrap()["data"].clone()
    }

    /// Sends a signal; how it ended, and what it had not told yet.
    fn end(self, signal: &str) -> (Ran, Vec<String>) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let ran = self.child.wait_with_output().unwrap().into();
        (ran, self.lines.iter().collect())
    }
}

fn groups(world: &World) -> Vec<Value> {
    world.json("groups list").as_array().unwrap().clone()
}

#[test]
fn the_newest_messages_are_shown_oldest_first_and_nothing_is_settled() {
    let world = World::new();
    let input: String = (0..30).map(|n| format!("{n}\n")).collect();
    world.push("q", &input);
    let shown = |line: &str| -> Vec<Value> {
        let ran = world.run(line);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.lines().iter().map(|line| line["data"].clone()).collect()
    };
    assert_eq!(shown("tail q"), (20..30).collect::<Vec<u32>>());
    assert_eq!(shown("tail q -n 2"), [28, 29]);
    assert_eq!(shown("tail q --since 1h").len(), 30);
    assert!(shown("tail q -n 0").is_empty());
    assert!(shown("tail q --partition other").is_empty());
    assert!(groups(&world).is_empty(), "looking makes no group");
    let text = world.run("tail q -n 1 -o table").done();
    assert!(text.trim_end().ends_with("Default 29  29"), "{text}");
    assert_eq!(shown("pop q -n 1"), [0], "nothing is settled by looking");
    world.run("tail nothing").refused(1, &["queue_not_found"]);
    world.run("tail nothing --follow").refused(1, &["queue_not_found"]);
    world.run("tail q --since never").refused(2, &["no time"]);
}

#[test]
fn following_goes_on_until_ctrl_c_and_leaves_nothing_behind() {
    let world = World::new();
    world.push("q", "1\n2\n3\n");
    for signal in ["-INT", "-TERM"] {
        let tailing = Tailing::start(world.command(&["tail", "q", "--follow", "-n", "2"]));
        let first = [tailing.next(), tailing.next()];
        let group = wait_until("it reads for a group of its own", || groups(&world).pop());
        assert!(group["name"].as_str().unwrap().starts_with("onrushctl-tail-"), "{group}");
        // As many as have come for both ways of ending.
        assert_eq!(first[1].as_u64().unwrap(), first[0].as_u64().unwrap() + 1, "{first:?}");
        let next = first[1].as_u64().unwrap() + 1;
        world.push("q", &format!("{next}\n{}\n", next + 1));
        assert_eq!([tailing.next(), tailing.next()], [next, next + 1]);
        let (ran, rest) = tailing.end(signal);
        assert_eq!((ran.code, ran.err.as_str(), rest.len()), (0, "", 0), "{signal}: {ran:?}");
        assert!(groups(&world).is_empty(), "its group is deleted");
    }
}

#[test]
fn following_may_begin_in_the_past_and_keep_to_a_partition() {
    let world = World::new();
    let items: String =
        (0..6).map(|n| format!("{{\"data\":{n},\"partition\":\"p{}\"}}\n", n % 2)).collect();
    assert_eq!(world.run_with(&["push", "q", "--items"], &items).code, 0);
    let line = ["tail", "q", "-f", "--since", "1h ago", "--partition", "p1"];
    let tailing = Tailing::start(world.command(&line));
    assert_eq!([tailing.next(), tailing.next(), tailing.next()], [1, 3, 5]);
    assert_eq!(world.run("push q -p p0 --payload 6").code, 0);
    assert_eq!(world.run("push q -p p1 --payload 7").code, 0);
    assert_eq!(tailing.next(), 7);
    let (ran, rest) = tailing.end("-INT");
    assert_eq!((ran.code, rest.len()), (0, 0), "{ran:?}");
}

#[test]
fn a_reader_that_has_had_enough_ends_it_without_a_fault() {
    let world = World::new();
    world.push("q", "1\n");
    let mut tailing = world.command(&["tail", "q", "-f"]);
    let mut child = tailing.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    drop(out);
    world.push("q", "2\n");
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert!(groups(&world).is_empty());
}

//! Exit codes, and what is said to people with each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use crate::world::{Ran, World, bare, run};

/// A server that answers every request with these bytes, and then closes.
fn impostor(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    addr
}

#[test]
fn nobody_there_is_told_with_the_way_to_say_where() {
    let folder = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ctl = |arguments: &[&str]| {
        let mut command = bare(folder.path());
        command.args(["--server", &closed, "--tcp", &closed]).args(arguments);
        run(command, "1\n")
    };
    for line in
        [&["queues", "list"][..], &["status"], &["health"], &["lag"], &["queues", "create", "q"]]
    {
        ctl(line).refused(3, &["cannot reach http://", &closed, "--server"]);
    }
    for line in [&["push", "q"][..], &["pop", "q"]] {
        ctl(line).refused(3, &["cannot reach tcp://", &closed, "--tcp"]);
    }
}

#[test]
fn whoever_is_no_server_of_ours_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |answer: &'static str, arguments: &[&str]| {
        let mut command = bare(folder.path());
        command.args(["--server", &impostor(answer), "--timeout", "10s"]).args(arguments);
        run(command, "")
    };
    let page = "HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>";
    ask(page, &["queues", "list"]).refused(3, &["does not answer like an Onrush server", "404"]);
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
    ask(page, &["queues", "list", "-o", "table"])
        .refused(3, &["does not answer like an Onrush server"]);
    let page =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 22\r\n\r\n{\"status\":\"not ready\"}";
    let unready = ask(page, &["health", "-o", "table"]);
    unready.refused(1, &["does not take work now"]);
    assert!(unready.out.contains("status  not ready"), "{unready:?}");
    // A request that changes something may have been done, and that is said.
    ask("", &["queues", "create", "q"]).refused(3, &["cannot reach"]);
    ask("", &["maintenance", "on", "push"]).refused(3, &["it may have been done", "look before"]);
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let ctl = |line: &[&str]| {
        let mut command = bare(folder.path());
        command.args(["--server", &addr, "--timeout", "200ms"]).args(line);
        run(command, "")
    };
    ctl(&["queues", "list"]).refused(3, &["nothing within 200 ms"]);
    ctl(&["queues", "delete", "q", "--yes"])
        .refused(3, &["nothing within 200 ms", "it may have been done"]);
}

/// A token with this role, and the line by which a server knows it.
fn new_token(role: &str) -> (String, String) {
    let made = std::process::Command::new(crate::process::binary())
        .args(["token", "new", "somebody", "--role", role])
        .output()
        .unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let part = |name: &str| {
        let line = made.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    (part("token:"), part("line:"))
}

#[test]
fn whoever_may_not_delete_the_group_of_a_tail_is_told_what_stays() {
    let (token, line) = new_token("read-write");
    let setting = format!("auth.tokens={line}");
    let world = World::with(&["server.token=secret", &setting]);
    assert_eq!(world.run("push q --payload 1 --token secret").code, 0);
    let mut command = world.command(&["tail", "q", "--follow"]);
    command.env("ONRUSH_TOKEN", &token);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.refused(0, &["is left behind in \"q\"", "forbidden", "groups delete onrushctl-tail-"]);
}

#[test]
fn tokens_that_are_missing_or_too_weak_have_a_code_of_their_own() {
    let (token, line) = new_token("read-only");
    let setting = format!("auth.tokens={line}");
    let world = World::with(&["server.token=secret", &setting]);
    world.run("queues list").refused(4, &["unauthenticated", "ONRUSH_TOKEN", "onrush token new"]);
    world.run("pop q").refused(4, &["unauthenticated"]);
    world.run("push q --payload 1 --token wrong").refused(4, &["unauthenticated"]);
    assert_eq!(world.run("push q --payload 1 --token secret").code, 0);
    let as_viewer = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("ONRUSH_TOKEN", &token);
        run(command, "")
    };
    assert_eq!(as_viewer(&["queues", "list"]).code, 0);
    assert_eq!(as_viewer(&["tail", "q"]).lines().len(), 1, "looking needs no more");
    as_viewer(&["queues", "delete", "q", "--yes"])
        .refused(4, &["forbidden", "read-write or admin"]);
    as_viewer(&["push", "q", "--payload", "1"]).refused(4, &["forbidden"]);
}

#[test]
fn command_lines_that_cannot_be_meant_end_with_two() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "",
        "quues list",
        "queues",
        "queues list --output yaml",
        "queues list --no-such-flag",
        "push",
        "push q --qos 3",
        "push q --batch 0",
        "lag --min long",
        "--server ftp://x queues list",
        "--context none queues list",
        "maintenance on all-of-it",
        "completions tcsh",
    ] {
        let mut command = bare(folder.path());
        command.args(line.split_whitespace());
        let ran = run(command, "");
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{line}: {ran:?}");
        assert!(!ran.err.is_empty(), "{line}");
    }
    let mut help = bare(folder.path());
    help.arg("--help");
    let help = run(help, "").done();
    for code in [
        "0    done",
        "1    the server refused",
        "3    the server cannot be reached",
        "5    there was nothing",
    ] {
        assert!(help.contains(code), "{code}: {help}");
    }
}

//! Push: one message, streams of them, and input that is wrong.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::world::{World, wait_until};

fn payloads(world: &World, queue: &str) -> Vec<Value> {
    let ran = world.run(&format!("tail {queue} -n 1000"));
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.lines().iter().map(|line| line["data"].clone()).collect()
}

#[test]
fn one_message_says_where_it_is() {
    let world = World::new();
    let ran =
        world.run("push orders --partition eu --payload {\"n\":1.10} --transaction-id t1 --qos 2");
    let receipts = ran.lines();
    assert_eq!((ran.code, receipts.len()), (0, 1), "{ran:?}");
    let receipt = &receipts[0];
    assert_eq!((&receipt["status"], &receipt["transactionId"]), (&json!("pushed"), &json!("t1")));
    assert_eq!((&receipt["partition"], &receipt["sequence"]), (&json!("eu"), &json!(0)));
    let again = world.run("push orders --partition eu --payload 2 --transaction-id t1 --qos 2");
    assert_eq!(again.lines()[0]["status"], "duplicate");
    assert_eq!(again.lines()[0]["messageId"], receipt["messageId"]);
    let raw = world.run("tail orders").done();
    assert!(raw.contains("{\"n\":1.10}"), "the payload is as it was pushed: {raw}");
    let (titles, rows) = world.table("push orders --payload 1 --payload 2");
    assert_eq!(titles[..2], ["LINE", "STATUS"]);
    assert_eq!((rows.len(), &rows[1][..2]), (2, &["2".to_owned(), "pushed".to_owned()][..]));
    world
        .run("push orders --payload 1 --payload 2 --transaction-id t")
        .refused(2, &["--transaction-id"]);
    world.run("push orders --payload {").refused(2, &["line 1", "no JSON"]);
}

#[test]
fn a_stream_of_lines_is_pushed_in_its_order() {
    let world = World::new();
    let input: String = (0..2500).map(|n| format!("{{\"n\":{n}}}\n\n")).collect();
    let ran = world.run_with(&["push", "q", "--batch", "300"], &input);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &report["pushed"], &report["notPushed"]), (0, &json!(2500), &json!([])));
    assert_eq!(report["lastLine"], 4999, "blank lines are counted");
    let popped = world.run("pop q -n 10000").lines();
    let numbers: Vec<u64> = popped.iter().map(|it| it["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..2500).collect::<Vec<u64>>());
    let table = world.run_with(&["push", "q", "-o", "table"], "1\n2\n").done();
    assert!(table.starts_with("pushed      2\n"), "{table}");
    for terms in
        [&["--qos", "0"][..], &["--buffer-ms", "50"], &["--qos", "0", "--buffer-max", "10"]]
    {
        let buffered = world.run_with(&[&["push", "q"][..], terms].concat(), "1\n");
        assert!(buffered.out.contains("\"buffered\": 1"), "{buffered:?}");
    }
    world.run("push q --qos 1 --buffer-ms 50").refused(2, &["--qos 0 only"]);
    let receipts = world.run_with(&["push", "q", "--receipts"], "1\n2\n").lines();
    assert_eq!((receipts.len(), &receipts[1]["line"]), (2, &json!(2)));
    let empty = world.run_with(&["push", "q"], "");
    assert!(empty.code == 0 && empty.out.contains("\"pushed\": 0"), "{empty:?}");
}

#[test]
fn a_line_that_is_wrong_is_named_and_what_was_done_is_said_exactly() {
    let world = World::new();
    let input = "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4\n{\"n\":5}\n";
    for batch in ["1", "2", "1000"] {
        let queue = format!("q{batch}");
        let ran = world.run_with(&["push", &queue, "--batch", batch], input);
        ran.refused(2, &["line 4", "no JSON", "all lines before 4 were pushed", "tail -n +4"]);
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!((&report["pushed"], &report["lastLine"]), (&json!(3), &json!(3)));
        assert_eq!(payloads(&world, &queue), [json!({"n":1}), json!({"n":2}), json!({"n":3})]);
    }
    let ran = world.run_with(&["push", "checked", "--check-first", "--batch", "2"], input);
    ran.refused(2, &["line 4", "nothing was pushed"]);
    world.run("queues show checked").refused(1, &["queue_not_found"]);
    let mended = input.replace("4\n", "4}\n");
    let ran = world.run_with(&["push", "checked", "--check-first", "--batch", "2"], &mended);
    assert!(ran.code == 0 && ran.out.contains("\"pushed\": 5"), "{ran:?}");
    world.run_with(&["push", "first"], "x\n").refused(2, &["line 1", "nothing was pushed"]);
}

#[test]
fn what_the_server_does_not_take_is_told_line_by_line() {
    let world = World::with(&["wire.message_bytes_max=1KiB"]);
    let large = format!("1\n\"{}\"\n3\n", "x".repeat(2000));
    let ran = world.run_with(&["push", "q"], &large);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!((&report["pushed"], &report["notPushed"]), (&json!(2), &json!([[2, 2]])));
    assert!(
        ran.err.contains("line 2 was not pushed; 2 others up to line 3 were pushed"),
        "{ran:?}"
    );
    assert_eq!(payloads(&world, "q"), [1, 3]);

    world.json("queues create full --max-size 3");
    let ran = world.run_with(&["push", "full", "--batch", "2"], "1\n2\n3\n4\n5\n6\n");
    ran.refused(1, &["queue_full", "--max-size"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let (pushed, skipped) = (report["pushed"].as_u64().unwrap(), &report["notPushed"]);
    assert_eq!(skipped[0][0].as_u64().unwrap(), pushed + 1, "{report}");
    assert_eq!(payloads(&world, "full").len() as u64, pushed);
}

#[test]
fn lines_may_say_where_they_go_and_what_identifies_them() {
    let world = World::new();
    let input = "{\"id\":7,\"customer\":\"c1\"}\n{\"id\":8,\"customer\":\"c2\"}\n{\"id\":7,\"customer\":\"c1\"}\n";
    let fields = ["--transaction-id-field", "id", "--partition-field", "customer", "--qos", "2"];
    let ran = world.run_with(&[&["push", "q"][..], &fields[..]].concat(), input);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["pushed"], &report["duplicates"]), (&json!(2), &json!(1)), "{ran:?}");
    let ran = world.run_with(&[&["push", "q"][..], &fields[..]].concat(), "{\"id\":9}\n");
    ran.refused(2, &["line 1", "no field \"customer\""]);

    let items = concat!(
        "{\"payload\":{\"a\":1},\"partition\":\"p\",\"transactionId\":\"t\",",
        "\"traceId\":\"0d0a6a6c-2f0e-4f1c-9d43-0a3f2c1b5e6f\",",
        "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}\n",
        "{\"data\":\"aGVsbG8=\",\"encoding\":\"base64\",\"partition\":\"p\"}\n",
    );
    assert_eq!(world.run_with(&["push", "items", "--items"], items).code, 0);
    // What tail prints, push takes.
    let lines = world.run("tail items").done();
    assert_eq!(world.run_with(&["push", "copy", "--items"], &lines).code, 0);
    let told = |queue: &str| -> Vec<Value> {
        let fields = ["data", "encoding", "partition", "traceId", "traceparent"];
        let lines = world.run(&format!("pop {queue} -n 10")).lines();
        lines.iter().map(|line| fields.iter().map(|it| line[it].clone()).collect()).collect()
    };
    assert_eq!(told("copy"), told("items"));
    let first = world.run("messages list --queue copy").done();
    assert!(first.contains("\"transactionId\": \"t\""), "{first}");

    assert_eq!(world.run_with(&["push", "bytes", "--bytes"], "not {json\n").code, 0);
    assert_eq!(world.run("pop bytes").lines()[0]["data"], "bm90IHtqc29u");
    world.run("push q --items --bytes").refused(2, &["cannot be used with"]);
}

#[test]
fn a_stream_that_goes_on_is_pushed_as_it_comes_and_ends_in_order() {
    use std::io::Write;
    let world = World::new();
    let mut command = world.command(&["push", "q"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(b"1\n2\n").unwrap();
    wait_until("lines are pushed while more may come", || {
        let ran = world.run("queues show q");
        let shown: Value = serde_json::from_str(&ran.out).ok()?;
        (shown["totals"]["total"] == 2).then_some(())
    });
    let interrupted =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let ran: crate::world::Ran = child.wait_with_output().unwrap().into();
    ran.refused(130, &["all lines up to 2 are pushed"]);
    assert!(ran.out.contains("\"pushed\": 2"), "{ran:?}");
    drop(pipe);
}

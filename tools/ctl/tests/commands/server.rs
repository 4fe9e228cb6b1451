//! Maintenance, status and health.

use serde_json::json;

use crate::world::{World, wait_until};

#[test]
fn pushes_and_pops_are_held_back_and_let_go() {
    let world = World::new();
    world.push("q", "1\n");
    let state = world.json("maintenance show");
    assert_eq!(
        (&state["maintenanceMode"], &state["popMaintenanceMode"]),
        (&json!(false), &json!(false))
    );
    let state = world.json("maintenance on push");
    assert_eq!(
        (&state["maintenanceMode"], &state["popMaintenanceMode"]),
        (&json!(true), &json!(false))
    );
    let pushed = world.run_with(&["push", "q"], "2\n");
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let waiting = world.run("maintenance show -o table").done();
    assert!(
        waiting.contains("pushes held back   yes") && waiting.contains("waiting            1"),
        "{waiting}"
    );
    let state = world.json("maintenance on pop");
    assert_eq!(state["popMaintenanceMode"], true);
    world.run("pop q").refused(5, &[]);
    let state = world.json("maintenance off");
    assert_eq!(
        (&state["maintenanceMode"], &state["popMaintenanceMode"]),
        (&json!(false), &json!(false))
    );
    wait_until("what was held back is pushed", || {
        (world.json("queues show q")["totals"]["total"] == 2).then_some(())
    });
    assert_eq!(world.run("pop q -n 2").lines().len(), 2);
    world.run("maintenance on").refused(2, &["<WHAT>"]);
}

#[test]
fn the_server_is_shown_in_numbers() {
    let world = World::new();
    world.push("q", "1\n2\n");
    let status = world.json("status");
    assert_eq!(
        (&status["overview"]["queues"], &status["health"]["status"]),
        (&json!(1), &json!("healthy"))
    );
    assert_eq!(status["server"], json!(world.server.http_url()));
    let (_, rows) = world.table("status");
    assert!(rows.contains(&vec!["messages".to_owned(), "2".to_owned()]), "{rows:?}");
    let health = world.json("health");
    assert_eq!((&health["status"], &health["checks"]["store"]), (&json!("ready"), &json!("ok")));
    let (_, rows) = world.table("health");
    assert!(rows.contains(&vec!["store".to_owned(), "ok".to_owned()]), "{rows:?}");
}

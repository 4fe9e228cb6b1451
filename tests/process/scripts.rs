//! PV-20 with the ledger of the examples: a script, driven by processes of its users.

use serde_json::{Value, json};

use crate::client::World;
use crate::desk::{define, push, state};

/// Ledgers that are scripts, and users who order them about.
async fn ledgers() -> World {
    let world = World::new().await;
    let ledger = include_str!("../../examples/processes/luau/ledger.luau");
    define(&world, "ledger", json!({ "runtime": "luau", "module": ledger })).await;
    let user = "return { handle = function(state, msg, ctx)
        local order = { target = msg.ledger }
        for key, value in pairs(msg.order) do order[key] = value end
        ctx.send(order)
    end }";
    define(&world, "user", json!({ "runtime": "luau", "module": user })).await;
    let mint = json!({ "action": "mint", "to": "user/alice", "quantity": 100 });
    assert_eq!(push(&world, "ledger/root", mint).await["output"], 100);
    world
}

/// A user's transfer, with what became of its cascade.
async fn transfer(world: &World, user: &str, ledger: &str, order: Value) -> Value {
    let mut order = order;
    order["action"] = json!("transfer");
    let message = json!({ "ledger": format!("ledger/{ledger}"), "order": order });
    push(world, &format!("user/{user}"), message).await
}

/// Accounts of a ledger, those of other ledgers among them.
async fn accounts(world: &World, ledger: &str) -> Value {
    let path = format!("/api/v1/processes/ledger/{ledger}/state?prefix=account/&limit=1000");
    let page = world.get(&path).await.json();
    let keys = page["keys"].as_array().unwrap().iter();
    let named = keys.map(|it| {
        let name = it["key"].as_str().unwrap().trim_start_matches("account/");
        (name.trim_start_matches("user/").to_owned(), it["value"].clone())
    });
    Value::Object(named.collect())
}

#[tokio::test]
async fn pv_20_balances_of_a_script_are_exact_at_every_step() {
    let world = ledgers().await;
    let to =
        |user: &str, quantity: Value| json!({ "to": format!("user/{user}"), "quantity": quantity });
    transfer(&world, "alice", "root", to("bob", json!(1))).await;
    assert_eq!(accounts(&world, "root").await, json!({ "alice": 99, "bob": 1 }));
    for refused in [json!(100), json!("101"), json!(-1), json!(0), json!(1.5)] {
        let done = transfer(&world, "alice", "root", to("bob", refused.clone())).await;
        assert_eq!(done["status"], "partial", "{refused}: {done}");
        assert_eq!(accounts(&world, "root").await, json!({ "alice": 99, "bob": 1 }));
    }
    let via = |user: &str, quantity: u64, ledger: &str| json!({ "to": format!("user/{user}"), "quantity": quantity, "via": format!("ledger/{ledger}") });
    transfer(&world, "alice", "root", via("alice", 89, "sub1")).await;
    assert_eq!(accounts(&world, "root").await, json!({ "alice": 10, "bob": 1, "ledger/sub1": 89 }));
    assert_eq!(accounts(&world, "sub1").await, json!({ "alice": 89 }));
    transfer(&world, "alice", "sub1", via("bob", 5, "sub2")).await;
    assert_eq!(accounts(&world, "sub1").await, json!({ "alice": 84, "ledger/sub2": 5 }));
    assert_eq!(accounts(&world, "sub2").await, json!({ "bob": 5 }));
    transfer(&world, "bob", "sub2", via("bob", 4, "sub1")).await;
    assert_eq!(accounts(&world, "sub1").await, json!({ "alice": 84, "bob": 4, "ledger/sub2": 1 }));
    assert_eq!(accounts(&world, "sub2").await, json!({ "bob": 1 }));
    let world = world.restart().await;
    transfer(&world, "alice", "sub1", via("carol", 84, "root")).await;
    assert_eq!(
        accounts(&world, "root").await,
        json!({ "alice": 10, "bob": 1, "carol": 84, "ledger/sub1": 5 })
    );
    assert_eq!(accounts(&world, "sub1").await, json!({ "bob": 4, "ledger/sub2": 1 }));
    assert_eq!(state(&world, "ledger/sub1", "claim/ledger/root").await, 5);
    // Nobody but a ledger may credit, whatever he says.
    let forged = json!({ "action": "credit", "to": "user/eve", "quantity": 1 });
    assert_eq!(push(&world, "ledger/root", forged).await["status"], "failed");
}

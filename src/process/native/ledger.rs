//! Accounts in whole numbers, with sub-ledgers that hold a part of another ledger's supply.
//!
//! State: `balance:<account>` and, in a sub-ledger, `credit` (what it holds at its parent). A root
//! ledger is minted by a client. Messages, all with an `action`:
//!
//! | action | does |
//! |---|---|
//! | `mint` | `{account, quantity}`: adds to the supply; only for clients |
//! | `transfer` | `{account, to, quantity}`: between accounts of this ledger |
//! | `deposit` | `{account, to: "ledger/sub", toAccount, quantity}`: to an account of a sub-ledger, whose own account here is its name |
//! | `credit` | what a ledger sends for a deposit or a withdrawal |
//! | `withdraw` | `{account, to: "ledger/root", toAccount, quantity}`: out of a sub-ledger, to an account of its parent or of another sub-ledger (`via`) |
//! | `balance` | `{account}` |
//!
//! A transfer of more than there is, or of no whole number above zero, is refused and changes nothing.

use serde_json::{Value, json};

use crate::process::native::toolkit::{Desk, Fault};

/// See the module.
pub(super) fn ledger(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    match desk.text("action") {
        Some("mint") => mint(desk),
        Some("transfer") => transfer(desk),
        Some("deposit") => deposit(desk),
        Some("credit") => credit(desk),
        Some("withdraw") => withdraw(desk),
        Some("debit") => debit(desk),
        Some("balance") => {
            let account = text(desk, "account")?;
            Ok(json!(balance(desk, &account)?))
        }
        _ => Err(Fault::Says("unknown action".into())),
    }
}

fn text(desk: &Desk<'_>, key: &str) -> Result<String, Fault> {
    let found = desk.text(key).map(str::to_owned);
    found.ok_or_else(|| Fault::Says(format!("{key} is missing")))
}

fn quantity(desk: &Desk<'_>) -> Result<i64, Fault> {
    let quantity = desk.whole("quantity").filter(|it| *it > 0);
    quantity.ok_or_else(|| Fault::Says("quantity must be a whole number above zero".into()))
}

fn balance(desk: &mut Desk<'_>, account: &str) -> Result<i64, Fault> {
    desk.number(&format!("balance:{account}"))
}

fn add(desk: &mut Desk<'_>, account: &str, quantity: i64) -> Result<i64, Fault> {
    let sum = balance(desk, account)?.checked_add(quantity);
    let sum = sum.ok_or_else(|| Fault::Says("a balance is too large".into()))?;
    if sum < 0 {
        return Err(Fault::Says("insufficient balance".into()));
    }
    let key = format!("balance:{account}");
    match sum {
        0 => desk.remove(&key)?,
        _ => desk.put(&key, &json!(sum))?,
    }
    Ok(sum)
}

fn mint(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    if desk.sender().is_some() {
        return Err(Fault::Says("only a client may mint".into()));
    }
    let (account, quantity) = (text(desk, "account")?, quantity(desk)?);
    let supply = desk.number("supply")? + quantity;
    desk.put("supply", &json!(supply))?;
    Ok(json!(add(desk, &account, quantity)?))
}

fn transfer(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let (account, to, quantity) = (text(desk, "account")?, text(desk, "to")?, quantity(desk)?);
    add(desk, &account, -quantity)?;
    add(desk, &to, quantity)?;
    Ok(json!({ "transferred": quantity }))
}

/// From an account here to an account of a sub-ledger, which gets an account here.
fn deposit(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let (account, to) = (text(desk, "account")?, text(desk, "to")?);
    let (to_account, quantity) = (text(desk, "toAccount")?, quantity(desk)?);
    add(desk, &account, -quantity)?;
    add(desk, &to, quantity)?;
    let body = json!({ "action": "credit", "account": to_account, "quantity": quantity });
    desk.send(Some(&to), body);
    Ok(json!({ "deposited": quantity }))
}

/// What a ledger sends: its own kind is trusted, because nobody can say that he is a process.
fn credit(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let from = desk.sender().map(str::to_owned);
    let own = format!("{}/", desk.call.class);
    let Some(from) = from.filter(|from| from.starts_with(&own)) else {
        return Err(Fault::Says("only a ledger may credit".into()));
    };
    let (account, quantity) = (text(desk, "account")?, quantity(desk)?);
    let held = desk.number(&format!("credit:{from}"))? + quantity;
    desk.put(&format!("credit:{from}"), &json!(held))?;
    Ok(json!(add(desk, &account, quantity)?))
}

/// Out of this sub-ledger: the parent moves what it holds for it.
fn withdraw(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let (account, to) = (text(desk, "account")?, text(desk, "to")?);
    let (to_account, quantity) = (text(desk, "toAccount")?, quantity(desk)?);
    let via = desk.text("via").map(str::to_owned);
    add(desk, &account, -quantity)?;
    let held = desk.number(&format!("credit:{to}"))? - quantity;
    desk.put(&format!("credit:{to}"), &json!(held))?;
    let mut body = json!({ "action": "debit", "account": to_account, "quantity": quantity });
    if let (Some(via), Some(fields)) = (via, body.as_object_mut()) {
        fields.insert("via".into(), json!(via));
    }
    desk.send(Some(&to), body);
    Ok(json!({ "withdrawn": quantity }))
}

/// What a sub-ledger sends to have its withdrawal carried out: from its account here to another one,
/// or with `via` to an account of another sub-ledger.
fn debit(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let Some(from) = desk.sender().map(str::to_owned) else {
        return Err(Fault::Says("only a ledger may debit".into()));
    };
    let (account, quantity) = (text(desk, "account")?, quantity(desk)?);
    add(desk, &from, -quantity)?;
    match desk.text("via").map(str::to_owned) {
        Some(via) => {
            add(desk, &via, quantity)?;
            let body = json!({ "action": "credit", "account": account, "quantity": quantity });
            desk.send(Some(&via), body);
        }
        None => drop(add(desk, &account, quantity)?),
    }
    Ok(json!({ "moved": quantity }))
}

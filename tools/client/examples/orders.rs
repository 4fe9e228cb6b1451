//! A queue of orders from end to end, against a running server.
//!
//! `cargo run -p onrush-client --example orders -- 127.0.0.1:6631`

use std::time::Duration;

use onrush_client::{Client, Error, Message, MessageStatus, Qos, QueueOptions, ReceivedMessage};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, Serialize)]
struct Order {
    order_id: String,
    amount: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:6631".to_owned());
    let client = Client::builder().addr(&addr).request_timeout(Duration::from_secs(5)).build()?;
    let queue = client.queue("orders");
    queue.config(QueueOptions { retry_delay_ms: 100, ..QueueOptions::default() }).create().await?;

    // Pushing the same twice stores it once.
    let customer = queue.partition("customer-123");
    let message = |number: u32| {
        let order = Order { order_id: format!("O-{number}"), amount: 9.99 };
        Message::json(&order).transaction_id(format!("order-{number}")).header("source", "example")
    };
    for expected in [0, 10] {
        let pushed = customer.push((0..10).map(message)).qos(Qos::ExactlyOnce).await?;
        let is_duplicate = |receipt: &&onrush_client::MessageReceipt| {
            matches!(receipt.status, MessageStatus::Duplicate)
        };
        let duplicates = pushed.messages.iter().filter(is_duplicate).count();
        assert_eq!(duplicates, expected, "{pushed:?}");
    }

    // Popping by hand: one message is held until it is acknowledged or given back.
    let popped = customer.pop().wait(Duration::from_secs(1)).await?;
    for message in &popped {
        let order: Order = message.json()?;
        eprintln!("{} holds {} of {}", message.id, order.order_id, message.partition_name());
    }
    client.renew(&popped.lease, 10_000).await?;
    client.nack(&popped, "not yet").await?;

    // The consuming loop does it by itself; the failed message comes again, before the others.
    let handle = |message: ReceivedMessage| async move {
        eprintln!("{} for the {}. time", message.transaction_id(), message.attempts + 1);
        message.json::<Order>().map(drop)
    };
    let consumer = queue.consume(handle).batch(100).limit(10).start();
    let report = consumer.join().await?;
    assert_eq!((report.handled, report.failed, report.unsettled), (10, 0, 0));

    // Collecting here before pushing.
    let events = client.queue("events");
    let buffer = events.buffer(100, Duration::from_millis(10))?;
    for number in 0..250 {
        buffer.add(Message::json(&number)).await?;
    }
    assert!(client.flush_all().await.is_complete());
    assert!(buffer.close().await.is_empty());

    eprintln!("a ping takes {:?}", client.ping().await?);
    eprintln!("{} counters", client.stats().await?.len());
    events.delete().await?;
    queue.delete().await?;
    Ok(())
}

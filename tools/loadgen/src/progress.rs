//! Shows that a run is under way: a bar for people at a terminal, a line a second for programs.
//!
//! In: a meter and how long it will take. Out: text on the terminal, or NDJSON on standard
//! output; nothing at all when neither is wanted. It runs on a thread of its own and sleeps all
//! but a few microseconds of a second. Called around every phase of a run.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::tally::Meter;

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// A bar on standard error.
    Bar,
    /// NDJSON on standard output.
    Json,
    /// Not at all.
    Silent,
}

impl Voice {
    pub(crate) fn choose(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Bar,
            (false, false) => Self::Silent,
        }
    }
}

/// Progress that is being told; it ends when this is dropped.
pub(crate) struct Progress {
    over: Option<Sender<()>>,
    teller: Option<JoinHandle<()>>,
}

/// One second of a run.
#[derive(Serialize)]
struct Second<'a> {
    r#type: &'static str,
    phase: &'a str,
    second: u64,
    /// Messages per second since the line before.
    rate: f64,
    total: u64,
    errors: u64,
}

impl Progress {
    /// Begins to tell of `phase`, which will take about `length`.
    pub(crate) fn start(
        voice: Voice,
        phase: &'static str,
        length: Duration,
        meter: &Arc<Meter>,
    ) -> Self {
        let (over, ended) = channel();
        let meter = Arc::clone(meter);
        let bar = (voice == Voice::Bar).then(|| bar(phase, length));
        let teller = (voice != Voice::Silent).then(|| {
            std::thread::spawn(move || {
                let began = Instant::now();
                let (mut second, mut before) = (0, 0);
                while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                    second += 1;
                    let total = meter.messages.load(Relaxed);
                    let (rate, errors) = (total - before, meter.errors.load(Relaxed));
                    before = total;
                    match &bar {
                        Some(bar) => {
                            bar.set_position(began.elapsed().as_secs());
                            bar.set_message(format!("{} messages/s", HumanCount(rate)));
                        }
                        None => {
                            let rate = rate as f64;
                            let r#type = "progress";
                            print_json(&Second { r#type, phase, second, rate, total, errors });
                        }
                    }
                }
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
            })
        });
        Self { over: Some(over), teller }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(teller) = self.teller.take() {
            // A teller that panicked has nothing more to tell.
            drop(teller.join());
        }
    }
}

fn bar(phase: &'static str, length: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} [{bar:40}] {elapsed_precise} {msg}");
    let bar = ProgressBar::new(length.as_secs().max(1)).with_prefix(phase);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// One object on a line of its own. A reader that has gone away is no reason to fail a run.
pub(crate) fn print_json<T: Serialize>(object: &T) {
    if let Ok(line) = serde_json::to_string(object) {
        drop(writeln!(std::io::stdout().lock(), "{line}"));
    }
}

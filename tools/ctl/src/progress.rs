//! Shows people that something is under way, once it takes long.
//!
//! In: how far it is. Out: a line on standard error while that is a terminal, and nothing otherwise. What
//! is over within a second shows nothing. Called by push and by jobs over dead letters.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

/// How long something takes before it is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is shown, or will be.
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
    is_shown: bool,
}

impl Progress {
    /// Progress towards `total` bytes, or towards nobody knows what.
    pub(crate) fn new(total: Option<u64>) -> Self {
        let bar = ProgressBar::hidden();
        if let Some(total) = total {
            bar.set_length(total);
        }
        Self { bar, began: Instant::now(), is_shown: false }
    }

    /// Tells how far it is: bytes, and in words what was done.
    pub(crate) fn tell(&mut self, bytes: u64, words: impl FnOnce() -> String) {
        if !self.is_shown && self.began.elapsed() >= PATIENCE {
            self.is_shown = true;
            // It draws nothing where standard error is no terminal.
            self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            let template = match self.bar.length() {
                Some(_) => "[{bar:40}] {bytes}/{total_bytes}, {msg}, {eta} left",
                None => "{spinner} {elapsed_precise} {msg}",
            };
            let style = ProgressStyle::with_template(template);
            self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        if self.is_shown {
            self.bar.set_position(bytes);
            self.bar.set_message(words());
            self.bar.tick();
        }
    }

    /// Seconds since it began, never zero.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64().max(0.001)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A count with separators.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

//! Real PostgreSQL for tests: clusters of one's own that can be killed, frozen and started again.
//!
//! [`installations`] finds server binaries, the newest release of each major; [`Cluster`] runs one in
//! a temporary folder, on a loopback port and a socket of its own, with `fsync` on and never as root
//! (the server refuses that). A test that needs a database and finds none fails and says what to do:
//! a proof that was left out in silence would look like one that was given.
//!
//! | file | decides |
//! |---|---|
//! | `install` | which binaries there are |
//! | `owner` | as whom the server runs |
//! | `template` | the empty cluster that all others are copies of |
//! | `cluster` | starting, stopping, hurting |
//! | `processes` | which processes belong to a cluster, and signals to them |
//! | `watch` | that nothing is left behind when the test process dies |

mod cluster;
mod error;
mod install;
mod owner;
mod processes;
mod template;
mod watch;

pub use cluster::{Cluster, Stop};
pub use error::HarnessError;
pub use install::{Installation, installations};

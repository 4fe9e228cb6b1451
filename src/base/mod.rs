//! The cellar floor: the seams through which Onrush touches a clock, randomness and a disk.
//!
//! In: nothing of ours. Out: traits with a real and a simulated implementation each, so that the
//! same engine runs on a machine and in a test that replays from a seed. Called by every room;
//! names none of them.

pub mod clock;
pub mod files;
pub mod place;
pub mod post;
pub mod process;
pub mod random;
pub mod sim;

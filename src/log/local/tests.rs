//! The local log on simulated and real disks.

//! What the system says of this process: time on processors, memory, files; and of a disk.
//!
//! Out: numbers, zero where the system does not tell. Called by whoever shows figures, now and then:
//! it reads a few small files of the system.

use std::path::Path;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Time on processors in its own code, microseconds.
    pub user_us: u64,
    /// Time on processors in the system for it, microseconds.
    pub system_us: u64,
    /// Memory that is resident, bytes.
    pub rss_bytes: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Files that are open, connections among them.
    pub open_files: u64,
    /// Files that may be open.
    pub open_files_max: u64,
}

/// The system counts processor time in these, microseconds; Linux has no other.
const TICK_US: u64 = 10_000;
const PAGE_BYTES: u64 = 4096;

/// What this process has used so far.
#[must_use]
pub fn usage() -> Usage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Usage {
        open_files: open_files as u64,
        open_files_max: limit_of_files(&read("/proc/self/limits")),
        ..parse(&read("/proc/self/stat"), &read("/proc/self/statm"))
    }
}

/// Bytes that are free for this process on the disk of a folder, where the system tells.
#[must_use]
pub fn disk_free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn limit_of_files(limits: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// The machine's name; empty where the system does not tell.
#[must_use]
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn parse(stat: &str, statm: &str) -> Usage {
    // The name in brackets may have spaces; behind it the fields are counted from the third on.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let number = |text: &str, at: usize| -> u64 {
        text.split_whitespace().nth(at).and_then(|it| it.parse().ok()).unwrap_or(0)
    };
    Usage {
        user_us: number(fields, 11) * TICK_US,
        system_us: number(fields, 12) * TICK_US,
        rss_bytes: number(statm, 1) * PAGE_BYTES,
        virtual_bytes: number(statm, 0) * PAGE_BYTES,
        threads: number(fields, 17),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 30 0 0 20 0 12 0";
        let usage = parse(stat, "1000 250 10");
        assert_eq!((usage.user_us, usage.system_us, usage.threads), (2_500_000, 300_000, 12));
        assert_eq!((usage.rss_bytes, usage.virtual_bytes), (1_024_000, 4_096_000));
        assert_eq!(parse("", ""), Usage::default());
    }

    #[test]
    fn what_the_system_tells_of_this_process_is_there() {
        let usage = usage();
        assert!(usage.threads > 0 && usage.open_files > 2, "{usage:?}");
        assert!(usage.open_files_max >= usage.open_files, "{usage:?}");
        assert!(disk_free(Path::new(".")).is_some_and(|free| free > 0));
        assert_eq!(limit_of_files("Max open files            1024   524288   files"), 1024);
        assert_eq!(limit_of_files("Max open files            unlimited unlimited files"), 0);
    }
}

//! Handshake: which version two peers speak.
//!
//! In: the range that a client offers in its hello. Out: the highest version that both know, or
//! a [`VersionError`] that names both ranges. Called by the server for the first frame of a
//! connection.

/// The version that this crate writes, and the highest that it reads.
pub const PROTOCOL_VERSION: u16 = 1;

/// The lowest version that this crate reads.
pub const PROTOCOL_VERSION_MIN: u16 = 1;

const _: () = assert!(PROTOCOL_VERSION_MIN <= PROTOCOL_VERSION);

/// The highest version in both ranges.
///
/// # Errors
/// [`VersionError`] when the ranges do not meet, or the peer's range ends before it begins.
pub fn negotiate(peer_min: u16, peer_max: u16) -> Result<u16, VersionError> {
    let highest = peer_max.min(PROTOCOL_VERSION);
    if peer_min > peer_max || highest < peer_min.max(PROTOCOL_VERSION_MIN) {
        return Err(VersionError { peer_min, peer_max });
    }
    Ok(highest)
}

/// No version that both peers speak. The connection is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionError {
    /// Lowest version that the peer offered.
    pub peer_min: u16,
    /// Highest version that the peer offered.
    pub peer_max: u16,
}

impl std::fmt::Display for VersionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the peer speaks versions {} to {}; we speak {PROTOCOL_VERSION_MIN} to \
             {PROTOCOL_VERSION}",
            self.peer_min, self.peer_max
        )
    }
}

impl std::error::Error for VersionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_taken() {
        assert_eq!(negotiate(1, 1), Ok(1));
        assert_eq!(negotiate(0, 1), Ok(1));
        assert_eq!(negotiate(1, u16::MAX), Ok(1));
        assert_eq!(negotiate(0, u16::MAX), Ok(1));
    }

    #[test]
    fn ranges_that_do_not_meet_or_are_none_are_refused_with_both_named() {
        for (min, max) in [(0, 0), (2, 2), (2, u16::MAX), (1, 0)] {
            let refused = negotiate(min, max).unwrap_err();
            assert_eq!(refused, VersionError { peer_min: min, peer_max: max });
        }
        let text = negotiate(3, 4).unwrap_err().to_string();
        assert_eq!(text, "the peer speaks versions 3 to 4; we speak 1 to 1");
    }
}

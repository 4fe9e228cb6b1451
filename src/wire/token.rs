//! Who may enter: compares a presented token with the configured one.

/// Whether a client may enter. The time it takes tells nothing about where two tokens differ.
#[must_use]
pub fn matches(expected: Option<&str>, presented: Option<&[u8]>) -> bool {
    let Some(expected) = expected else { return true };
    let presented = presented.unwrap_or_default();
    let expected = expected.as_bytes();
    let mut difference = expected.len() ^ presented.len();
    for (at, byte) in presented.iter().enumerate() {
        // Wraps over the expected token, so that its length shows only in the final comparison.
        let other = expected.get(at % expected.len().max(1)).copied().unwrap_or(0);
        difference |= usize::from(byte ^ other);
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_configured_token_everybody_enters() {
        assert!(matches(None, None));
        assert!(matches(None, Some(b"anything")));
    }

    #[test]
    fn only_the_configured_token_enters() {
        assert!(matches(Some("secret"), Some(b"secret")));
        for wrong in [None, Some(&b""[..]), Some(b"secre"), Some(b"secretsecret"), Some(b"Secret")]
        {
            assert!(!matches(Some("secret"), wrong), "{wrong:?}");
        }
    }
}

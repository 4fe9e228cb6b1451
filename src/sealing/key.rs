//! One key of the ring, and the keys that are derived from it.
//!
//! In: 64 hexadecimal digits; a salt. Out: a key that seals or opens. The secret is never shown and is
//! wiped when it goes. Called by the rest of `sealing`.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt as HkdfSalt};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a salt: random ones meet again after 2^64 of them.
pub(super) const SALT_BYTES: usize = 16;
/// Keeps keys that are derived for this from keys that are ever derived for something else.
const PURPOSE: &[u8] = b"onrush payload 1";

/// What a derived key was derived with.
pub(super) type Salt = [u8; SALT_BYTES];

/// A key's number in its ring. It stands in clear beside what the key sealed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A secret of 256 bits. It seals nothing itself: that do keys derived from it.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    /// Reads 64 hexadecimal digits in upper or lower case; `None` where it is anything else.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        if text.len() != 2 * KEY_BYTES {
            return None;
        }
        let mut digits = text.chars().map(|digit| digit.to_digit(16));
        for byte in secret.iter_mut() {
            let (high, low) = (digits.next()??, digits.next()??);
            // Two digits are below 256.
            *byte = (high << 4 | low) as u8;
        }
        Some(Self(secret))
    }

    /// The key for what is sealed under `salt`. `None` where the library fails, which it does not do.
    pub(super) fn derive(&self, salt: &Salt) -> Option<LessSafeKey> {
        let extracted = HkdfSalt::new(HKDF_SHA256, salt).extract(&*self.0);
        let derived: Result<UnboundKey, Unspecified> =
            extracted.expand(&[PURPOSE], &AES_256_GCM).map(UnboundKey::from);
        derived.ok().map(LessSafeKey::new)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(<redacted>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_hexadecimal_digits_are_a_key() {
        let good = "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";
        assert!(Key::from_hex(good).is_some());
        assert_eq!(Key::from_hex(good), Key::from_hex(&good.to_lowercase()));
        for bad in ["", &good[1..], &format!("{good}0"), &good.replace('3', "g")] {
            assert!(Key::from_hex(bad).is_none(), "{bad}");
        }
        // As many bytes, fewer characters.
        assert!(Key::from_hex(&"\u{e9}".repeat(32)).is_none());
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = Key::from_hex(&"ab".repeat(32)).unwrap();
        let shown = format!("{key:?} {key:#?}");
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }
}

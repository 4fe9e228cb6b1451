//! What stands in a message, so that its way through the server can be checked.
//!
//! In: who sent it, its number, when. Out: the first 24 bytes of a payload; and back, with proof
//! that not a bit of the payload changed. The rest of a payload is filling that differs from
//! message to message of a batch, so that two that were swapped are noticed.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `seq`: counts this producer's messages in this partition, from 0 |
//! | 4 | `producer`: the run's mark in the upper half, the connection in the lower |
//! | 4 | `check`: CRC-32 of the filling, mixed with the other fields |
//! | 8 | `sent_ns`: when it was meant to be sent, on the run's clock |

/// Bytes of the stamp; no checked payload can be smaller.
pub(crate) const STAMP_BYTES: usize = 24;

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer: u32,
    pub(crate) seq: u64,
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// Writes the stamp in front of a filling whose CRC-32 is `filling_crc`.
    pub(crate) fn write(&self, filling_crc: u32, place: &mut [u8; STAMP_BYTES]) {
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.seq.to_le_bytes();
        let [p0, p1, p2, p3] = self.producer.to_le_bytes();
        let [c0, c1, c2, c3] = (filling_crc ^ self.mix()).to_le_bytes();
        let [t0, t1, t2, t3, t4, t5, t6, t7] = self.sent_ns.to_le_bytes();
        *place = [
            s0, s1, s2, s3, s4, s5, s6, s7, p0, p1, p2, p3, c0, c1, c2, c3, t0, t1, t2, t3, t4, t5,
            t6, t7,
        ];
    }

    /// Reads a payload; `None` when it is not one of ours, or not any more.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (stamp, filling) = payload.split_first_chunk::<STAMP_BYTES>()?;
        let (seq, rest) = stamp.split_first_chunk::<8>()?;
        let (producer, rest) = rest.split_first_chunk::<4>()?;
        let (check, rest) = rest.split_first_chunk::<4>()?;
        let sent_ns = rest.first_chunk::<8>()?;
        let found = Self {
            producer: u32::from_le_bytes(*producer),
            seq: u64::from_le_bytes(*seq),
            sent_ns: u64::from_le_bytes(*sent_ns),
        };
        let expected = crc32fast::hash(filling) ^ found.mix();
        (expected == u32::from_le_bytes(*check)).then_some(found)
    }

    /// A word in which every bit of the stamp shows. Cheaper than a CRC over it, and as good
    /// against damage that is not aimed.
    fn mix(&self) -> u32 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let first = (self.seq ^ ODD).wrapping_mul(ODD);
        let second = (first ^ (first >> 29) ^ self.sent_ns).wrapping_mul(ODD | 0xff);
        let third = (second ^ (second >> 32) ^ u64::from(self.producer)).wrapping_mul(ODD);
        (third >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(stamp: Stamp, filling: &[u8]) -> Vec<u8> {
        let mut place = [0; STAMP_BYTES];
        stamp.write(crc32fast::hash(filling), &mut place);
        [&place[..], filling].concat()
    }

    #[test]
    fn a_stamp_comes_back_as_it_was_written() {
        let stamp = Stamp { producer: 0xabcd_0007, seq: 1 << 40, sent_ns: 123_456_789 };
        assert_eq!(Stamp::read(&stamped(stamp, b"filling")), Some(stamp));
        assert_eq!(Stamp::read(&stamped(stamp, b"")), Some(stamp));
    }

    #[test]
    fn every_single_flipped_bit_is_noticed() {
        let stamp = Stamp { producer: 3, seq: 77, sent_ns: 999 };
        let payload = stamped(stamp, b"some filling");
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::read(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_payload_shorter_than_a_stamp_is_none_of_ours() {
        assert_eq!(Stamp::read(&[0; STAMP_BYTES - 1]), None);
    }
}

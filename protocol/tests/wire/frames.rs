//! Frames: the first four bytes decide whether the rest may come.

use bytes::{BufMut, Bytes, BytesMut};
use onrush_protocol::limits::FRAME_BYTES_MAX;
use onrush_protocol::{Code, FrameError, frame};

fn frame_of(opcode: u8, request_id: u64, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    frame::encode(opcode, request_id, &mut out, |out| out.put_slice(body));
    out
}

#[test]
fn a_frame_comes_out_as_it_went_in_and_leaves_the_next_in_the_buffer() {
    let mut buffer = frame_of(3, 99, b"body");
    buffer.extend_from_slice(&frame_of(200, u64::MAX, b""));
    buffer.put_u8(1);
    let first = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!((first.opcode, first.flags, first.request_id), (3, 0, 99));
    assert_eq!(first.body.as_ref(), b"body");
    // 200 is no opcode, and that is not the frame's business.
    let second = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!((second.opcode, second.request_id, second.body), (200, u64::MAX, Bytes::new()));
    assert_eq!(frame::decode(&mut buffer, FRAME_BYTES_MAX), Ok(None));
    assert_eq!(buffer.as_ref(), &[1]);
}

#[test]
fn a_body_shares_the_memory_of_the_buffer_it_came_in() {
    let mut buffer = frame_of(3, 1, b"body");
    let place = buffer[16..].as_ptr();
    let frame = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!(frame.body.as_ptr(), place);
}

#[test]
fn every_proper_prefix_of_a_frame_is_not_yet_one_and_stays_untouched() {
    let whole = frame_of(3, 7, b"some body");
    for cut in 0..whole.len() {
        let mut buffer = BytesMut::from(&whole[..cut]);
        assert_eq!(frame::decode(&mut buffer, FRAME_BYTES_MAX), Ok(None), "{cut}");
        assert_eq!(buffer, whole[..cut]);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_at_its_fourth_byte_without_growing_the_buffer() {
    let mut buffer = BytesMut::with_capacity(4);
    buffer.put_u32_le(101);
    let capacity = buffer.capacity();
    let refused = frame::decode(&mut buffer, 100).unwrap_err();
    assert_eq!(refused, FrameError::TooLarge { bytes: 101, max: 100 });
    assert_eq!((refused.code(), refused.limit()), (Code::FrameTooLarge, 100));
    assert_eq!((buffer.len(), buffer.capacity()), (4, capacity));
    let mut fits = BytesMut::new();
    fits.put_u32_le(100);
    assert_eq!(frame::decode(&mut fits, 100), Ok(None));
}

#[test]
fn waiting_for_a_large_body_reserves_nothing() {
    let mut buffer = BytesMut::with_capacity(16);
    buffer.put_slice(&frame::header(3, 1, FRAME_BYTES_MAX - 12));
    let capacity = buffer.capacity();
    assert_eq!(frame::decode(&mut buffer, FRAME_BYTES_MAX), Ok(None));
    assert_eq!(buffer.capacity(), capacity);
    assert_eq!(frame::frame_bytes(&buffer), Some(FRAME_BYTES_MAX + 4));
    assert_eq!(frame::frame_bytes(&buffer[..3]), None);
}

#[test]
fn a_length_below_the_header_is_refused() {
    for bytes in 0..12 {
        let mut buffer = BytesMut::new();
        buffer.put_u32_le(bytes);
        let refused = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap_err();
        assert_eq!(refused, FrameError::TooSmall { bytes: bytes as usize });
        assert_eq!((refused.code(), refused.limit()), (Code::BadFrame, 12));
    }
}

#[test]
fn unknown_flags_and_reserved_bits_are_refused_before_the_body_comes() {
    for at in [5, 6, 7] {
        for bit in 0..8 {
            let mut buffer = BytesMut::from(&frame::header(3, 1, 1000)[..]);
            buffer[at] = 1 << bit;
            let refused = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap_err();
            let wanted = match at {
                5 => FrameError::Flags(1 << bit),
                6 => FrameError::Reserved(1 << bit),
                _ => FrameError::Reserved(1 << (bit + 8)),
            };
            assert_eq!(refused, wanted);
            assert_eq!(refused.code(), Code::BadFrame);
        }
    }
}

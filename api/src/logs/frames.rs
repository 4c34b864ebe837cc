//! Splits a stream of stored bytes at the ends of frames.

use bus::output::frame::HEADER_LEN;
use bytes::{Bytes, BytesMut};

/// The length of the complete frames at the beginning of these bytes.
pub(super) fn whole(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(&[a, b, c, d]) = bytes.get(end + HEADER_LEN - 4..end + HEADER_LEN) {
        let next = end + HEADER_LEN + u32::from_be_bytes([a, b, c, d]) as usize;
        if next > bytes.len() {
            break;
        }
        end = next;
    }
    end
}

/// Joins frames that are split over several chunks.
#[derive(Debug, Default)]
pub(super) struct Joiner(BytesMut);

impl Joiner {
    /// Adds bytes, and returns the frames that are complete now.
    pub(super) fn push(&mut self, bytes: &Bytes) -> Bytes {
        if self.0.is_empty() {
            let end = whole(bytes);
            self.0.extend_from_slice(&bytes[end..]);
            return bytes.slice(..end);
        }
        self.0.extend_from_slice(bytes);
        let end = whole(&self.0);
        self.0.split_to(end).freeze()
    }

    /// Whether no incomplete frame is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bus::output::frame::{Frame, Stream};

    use super::*;

    #[test]
    fn frames_come_whole_wherever_they_were_cut() {
        let mut buffer = BytesMut::new();
        for length in [0, 1, 100, 7] {
            let frame = Frame {
                stream: Stream::Stdout,
                time_us: 1,
                bytes: Bytes::from(vec![7; length]),
            };
            frame.write(&mut buffer);
        }
        let log = buffer.freeze();
        for step in 1..log.len() {
            let (mut joiner, mut frames, mut bytes) = (Joiner::default(), 0, 0);
            for start in (0..log.len()).step_by(step) {
                let whole = joiner.push(&log.slice(start..log.len().min(start + step)));
                bytes += whole.len();
                frames += Frame::read_all(whole).expect("whole frames").len();
            }
            assert_eq!((frames, bytes, joiner.is_empty()), (4, log.len(), true), "cut every {step} bytes");
        }
    }
}

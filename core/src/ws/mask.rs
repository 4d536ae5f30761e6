//! Masking (RFC 6455 §5.3).

/// Unmasks `bytes` in place and returns the key, turned to where the next bytes of the same frame go on.
///
/// The key is little-endian: its low byte is the first. Eight bytes at a time in safe Rust is as fast as the crates that
/// cast to wider integers, and faster below 128 bytes.
#[inline]
pub(super) fn unmask(bytes: &mut [u8], key: u32) -> u32 {
    let wide = u64::from(key) << 32 | u64::from(key);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ wide).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide.to_le_bytes()) {
        *byte ^= key;
    }
    // Whole words leave the key where it was, and so does a turn by all of its 32 bits.
    key.rotate_right(rest.len() as u32 * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    fn by_the_rfc(bytes: &[u8]) -> Vec<u8> {
        bytes.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]).collect()
    }

    #[test]
    fn every_alignment_and_length_is_unmasked_as_the_rfc_says() {
        let bytes: Vec<u8> = (0..320).map(|i| (i * 7) as u8).collect();
        for start in 0..16 {
            for len in 0..=300 {
                let mut unmasked = bytes.clone();
                unmask(&mut unmasked[start..start + len], u32::from_le_bytes(KEY));
                assert_eq!(unmasked[start..start + len], by_the_rfc(&bytes[start..start + len]));
                assert_eq!(unmasked[..start], bytes[..start]);
                assert_eq!(unmasked[start + len..], bytes[start + len..]);
            }
        }
    }

    #[test]
    fn pieces_are_unmasked_as_the_whole() {
        let bytes: Vec<u8> = (0..60).collect();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut pieces = bytes.clone();
                let key = unmask(&mut pieces[..first], u32::from_le_bytes(KEY));
                let key = unmask(&mut pieces[first..second], key);
                unmask(&mut pieces[second..], key);
                assert_eq!(pieces, by_the_rfc(&bytes));
            }
        }
    }
}

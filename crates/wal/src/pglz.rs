//! PostgreSQL's own compression (`pglz_decompress`, common/pg_lzcompress.c, 15.18), in one direction.
//!
//! ```text
//! control byte, then for each of its bits, lowest first:
//!   0: one literal byte
//!   1: oooo llll | oooooooo [| extra]   copy llll + 3 bytes (18: + extra) from `o` bytes back
//! ```

/// The input is not what `pglz_compress` makes of as many bytes as were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DamagedInput;

/// Fills all of `output` from all of `input`.
///
/// As in PostgreSQL, a last match may be longer than what is left of `output`.
pub(crate) fn decompress(input: &[u8], output: &mut [u8]) -> Result<(), DamagedInput> {
    let mut rest = input.iter().copied();
    let mut filled = 0;
    while rest.len() > 0 && filled < output.len() {
        let mut control = rest.next().ok_or(DamagedInput)?;
        for _ in 0..8 {
            if rest.len() == 0 || filled == output.len() {
                break;
            }
            let first = rest.next().ok_or(DamagedInput)?;
            if control & 1 == 0 {
                output[filled] = first;
                filled += 1;
            } else {
                let second = rest.next().ok_or(DamagedInput)?;
                let mut len = usize::from(first & 0x0F) + 3;
                if len == 18 {
                    len += usize::from(rest.next().ok_or(DamagedInput)?);
                }
                let distance = usize::from(first & 0xF0) << 4 | usize::from(second);
                filled = copy_match(output, filled, distance, len)?;
            }
            control >>= 1;
        }
    }
    if filled == output.len() && rest.len() == 0 {
        Ok(())
    } else {
        Err(DamagedInput)
    }
}

/// Repeats `len` bytes from `distance` back, which may overlap what is being written. Returns the new
/// fill level.
fn copy_match(output: &mut [u8], filled: usize, distance: usize, len: usize) -> Result<usize, DamagedInput> {
    if distance == 0 || distance > filled {
        return Err(DamagedInput);
    }
    let end = (filled + len).min(output.len());
    let mut at = filled;
    let from = filled - distance;
    while at < end {
        // Everything from `from` to `at` is a whole number of repetitions: the step doubles.
        let step = (at - from).min(end - at);
        output.copy_within(from..from + step, at);
        at += step;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompressed(input: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut output = vec![0; len];
        decompress(input, &mut output).ok().map(|()| output)
    }

    #[test]
    fn literals_and_overlapping_matches() {
        assert_eq!(decompressed(&[0, b'a', b'b'], 2).unwrap(), b"ab");
        // The example of pg_lzcompress.c: five literals, a match of length 16 at distance 4.
        let input = [0b0010_0000, b'1', b'1', b'2', b'3', b'4', 0x0D, 4];
        assert_eq!(decompressed(&input, 21).unwrap(), b"112341234123412341234");
        // Length 18 has an extra byte.
        let input = [0b10, b'x', 0x0F, 1, 200];
        assert_eq!(decompressed(&input, 219).unwrap(), vec![b'x'; 219]);
    }

    #[test]
    fn damaged_input_is_refused() {
        assert_eq!(decompressed(&[0b10, b'x', 0x00, 2], 4), None); // before the beginning
        assert_eq!(decompressed(&[0b10, b'x', 0x00, 0], 4), None); // distance 0
        assert_eq!(decompressed(&[0b10, b'x', 0x00], 4), None); // half a match
        assert_eq!(decompressed(&[0b10, b'x', 0x0F, 1], 19), None); // the extra byte is missing
        assert_eq!(decompressed(&[0, b'x'], 2), None); // too little
        assert_eq!(decompressed(&[0, b'x', b'y'], 1), None); // too much
    }
}

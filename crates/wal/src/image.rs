//! Full-page images in records (`RestoreBlockImage`, xlogreader.c, 15.18).

use std::io::Read;

use pg_quorum_types::BLOCK_SIZE;
use ruzstd::decoding::StreamingDecoder;

use crate::redo::RedoFault;
use crate::{BlockImage, Compression, Page, pglz};

/// Writes the image's page over `page`: decompressed, its hole filled with zeros.
///
/// The page's LSN is the one that the image was taken with; redo sets its own.
///
/// # Errors
/// Bytes that do not decompress to exactly a page without its hole.
pub fn restore_image(image: &BlockImage<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let hole = usize::from(image.hole_offset);
    let hole_end = hole + usize::from(image.hole_length);
    if hole_end > BLOCK_SIZE {
        return Err(RedoFault::Image("its hole reaches behind the page"));
    }
    let len = BLOCK_SIZE - usize::from(image.hole_length);
    // Everything is put at the front first; then the part behind the hole moves to its place.
    let front = &mut page[..len];
    match image.compression {
        None if image.bytes.len() == len => front.copy_from_slice(image.bytes),
        None => {
            return Err(RedoFault::Image(
                "its length is not that of a page without its hole",
            ));
        }
        Some(Compression::Pglz) => {
            pglz::decompress(image.bytes, front).map_err(|_| RedoFault::Image("its pglz data is damaged"))?;
        }
        Some(Compression::Lz4) => match lz4_flex::block::decompress_into(image.bytes, front) {
            Ok(filled) if filled == len => {}
            _ => return Err(RedoFault::Image("its lz4 data is damaged")),
        },
        Some(Compression::Zstd) => decompress_zstd(image.bytes, front)?,
    }
    if image.hole_length != 0 {
        page.copy_within(hole..len, hole_end);
        page[hole..hole_end].fill(0);
    }
    Ok(())
}

/// Window of a zstd frame, which the decoder keeps in memory. PostgreSQL compresses a page in one call, so that its
/// frames need no more than a page; the decoder itself would take 128 MB.
const MAX_ZSTD_WINDOW_BYTES: u64 = 4 * BLOCK_SIZE as u64;

/// Reads just one page: a frame that could need more memory than that is refused before memory is set aside for it.
fn decompress_zstd(input: &[u8], output: &mut [u8]) -> Result<(), RedoFault> {
    let damaged = || RedoFault::Image("its zstd data is damaged");
    let mut decoder =
        StreamingDecoder::new_with_max_window_size(input, MAX_ZSTD_WINDOW_BYTES).map_err(|_| damaged())?;
    decoder.read_exact(output).map_err(|_| damaged())?;
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(()),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn restored(frame: &[u8]) -> Result<Page, RedoFault> {
        let image = BlockImage {
            bytes: frame,
            hole_offset: 0,
            hole_length: 0,
            compression: Some(Compression::Zstd),
            apply: true,
        };
        let mut page = [0; BLOCK_SIZE];
        restore_image(&image, &mut page).map(|()| page)
    }

    /// Magic number, header without content size, window descriptor, then blocks of one repeated byte.
    fn frame(window_log: u8, blocks: &[usize]) -> Vec<u8> {
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0, (window_log - 10) << 3];
        for (number, length) in (1..).zip(blocks) {
            let is_last = u32::from(number == blocks.len());
            let header = is_last | 1 << 1 | (*length as u32) << 3;
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            frame.push(7);
        }
        frame
    }

    #[test]
    fn a_zstd_image_of_a_page_is_restored() {
        assert_eq!(restored(&frame(13, &[BLOCK_SIZE])), Ok([7; BLOCK_SIZE]));
        assert_eq!(
            restored(&frame(13, &[5000, BLOCK_SIZE - 5000])),
            Ok([7; BLOCK_SIZE])
        );
        assert!(restored(&frame(13, &[5000])).is_err());
        assert!(restored(&frame(13, &[BLOCK_SIZE, 1])).is_err());
    }

    /// Each of these blocks of four bytes stands for 128 kB, all of which a decoder with a large window keeps.
    #[test]
    fn a_zstd_image_that_would_need_much_memory_is_refused() {
        assert!(restored(&frame(27, &[128 << 10; 1000])).is_err());
        assert!(restored(&frame(27, &[BLOCK_SIZE])).is_err());
    }
}

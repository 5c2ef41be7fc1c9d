//! Full-page images in records (`RestoreBlockImage`, xlogreader.c, 15.18).

use std::io::Read;

use pg_quorum_types::BLOCK_SIZE;

use crate::redo::RedoFault;
use crate::{BlockImage, Compression, Page, pglz};

/// Writes the image's page over `page`: decompressed, its hole filled with zeros.
///
/// The page's LSN is the one that the image was taken with; redo sets its own.
///
/// # Errors
/// Bytes that do not decompress to exactly a page without its hole.
pub fn restore_image(image: &BlockImage, page: &mut Page) -> Result<(), RedoFault> {
    let hole = usize::from(image.hole_offset);
    let hole_end = hole + usize::from(image.hole_length);
    if hole_end > BLOCK_SIZE {
        return Err(RedoFault::Image("its hole reaches behind the page"));
    }
    let len = BLOCK_SIZE - usize::from(image.hole_length);
    // Everything is put at the front first; then the part behind the hole moves to its place.
    let front = &mut page[..len];
    match image.compression {
        None if image.bytes.len() == len => front.copy_from_slice(&image.bytes),
        None => {
            return Err(RedoFault::Image(
                "its length is not that of a page without its hole",
            ));
        }
        Some(Compression::Pglz) => {
            pglz::decompress(&image.bytes, front)
                .map_err(|_| RedoFault::Image("its pglz data is damaged"))?;
        }
        Some(Compression::Lz4) => match lz4_flex::block::decompress_into(&image.bytes, front) {
            Ok(filled) if filled == len => {}
            _ => return Err(RedoFault::Image("its lz4 data is damaged")),
        },
        Some(Compression::Zstd) => decompress_zstd(&image.bytes, front)?,
    }
    if image.hole_length != 0 {
        page.copy_within(hole..len, hole_end);
        page[hole..hole_end].fill(0);
    }
    Ok(())
}

/// Reads just one page: a frame that announces more is refused before memory is set aside for it.
fn decompress_zstd(input: &[u8], output: &mut [u8]) -> Result<(), RedoFault> {
    let damaged = || RedoFault::Image("its zstd data is damaged");
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(input).map_err(|_| damaged())?;
    decoder.read_exact(output).map_err(|_| damaged())?;
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(()),
        _ => Err(damaged()),
    }
}

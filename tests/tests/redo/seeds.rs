//! Examples for the fuzzers, out of a real log: small records of every kind, each with a page from before it.
//!
//! Nothing of the machine gets into them: positions, identifiers and secrets are left out or made equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pg_quorum_hostile::{CaseImage, FACTS, RecordCase, as_wal, check_case};
use pg_quorum_quorum::segment::{SegmentMeta, encode_meta};
use pg_quorum_tests::volume::Volume;
use pg_quorum_types::{BLOCK_SIZE, NodeName, PageKey, SegmentId};
use pg_quorum_wal::{BlockImage, Compression, Page, Record, RedoContext, apply, effects};

use crate::replay::{Log, without_check_images};

/// Examples of one kind of record and one of its pages, at most.
const SEEDS_OF_PAGE: usize = 20;
/// The second one and those behind it are for the repository's sake not larger.
const MAX_FURTHER_SEED_BYTES: usize = 1200;
/// Larger examples teach a fuzzer nothing new.
const MAX_RECORD_BYTES: usize = 12_000;
/// Records of a stream of WAL.
const STREAM_RECORDS: usize = 24;
const MAX_STREAM_BYTES: usize = 16 << 10;
/// Streams, each of other records.
const STREAMS: usize = 6;

/// What tells examples of one kind apart: how many blocks there are, flags and the like.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Variant {
    blocks: usize,
    flags: Vec<u8>,
}

/// Which bytes of the main data are flags, found by what stands in them: a byte that has one of a few values in all
/// records of the kind.
#[derive(Default)]
struct FlagBytes(BTreeMap<String, [BTreeSet<u8>; FlagBytes::REACH]>);

impl FlagBytes {
    const REACH: usize = 40;
    const MAX_VALUES: usize = 12;

    fn learn(&mut self, log: &Log) {
        for raw in log.files.records() {
            let raw = raw.expect("a record");
            let record = Record::decode(&raw).expect("a record");
            let values = self
                .0
                .entry(kind(&record))
                .or_insert_with(|| std::array::from_fn(|_| BTreeSet::new()));
            for (values, byte) in values.iter_mut().zip(record.main) {
                if values.len() <= FlagBytes::MAX_VALUES {
                    values.insert(*byte);
                }
            }
        }
    }

    fn variant(&self, record: &Record<'_>) -> Variant {
        let values = self.0.get(&kind(record)).into_iter().flatten();
        let flags = values
            .zip(record.main)
            .filter(|(values, _)| values.len() <= FlagBytes::MAX_VALUES);
        Variant {
            blocks: record.blocks.len(),
            flags: flags.map(|(_, byte)| *byte).collect(),
        }
    }
}

/// The smallest example of each variant.
#[derive(Default)]
struct Smallest(BTreeMap<(String, Variant), Vec<u8>>);

impl Smallest {
    /// `make` is asked only for an example of `bytes` that is the smallest so far.
    fn offer(
        &mut self,
        name: String,
        variant: Variant,
        bytes: usize,
        make: impl FnOnce() -> Option<Vec<u8>>,
    ) {
        let key = (name, variant);
        let known = self.0.get(&key).map(Vec::len);
        if known.is_none_or(|known| bytes < known)
            && let Some(example) = make()
        {
            self.0.insert(key, example);
        }
    }

    /// File names and contents: of each name the smallest examples in which every flag has each of its values.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut examples: Vec<_> = self.0.iter().collect();
        examples.sort_by_key(|((name, _), example)| (name, example.len()));
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut count_of = BTreeMap::new();
        for ((name, variant), example) in examples {
            let count: &mut usize = count_of.entry(name).or_default();
            let is_small = *count == 0 || *count < SEEDS_OF_PAGE && example.len() <= MAX_FURTHER_SEED_BYTES;
            let values = variant.flags.iter().enumerate();
            let mut is_new = seen.insert((name, usize::MAX, variant.blocks as u8));
            if is_small {
                for (place, value) in values {
                    is_new |= seen.insert((name, place, *value));
                }
                if is_new || *count == 0 {
                    *count += 1;
                    files.push((format!("{name}-{count}"), example.clone()));
                }
            }
        }
        files
    }
}

/// Seeds for all fuzzers.
#[derive(Default)]
pub struct Seeds {
    flag_bytes: FlagBytes,
    apply: Smallest,
    decode: Smallest,
    image: Smallest,
    /// Records for streams, by kind.
    stream: BTreeMap<String, Vec<u8>>,
}

impl Seeds {
    /// Those of whole logs, each with the data directory from before it.
    pub fn collect(logs: &[(PathBuf, Log)]) -> Seeds {
        let mut seeds = Seeds::default();
        for (_, log) in logs {
            seeds.flag_bytes.learn(log);
        }
        for (base, log) in logs {
            seeds.replay(Volume::load(base), log);
        }
        seeds
    }

    fn replay(&mut self, mut volume: Volume, log: &Log) {
        for raw in log.files.records() {
            let raw = raw.expect("a record");
            let record = Record::decode(&raw).expect("a record");
            let effects = effects(&record, &log.ctx).expect("a record's effects");
            effects.meta.iter().for_each(|change| volume.change(change));
            let (record, images) = without_check_images(&record);
            self.take_record(&record, &log.ctx, &images);
            for effect in &effects.pages {
                if effect.extends || volume.existing(effect.key).is_some() {
                    let page = volume.page_mut(effect.key);
                    self.take_page(&record, &log.ctx, effect.key, page);
                    apply(&record, &effect.key, page, &log.ctx).expect("a record fits its page");
                }
            }
        }
    }

    /// A record, and the images that served as checks only.
    fn take_record(
        &mut self,
        record: &Record<'_>,
        ctx: &RedoContext,
        images: &[(PageKey, u32, BlockImage<'_>)],
    ) {
        let bytes = record_bytes(record);
        let applied = record.blocks.iter().filter_map(|block| block.applied_image());
        for image in applied.chain(images.iter().map(|(_, _, image)| image)) {
            self.take_image(image);
        }
        if bytes > MAX_RECORD_BYTES {
            return;
        }
        let make = || {
            Some(
                [
                    &[settings(ctx)],
                    &RecordCase::of_record(record, ctx, None)?.raw().bytes[..],
                ]
                .concat(),
            )
        };
        let variant = self.flag_bytes.variant(record);
        self.decode.offer(kind(record), variant, bytes, make);
        let in_stream = self.stream.get(&kind(record)).map(Vec::len);
        if in_stream.is_none_or(|known| bytes < known)
            && let Some(case) = RecordCase::of_record(record, ctx, None)
        {
            let raw = case.raw().bytes;
            let mut entry = (raw.len() as u16 - 24).to_le_bytes().to_vec();
            entry.extend_from_slice(&[raw[16], raw[17]]);
            entry.extend_from_slice(&raw[24..]);
            self.stream.insert(kind(record), entry);
        }
    }

    /// A record and a page from before it.
    fn take_page(&mut self, record: &Record<'_>, ctx: &RedoContext, key: PageKey, page: &Page) {
        let block = match key {
            PageKey::Slru { kind, .. } => kind.directory().replace(['/', '_'], "-"),
            PageKey::Relation { rel, block } => match record.block_of(rel, block) {
                Some(reference) => format!("block-{}", reference.id),
                None => "map".to_owned(),
            },
        };
        let bytes = record_bytes(record) + used_bytes(page);
        if record_bytes(record) > MAX_RECORD_BYTES {
            return;
        }
        let make = || {
            let case = RecordCase::of_record(record, ctx, Some(page))?;
            (check_case(&case) > 0).then(|| case.to_bytes())
        };
        let name = format!("{}-{block}", kind(record));
        self.apply
            .offer(name, self.flag_bytes.variant(record), bytes, make);
    }

    fn take_image(&mut self, image: &BlockImage<'_>) {
        let (name, number) = match image.compression {
            None => ("none", 0),
            Some(Compression::Pglz) => ("pglz", 1),
            Some(Compression::Lz4) => ("lz4", 2),
            Some(Compression::Zstd) => ("zstd", 3),
        };
        let image = CaseImage {
            applied: image.apply,
            compression: image.compression,
            hole_offset: image.hole_offset,
            hole_length: image.hole_length,
            bytes: image.bytes.to_vec(),
        };
        let variant = Variant {
            blocks: usize::from(image.hole_length != 0),
            flags: vec![image.bytes.len().ilog2() as u8],
        };
        self.image
            .offer(name.to_owned(), variant, image.bytes.len() + 5, || {
                let mut seed = vec![number];
                seed.extend_from_slice(&image.hole_offset.to_le_bytes());
                seed.extend_from_slice(&image.hole_length.to_le_bytes());
                seed.extend_from_slice(&image.bytes);
                Some(seed)
            });
    }

    /// Replaces the seeds in `directory`. One seed is a control file.
    pub fn write(&self, directory: &Path, control_file: &Path) {
        let replace = |target, seeds| replace(&directory.join(target), seeds);
        for (target, examples) in [
            ("apply", &self.apply),
            ("decode", &self.decode),
            ("image", &self.image),
        ] {
            replace(target, examples.files());
        }
        let mut streams: Vec<_> = self.streams().collect();
        for at in 0..streams.len() {
            let mut wal = as_wal(&streams[at].1);
            wal.truncate(MAX_STREAM_BYTES); // of a segment switch, not all zeros
            streams.push((format!("{}-wal", streams[at].0), wal));
        }
        replace("split", streams);
        replace(
            "control",
            vec![("shut-down".to_owned(), control_seed(control_file))],
        );
        let meta = SegmentMeta::formatted(NodeName("az1-1".to_owned()), SegmentId(uuid::Uuid::from_u128(7)));
        replace(
            "segment_meta",
            vec![("formatted".to_owned(), encode_meta(&meta)[20..].to_vec())],
        );
    }

    /// Some kinds of records each, at other places of their first page.
    fn streams(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let entries: Vec<&Vec<u8>> = self.stream.values().collect();
        (0..STREAMS).map(move |number| {
            let mut seed = vec![0];
            seed.extend_from_slice(&[500_u16, 8192, 24, 3000, 1, 60][number].to_le_bytes());
            seed.extend_from_slice(&[700_u16, 1024, 1000, 1029, 5, 990][number].to_le_bytes());
            seed.push(0); // no damage
            for entry in entries.iter().skip(number).step_by(STREAMS).take(STREAM_RECORDS) {
                seed.extend_from_slice(entry);
            }
            (format!("records-{number}"), seed)
        })
    }
}

/// Leaves findings, which are there to stay.
fn replace(directory: &Path, seeds: Vec<(String, Vec<u8>)>) {
    fs::create_dir_all(directory).expect("make the directory of seeds");
    for entry in fs::read_dir(directory).expect("list the seeds").flatten() {
        if !entry.file_name().to_string_lossy().starts_with("finding-") {
            fs::remove_file(entry.path()).expect("remove an old seed");
        }
    }
    for (name, seed) in seeds {
        fs::write(directory.join(name), seed).expect("write a seed");
    }
}

/// `heap-insert-init` and the like.
fn kind(record: &Record<'_>) -> String {
    format!("{}-{}", record.rmgr, record.kind_name())
        .to_lowercase()
        .replace(['+', '_', '/'], "-")
}

/// Bytes of all that a record carries.
fn record_bytes(record: &Record<'_>) -> usize {
    let blocks = record.blocks.iter().map(|block| {
        let image = block.applied_image().map_or(0, |image| image.bytes.len());
        20 + block.data.len() + image
    });
    record.main.len() + blocks.sum::<usize>()
}

/// Bytes of a page without its free space.
fn used_bytes(page: &Page) -> usize {
    let word = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
    BLOCK_SIZE - word(14).saturating_sub(word(12)).min(BLOCK_SIZE)
}

fn settings(ctx: &RedoContext) -> u8 {
    u8::from(ctx.hint_bits_logged) | u8::from(ctx.track_commit_timestamp) << 1
}

/// The control file without what tells this cluster from another one.
fn control_seed(path: &Path) -> Vec<u8> {
    let mut file = fs::read(path).expect("read pg_control");
    file.truncate(292);
    file[..8].copy_from_slice(&FACTS.system_identifier.to_le_bytes());
    file[24..32].fill(0); // when it was written
    file[104..112].fill(0); // when the checkpoint was
    file[256..288].fill(0); // the secret of mock authentication
    let crc = crc32c::crc32c(&file[..288]);
    file[288..].copy_from_slice(&crc.to_le_bytes());
    file
}

//! The fuzzers' seeds, and inputs near them. A fuzzer's finding becomes a test by being put among the seeds.

use std::fs;
use std::path::Path;

use pg_quorum_hostile::{RecordCase, TARGETS, check_case};

/// Inputs made of each seed.
const MUTATIONS: usize = 1000;

/// The seeds of a target, by file name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (format!("{target}/{name}"), fs::read(path).unwrap())
        })
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

#[test]
fn every_seed_keeps_the_promises() {
    for (target, run) in TARGETS {
        for (name, seed) in seeds(target) {
            println!("{name}");
            run(&seed);
        }
    }
}

/// Otherwise the fuzzer of redo would start from records that are refused.
#[test]
fn every_record_of_the_seeds_fits_its_page() {
    for (name, seed) in seeds("apply") {
        // What a fuzzer found fits nothing.
        if !name.contains("finding") {
            assert!(check_case(&RecordCase::from_bytes(&seed)) > 0, "{name}");
        }
    }
}

#[test]
fn inputs_near_the_seeds_keep_the_promises() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for (target, run) in TARGETS {
        for (name, seed) in seeds(target) {
            println!("{name}"); // the last one names the culprit
            for _ in 0..MUTATIONS {
                let mut input = seed.clone();
                for _ in 0..=random.below(4) {
                    mutate(&mut input, &mut random);
                }
                run(&input);
            }
        }
    }
}

/// xorshift64*: the same inputs in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }
}

fn mutate(input: &mut Vec<u8>, random: &mut Random) {
    // Headers and lengths stand in front: half of the changes go there.
    let reach = if random.below(2) == 0 { 64 } else { input.len() };
    let at = random.below(reach.min(input.len()));
    let Some(byte) = input.get_mut(at) else { return };
    match random.below(8) {
        0 => *byte ^= 1 << random.below(8),
        1 => *byte = random.next() as u8,
        2 => *byte = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
        3 => *byte = byte.wrapping_add(1),
        4 => *byte = byte.wrapping_sub(1),
        5 => input.truncate(at),
        6 => {
            let word = [0, 1, 24, 0x1FFF, 0x2000, 0x7FFF, 0x8000, 0xFFFF][random.below(8)];
            for (place, byte) in input[at..].iter_mut().zip(u16::to_le_bytes(word)) {
                *place = byte;
            }
        }
        _ => {
            let from = random.below(input.len());
            let len = random.below(32).min(input.len() - from);
            let piece = input[from..from + len].to_vec();
            input.splice(at..at, piece);
        }
    }
}

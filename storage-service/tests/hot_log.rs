//! What the hot log takes, what it gives back, and what of it survives.

mod derived_support;
mod log_support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use derived_support::{BASE, FACTS, WalWriter, main_fork};
use log_support::{MachineDisk, Place, SyncFault, batch, epoch, history};
use pg_quorum_types::Lsn;
use pg_quorum_wal::RawRecord;
use storage_service::disk::{QuotaDisk, RealDisk};
use storage_service::log::{Appended, LogRecords};

/// Far more than any of these tests writes.
const ONE_FILE: u64 = 64 << 20;

/// Small records behind the base.
fn records(count: u16) -> Vec<RawRecord> {
    let mut writer = WalWriter::new(FACTS, BASE);
    let insert = |offset| writer.heap_insert(main_fork(16384), 0, offset, b"a tuple");
    (1..=count).map(insert).collect()
}

fn in_memory(disk: &MachineDisk, file_bytes: u64) -> Place {
    Place {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from("/log"),
        file_bytes,
    }
}

/// Records that the history does not give to their epoch count for nothing after a restart, though they would
/// have been acknowledged.
#[test]
fn a_batch_of_another_epoch_than_the_history_has_there_is_malformed() {
    let made = records(3);
    let second_start = made[1].end;
    let history = history(&[(1, BASE), (2, second_start)]);
    let place = in_memory(&MachineDisk::default(), ONE_FILE);
    let log = place.begin(&history);
    let refuses = |number, previous_end, records: &[RawRecord]| {
        let appended = log.hot.append(batch(epoch(number), previous_end, records));
        assert!(matches!(appended, Appended::Malformed(_)), "{appended:?}");
    };
    refuses(2, BASE, &made[..1]);
    refuses(3, BASE, &made[..1]);
    refuses(1, BASE, &made);
    assert_eq!(log.append(epoch(1), BASE, &made[..2]), second_start);
    refuses(1, second_start, &made[2..]);
    // Its first two records are here already: what is new of it is behind the epoch's end.
    refuses(1, BASE, &made);
    assert_eq!(log.append(epoch(2), second_start, &made[2..]), made[2].end);
    assert_eq!(log.read(BASE).unwrap(), made);
    drop(log);
    let (log, found) = place.open(&history);
    assert_eq!((found.scl, found.damage), (made[2].end, None));
    assert_eq!(log.read(BASE).unwrap(), made);
}

/// The node is killed, or its disk fails, between a write and its sync. The next process finds the frames whole in
/// the kernel's memory, counts them into its SCL, and so acknowledges them. Then the power goes.
#[test]
fn what_was_written_and_never_synced_is_durable_once_a_restart_has_counted_it() {
    let made = records(3);
    let history = history(&[(1, BASE)]);
    for fault in [SyncFault::Pending, SyncFault::Forgotten] {
        let disk = MachineDisk::default();
        let place = in_memory(&disk, ONE_FILE);
        let log = place.begin(&history);
        log.append(epoch(1), BASE, &made[..1]);
        drop(log);
        // Two frames in one write, which is then lost as a whole.
        let (log, _) = place.open(&history);
        for index in [1, 2] {
            let one = batch(epoch(1), made[index - 1].end, &made[index..=index]);
            assert_eq!(log.hot.append(one), Appended::Queued { records: 1 });
        }
        disk.fail_next_sync(fault);
        log.run();
        assert_eq!(log.hot.drain(), made[0].end);
        assert_eq!(log.troubles().len(), 1, "{:?}", log.troubles());
        drop(log);

        let (log, found) = place.open(&history);
        assert_eq!((found.scl, found.damage), (made[2].end, None), "{fault:?}");
        drop(log);
        disk.lose_power();
        let (log, found) = place.open(&history);
        assert_eq!((found.scl, found.damage), (made[2].end, None), "{fault:?}");
        assert_eq!(log.read(BASE).unwrap(), made);
    }
}

/// The node is killed after it has made the next file and before the folder was synced. The next process goes on
/// in that file; its syncs reach the file, and not the file's name.
#[test]
fn a_file_whose_name_was_never_synced_is_durable_once_a_restart_goes_on_in_it() {
    let made = records(2);
    let history = history(&[(1, BASE)]);
    let disk = MachineDisk::default();
    let place = in_memory(&disk, 100);
    let log = place.begin(&history);
    log.append(epoch(1), BASE, &made[..1]);
    disk.fail_next_dir_sync();
    assert_eq!(log.append(epoch(1), made[0].end, &made[1..]), made[0].end);
    drop(log);

    let place = in_memory(&disk, ONE_FILE);
    let (log, found) = place.open(&history);
    assert_eq!((found.scl, found.damage), (made[0].end, None));
    log.run();
    assert_eq!(log.append(epoch(1), made[0].end, &made[1..]), made[1].end);
    drop(log);
    disk.lose_power();
    let (log, found) = place.open(&history);
    assert_eq!((found.scl, found.damage), (made[1].end, None));
    assert_eq!(log.read(BASE).unwrap(), made);
}

/// A peer asks for records up to the LSN where its epoch ends, which is in the middle of a frame here; later it asks
/// for those behind.
#[test]
fn a_run_that_ended_inside_a_frame_goes_on_there() {
    let made = records(6);
    let place = in_memory(&MachineDisk::default(), ONE_FILE);
    let log = place.begin(&history(&[(1, BASE)]));
    log.append(epoch(1), BASE, &made[..2]);
    log.append(epoch(1), made[1].end, &made[2..]);
    let run_ends = |previous_end, until| {
        let run = log.hot.read_run(previous_end, until, usize::MAX).unwrap();
        let run = run.expect("there are records");
        assert_eq!(run.previous_end, previous_end);
        let wanted = made
            .iter()
            .filter(|record| record.end > previous_end && record.end <= run.end);
        let bytes: Vec<u8> = wanted.flat_map(|record| record.bytes.to_vec()).collect();
        assert_eq!(run.records, bytes);
        run.end
    };
    // Behind a record; inside of one, the frame's first and a later one; not at all.
    for until in [made[3].end, made[2].start + 8, made[4].start + 8, Lsn::MAX] {
        let ended = run_ends(BASE, until);
        assert!(ended <= until, "{ended} is behind {until}");
        if ended < made[5].end {
            assert_eq!(run_ends(ended, Lsn::MAX), made[5].end, "from {ended} on");
        }
    }
    assert_eq!(log.troubles(), Vec::<String>::new());
}

/// A Start throws away all that the epoch before has written here. The new epoch's first frame follows the old ones
/// closely in the file; it must be found although none of those is remembered.
#[test]
fn a_log_that_was_cut_to_its_begin_is_readable_when_it_grows_again() {
    let cut_off = records(2);
    let kept = {
        let mut writer = WalWriter::new(FACTS, BASE);
        vec![writer.heap_insert(main_fork(16384), 0, 1, b"of the new epoch")]
    };
    let history_then = history(&[(1, BASE), (2, BASE)]);
    let place = in_memory(&MachineDisk::default(), ONE_FILE);
    let log = place.begin(&history(&[(1, BASE)]));
    log.append(epoch(1), BASE, &cut_off);
    log.hot.set_history(history_then.clone());
    log.hot.cut(BASE);
    assert_eq!(log.read(BASE).unwrap(), []);
    log.append(epoch(2), BASE, &kept);
    assert_eq!(log.read(BASE).unwrap(), kept);
    assert_eq!(log.troubles(), Vec::<String>::new());
    drop(log);
    let (log, found) = place.open(&history_then);
    assert_eq!((found.scl, found.damage), (kept[0].end, None));
    assert_eq!(log.read(BASE).unwrap(), kept);
}

/// A write that finds too little room is done in part. When there is room again, shorter frames come in its place,
/// then the next file: what stays behind the frames of a file that is not the last one is damage.
#[test]
fn a_write_that_was_cut_short_by_a_full_disk_leaves_nothing_behind() {
    let mut writer = WalWriter::new(FACTS, BASE);
    let mut made = vec![writer.heap_insert(main_fork(16384), 0, 1, b"a tuple")];
    made.extend((1..=3).map(|block| writer.full_page(main_fork(16384), block, 7)));
    let history = history(&[(1, BASE)]);
    let dir = tempfile::tempdir().unwrap();
    let limit = Arc::new(AtomicU64::new(u64::MAX));
    let place = Place {
        disk: Arc::new(QuotaDisk::new(RealDisk, Arc::clone(&limit))),
        dir: dir.path().to_owned(),
        file_bytes: 4096,
    };
    let log = place.begin(&history);
    log.append(epoch(1), BASE, &made[..1]);

    let on_disk = || -> u64 {
        let files = std::fs::read_dir(dir.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };

    // Room for the first of three pages and a part of the second.
    let filled = on_disk() + 12_000;
    limit.store(filled, Ordering::Relaxed);
    assert_eq!(log.append(epoch(1), made[0].end, &made[1..]), made[0].end);
    assert!(log.hot.is_waiting_for_space());
    assert_eq!(on_disk(), filled, "the disk is full to its last byte");
    assert!(log.hot.try_disk_again().is_err());
    assert!(log.hot.is_waiting_for_space());

    limit.store(u64::MAX, Ordering::Relaxed);
    log.hot.try_disk_again().unwrap();
    assert_eq!(on_disk(), log.hot.bytes_on_disk());
    for pair in made.windows(2) {
        assert_eq!(log.append(epoch(1), pair[0].end, &pair[1..]), pair[1].end);
    }
    drop(log);
    assert!(
        std::fs::read_dir(dir.path()).unwrap().count() > 1,
        "it has gone on in another file"
    );
    let (log, found) = place.open(&history);
    assert_eq!((found.scl, found.damage), (made[3].end, None));
    assert_eq!(log.read(BASE).unwrap(), made);
}

/// Records that are close together are read at once; what is wrong with one of them is that one's error.
#[test]
fn single_records_are_read_again_from_their_positions() {
    let mut writer = WalWriter::new(FACTS, BASE);
    let made: Vec<RawRecord> = (1..=200_u16)
        .map(|number| match number % 10 {
            0 => writer.full_page(main_fork(16384), 1, number as u8),
            _ => writer.heap_insert(main_fork(16384), 0, number, &[number as u8; 70]),
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let place = Place {
        disk: Arc::new(RealDisk),
        dir: dir.path().to_owned(),
        file_bytes: 60_000, // several files
    };
    let history = history(&[(1, BASE)]);
    let log = place.begin(&history);
    let mut end = BASE;
    for frame in made.chunks(7) {
        end = log.append(epoch(1), end, frame);
    }
    let mut records = LogRecords::default();
    log.hot.read_records(BASE, usize::MAX, &mut records).unwrap();
    let stored: Vec<_> = records.iter().collect();
    let read = |chosen: &[usize]| {
        let mut positions = chosen.iter().map(|index| stored[*index].position);
        let mut found = Vec::new();
        let outcome = log.hot.read_each(&mut positions, &mut Vec::new(), &mut |bytes| {
            found.push(bytes.to_vec());
            true
        });
        (found, outcome.map_err(|error| error.kind()))
    };
    let bytes = |chosen: &[usize]| -> Vec<Vec<u8>> {
        chosen.iter().map(|index| made[*index].bytes.to_vec()).collect()
    };
    let all: Vec<usize> = (0..made.len()).collect();
    let some: Vec<usize> = (0..made.len()).step_by(13).collect();
    for chosen in [all.clone(), some, vec![150, 3, 151, 4], vec![], vec![7, 7]] {
        assert_eq!(read(&chosen), (bytes(&chosen), Ok(())));
    }
    let mut taken = 0;
    let mut positions = stored.iter().map(|stored| stored.position);
    let stopped = log.hot.read_each(&mut positions, &mut Vec::new(), &mut |_| {
        taken += 1;
        taken < 5
    });
    assert!(stopped.is_ok() && taken == 5, "it stops when it is told to");

    let position = stored[103].position;
    let path = file_of(dir.path(), position.file);
    let mut content = std::fs::read(&path).unwrap();
    content[position.offset as usize + 40] ^= 1;
    std::fs::write(&path, content).unwrap();
    let (found, outcome) = read(&all);
    assert_eq!(found, bytes(&all[..103]));
    assert_eq!(outcome, Err(std::io::ErrorKind::InvalidData));
    assert_eq!(log.troubles().len(), 1);
}

/// The n-th file of a log, from one on.
fn file_of(dir: &std::path::Path, number: u32) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files[number as usize - 1].clone()
}

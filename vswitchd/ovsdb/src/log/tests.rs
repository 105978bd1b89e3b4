//! The log under faults: every cut, every error, and what stock `ovsdb-tool` makes of it.

use serde_json::json;

use super::faults::FaultyFiles;
use super::*;

fn schema() -> Value {
    json!({ "name": "ordinals", "version": "5.1.3",
            "tables": { "ordinals": { "columns": { "number": { "type": "integer" } } } } })
}

fn transaction(n: u64) -> Value {
    json!({ "_date": 1_700_000_000_000u64 + n,
            "ordinals": { format!("00000000-0000-4000-8000-{n:012}"): { "number": n } } })
}

/// A directory for the lock file, and a file of the schema and `n` transactions on a faulty disk.
fn disk(n: u64) -> (tempfile::TempDir, PathBuf, FaultyFiles) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut bytes = compose(&schema().to_string());
    (1..=n).for_each(|i| bytes.extend(compose(&transaction(i).to_string())));
    let files = FaultyFiles::with(&path, &bytes);
    (dir, path, files)
}

fn open(path: &Path, files: &FaultyFiles) -> Log {
    Log::open(path, Arc::new(files.clone())).unwrap()
}

/// Reads to the end; how many transactions there are, and how the reading ended.
fn read_all(log: &mut Log) -> (u64, Result<(), LogError>) {
    let mut n = 0;
    loop {
        match log.next_record() {
            Ok(Some(v)) if n == 0 => assert_eq!(v, schema()),
            Ok(Some(v)) => assert_eq!(v, transaction(n)),
            Ok(None) => return (n - 1, Ok(())),
            Err(e) => return (n - 1, Err(e)),
        }
        n += 1;
    }
}

/// Opens as a server would: reads, checks the tail, cuts it off. The number of transactions.
fn recover(path: &Path, files: &FaultyFiles) -> (Log, u64) {
    let mut log = open(path, files);
    let (n, end) = read_all(&mut log);
    if let Err(e) = end {
        log.check_tail(e).unwrap();
    }
    log.begin_writing().unwrap();
    (log, n)
}

#[test]
fn records_are_read_back_in_order() {
    let (_dir, path, files) = disk(3);
    let (mut log, n) = recover(&path, &files);
    assert_eq!(n, 3);
    for i in 4..10 {
        log.append(&transaction(i).to_string()).unwrap();
    }
    log.sync().unwrap();
    drop(log);
    assert_eq!(recover(&path, &files).1, 9);
}

#[test]
fn a_process_killed_at_any_byte_loses_nothing_that_was_acknowledged() {
    let mut cuts = 0;
    for fuse in 0.. {
        let (_dir, path, files) = disk(1);
        let (mut log, _) = recover(&path, &files);
        files.set(|f| f.fuse = Some(fuse));
        let mut acknowledged = 1;
        for i in 2..=4 {
            if log.append(&transaction(i).to_string()).and_then(|()| log.sync()).is_err() {
                break;
            }
            acknowledged = i;
        }
        drop(log);
        let after = files.after_kill();
        let (mut log, n) = recover(&path, &after);
        assert!(n >= acknowledged, "fuse {fuse}: {acknowledged} acknowledged, {n} found");
        // And it goes on from there.
        log.append(&transaction(n + 1).to_string()).unwrap();
        drop(log);
        assert_eq!(recover(&path, &after).1, n + 1, "fuse {fuse}");
        cuts += 1;
        if acknowledged == 4 {
            break;
        }
    }
    assert!(cuts > 400, "{cuts}");
}

#[test]
fn a_power_failure_after_any_byte_loses_nothing_durable() {
    let (_dir, path, files) = disk(1);
    let (mut log, _) = recover(&path, &files);
    log.append(&transaction(2).to_string()).unwrap();
    log.sync().unwrap();
    log.append(&transaction(3).to_string()).unwrap();
    log.append(&transaction(4).to_string()).unwrap();
    let len = files.bytes(&path).unwrap().len();
    drop(log);
    for extra in 0..=len {
        let after = files.after_power_failure(extra);
        assert!(recover(&path, &after).1 >= 2, "{extra} unsynced bytes survived");
    }
}

#[test]
fn a_full_disk_refuses_the_record_and_leaves_the_file_as_it_was() {
    let record = compose(&transaction(2).to_string()).len() as u64;
    for room in 0..record {
        let (_dir, path, files) = disk(1);
        let (mut log, _) = recover(&path, &files);
        let before = files.bytes(&path).unwrap();
        files.set(|f| f.room = Some(room));
        let e = log.append(&transaction(2).to_string()).unwrap_err();
        assert!(e.to_string().ends_with("db: write failed (No space left on device)"), "{e}");
        assert_eq!(files.bytes(&path).unwrap(), before, "room {room}");
        files.set(|f| f.room = None);
        log.append(&transaction(2).to_string()).unwrap();
        drop(log);
        assert_eq!(recover(&path, &files).1, 2, "room {room}");
    }
}

#[test]
fn a_tail_that_could_not_be_cut_is_cut_before_the_next_record() {
    let (_dir, path, files) = disk(1);
    let (mut log, _) = recover(&path, &files);
    files.set(|f| (f.room, f.no_cut) = (Some(100), true));
    log.append(&transaction(2).to_string()).unwrap_err();
    files.set(|f| f.room = None);
    let e = log.append(&transaction(2).to_string()).unwrap_err();
    assert!(e.to_string().contains("cannot truncate"), "{e}");
    files.set(|f| f.no_cut = false);
    log.append(&transaction(2).to_string()).unwrap();
    drop(log);
    assert_eq!(recover(&path, &files).1, 2);
}

#[test]
fn after_a_failed_sync_the_file_is_suspect_until_it_is_written_anew() {
    let (_dir, path, files) = disk(1);
    let (mut log, _) = recover(&path, &files);
    files.set(|f| f.no_sync = true);
    log.append(&transaction(2).to_string()).unwrap();
    log.sync().unwrap_err();
    log.undo_append();
    assert!(log.is_suspect());
    files.set(|f| f.no_sync = false);
    log.sync().unwrap();
    assert!(log.is_suspect(), "a sync that works says nothing of the bytes before");
    log.replace([&*schema().to_string(), &*transaction(1).to_string()]).unwrap();
    assert!(!log.is_suspect());
    drop(log);
    assert_eq!(recover(&path, &files.after_power_failure(0)).1, 1);
}

#[test]
fn a_replacement_cut_at_any_byte_leaves_the_old_or_the_new_file() {
    let mut outcomes = std::collections::BTreeSet::new();
    for fuse in 0.. {
        let (_dir, path, files) = disk(5);
        let (mut log, _) = recover(&path, &files);
        log.sync().unwrap();
        files.set(|f| f.fuse = Some(fuse));
        let done = log.replace([&*schema().to_string(), &*transaction(1).to_string()]).is_ok();
        drop(log);
        for after in [files.after_kill(), files.after_power_failure(0), files.after_power_failure(1000)] {
            let n = recover(&path, &after).1;
            assert!(n == 5 || n == 1, "fuse {fuse}: {n}");
            assert!(!done || n == 1, "fuse {fuse}: done, and the old file is back");
            outcomes.insert(n);
        }
        if done {
            break;
        }
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [1, 5]);
}

#[test]
fn a_replacement_that_fails_leaves_a_log_that_goes_on() {
    let (_dir, path, files) = disk(2);
    let (mut log, _) = recover(&path, &files);
    for fault in [|f: &mut faults::Faults| f.room = Some(50), |f: &mut faults::Faults| f.no_rename = true] {
        files.set(fault);
        log.replace([&*schema().to_string(), &*transaction(1).to_string()]).unwrap_err();
        files.set(|f| *f = faults::Faults::default());
    }
    log.append(&transaction(3).to_string()).unwrap();
    let tmp = PathBuf::from(format!("{}.tmp", path.display()));
    assert!(files.bytes(&tmp).is_none(), "nothing is left beside it");
    drop(log);
    assert_eq!(recover(&path, &files).1, 3);
}

#[test]
fn any_damaged_byte_before_the_last_record_is_refused_and_in_it_is_cut() {
    let (_dir, path, files) = disk(3);
    let good = files.bytes(&path).unwrap();
    let first = compose(&schema().to_string()).len();
    let last = good.len() - compose(&transaction(3).to_string()).len();
    for at in first..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        let files = FaultyFiles::with(&path, &bytes);
        let mut log = open(&path, &files);
        let (n, end) = read_all(&mut log);
        // A changed digit of a checksum may still be the same digit.
        let Err(e) = end else {
            assert_eq!(n, 3, "byte {at}");
            continue;
        };
        let judged = log.check_tail(e);
        if at < last {
            let words = judged.unwrap_err().to_string();
            assert!(words.contains("refusing to drop committed transactions"), "byte {at}: {words}");
        } else {
            assert_eq!(judged.unwrap() as usize, good.len() - last, "byte {at}");
            assert_eq!(n, 2);
        }
    }
}

#[test]
fn a_length_beyond_the_file_allocates_nothing_and_is_a_torn_tail() {
    let (_dir, path, files) = disk(1);
    let mut bytes = files.bytes(&path).unwrap();
    bytes.extend(format!("OVSDB JSON {} {}\n{{", u64::MAX / 2 - 1, "ab".repeat(20)).as_bytes());
    let files = FaultyFiles::with(&path, &bytes);
    let mut log = open(&path, &files);
    let (n, end) = read_all(&mut log);
    assert_eq!(n, 1);
    let e = end.unwrap_err();
    assert!(e.to_string().contains("(End of file)"), "{e}");
    log.check_tail(e).unwrap();
}

#[test]
fn a_transaction_that_does_not_fit_is_given_back() {
    let (_dir, path, files) = disk(2);
    let mut log = open(&path, &files);
    log.next_record().unwrap();
    log.next_record().unwrap();
    let words = "unknown table: No table named invalid.";
    let e = log.next_with(|_| Err::<(), _>(Unfit::Transaction(words.into()))).unwrap_err();
    assert_eq!(e.to_string(), "unknown table: No table named invalid.");
    log.check_tail(e).unwrap();
    log.begin_writing().unwrap();
    drop(log);
    assert_eq!(recover(&path, &files).1, 1);
    // With a good record behind it, it is refused.
    let (_dir, path, files) = disk(2);
    let mut log = open(&path, &files);
    log.next_record().unwrap();
    let e = log.next_with(|_| Err::<(), _>(Unfit::Transaction("unknown table".into()))).unwrap_err();
    assert!(matches!(log.check_tail(e), Err(LogError::CorruptMiddle { .. })));
}

#[test]
fn files_of_another_kind_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let open = |bytes: &[u8]| Log::open(&path, Arc::new(FaultyFiles::with(&path, bytes))).unwrap_err();
    assert!(matches!(open(b""), LogError::Kind(_)));
    assert!(matches!(open(b"\x7fELF"), LogError::Format(_)));
    assert!(matches!(open(&[b'O'; 300]), LogError::Format(_)));
    let cluster = format!("OVSDB CLUSTER 5 {}\n", "ab".repeat(20));
    assert!(matches!(open(cluster.as_bytes()), LogError::Clustered(_)));
    assert!(matches!(open(cluster.replace("CLUSTER", "XML").as_bytes()), LogError::Kind(_)));
    let e = Log::open(&dir.path().join("none"), Arc::new(HostFiles)).unwrap_err();
    assert!(e.to_string().ends_with("none: open failed (No such file or directory)"), "{e}");
    assert!(!dir.path().join(".none.~lock~").exists());
}

#[test]
fn a_link_to_the_file_stays_a_link_when_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/db"), compose(&schema().to_string())).unwrap();
    let link = dir.path().join("db");
    std::os::unix::fs::symlink("d/db", &link).unwrap();
    let mut log = Log::open(&link, Arc::new(HostFiles)).unwrap();
    log.next_record().unwrap();
    log.replace([&*schema().to_string(), &*transaction(1).to_string()]).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read_to_string(dir.path().join("d/db")).unwrap().contains("_date"));
}

/// Against the stock tool of the Debian package openvswitch-common.
#[test]
fn stock_ovsdb_tool_reads_what_is_written_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let tool = |args: &[&str]| {
        let out =
            std::process::Command::new("ovsdb-tool").args(args).current_dir(dir.path()).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    std::fs::write(dir.path().join("schema"), schema().to_string()).unwrap();
    tool(&["create", "db", "schema"]);
    tool(&["transact", "db", r#"["ordinals",{"op":"insert","table":"ordinals","row":{"number":7}}]"#]);
    let path = dir.path().join("db");
    let mut log = Log::open(&path, Arc::new(HostFiles)).unwrap();
    assert_eq!(log.next_record().unwrap().unwrap()["name"], "ordinals");
    assert!(log.next_record().unwrap().unwrap()["ordinals"].to_string().contains(r#"{"number":7}"#));
    assert!(log.next_record().unwrap().is_none());
    log.append(&transaction(8).to_string()).unwrap();
    drop(log);
    assert_eq!(tool(&["show-log", "db"]).lines().filter(|l| l.starts_with("record ")).count(), 3);
    let rows = tool(&["query", "db", r#"["ordinals",{"op":"select","table":"ordinals","where":[]}]"#]);
    assert!(rows.contains("\"number\":7") && rows.contains("\"number\":8"), "{rows}");
}

/// Appends transaction `n` and waits for the disk as a server does.
fn durable(log: &mut Log, n: u64) -> Result<u64, LogError> {
    log.append(&transaction(n).to_string())?;
    let mut syncing = log.syncing()?;
    let result = syncing.wait();
    assert_eq!(log.synced(&syncing, result.is_ok()), Some(result.is_ok()));
    result.map(|()| n)
}

/// A compaction with transactions before, between and behind its steps; what was acknowledged goes to `acked`.
fn compact_while_it_goes_on(log: &mut Log, acked: &mut u64) -> Result<(), LogError> {
    let mut rewrite = log.begin_rewrite()?;
    *acked = durable(log, 4)?;
    let before: Vec<String> = (1..=3).map(|n| transaction(n).to_string()).collect();
    let schema = schema().to_string();
    rewrite.write([&*schema].into_iter().chain(before.iter().map(|t| &**t)))?;
    *acked = durable(log, 5)?;
    let end = log.len();
    log.append(&transaction(6).to_string())?;
    rewrite.copy_to(end)?;
    log.append(&transaction(7).to_string())?;
    assert!(log.finish_rewrite(rewrite)?);
    *acked = durable(log, 8)?;
    *acked = durable(log, 9)?;
    Ok(())
}

#[test]
fn a_compaction_cut_at_every_step_loses_nothing_that_was_acknowledged() {
    for fuse in 0.. {
        let (_dir, path, files) = disk(3);
        let (mut log, mut acked) = recover(&path, &files);
        log.sync().unwrap();
        files.set(|f| f.fuse = Some(fuse));
        let done = compact_while_it_goes_on(&mut log, &mut acked).is_ok();
        drop(log);
        for after in [files.after_kill(), files.after_power_failure(0), files.after_power_failure(1000)] {
            let n = recover(&path, &after).1;
            assert!((acked..=9).contains(&n), "fuse {fuse}: {n} of {acked} that were acknowledged");
        }
        if done {
            assert_eq!(acked, 9);
            let left = PathBuf::from(format!("{}.compact", path.display()));
            assert!(files.bytes(&left).is_none(), "nothing is left beside it");
            break;
        }
    }
}

#[test]
fn a_compaction_that_is_overtaken_or_fails_leaves_the_log_as_it_is() {
    let (_dir, path, files) = disk(2);
    let (mut log, _) = recover(&path, &files);
    let mut overtaken = log.begin_rewrite().unwrap();
    overtaken.write([&*schema().to_string()]).unwrap();
    let all = [schema(), transaction(1), transaction(2)].map(|r| r.to_string());
    log.replace(all.iter().map(|r| &**r)).unwrap();
    assert!(!log.finish_rewrite(overtaken).unwrap());
    for fault in [|f: &mut faults::Faults| f.room = Some(50), |f: &mut faults::Faults| f.no_rename = true] {
        files.set(fault);
        let mut r = log.begin_rewrite().unwrap();
        let written = r.write(all.iter().map(|r| &**r));
        assert!(written.is_err() || log.finish_rewrite(r).is_err());
        files.set(|f| *f = faults::Faults::default());
    }
    log.append(&transaction(3).to_string()).unwrap();
    drop(log);
    assert_eq!(recover(&path, &files).1, 3);
}

#[test]
fn a_failed_sync_of_another_thread_makes_the_file_suspect_unless_it_was_replaced_since() {
    let (_dir, path, files) = disk(1);
    let (mut log, _) = recover(&path, &files);
    log.append(&transaction(2).to_string()).unwrap();
    let mut old = log.syncing().unwrap();
    let all = [schema(), transaction(1), transaction(2)].map(|r| r.to_string());
    log.replace(all.iter().map(|r| &**r)).unwrap();
    files.set(|f| f.no_sync = true);
    assert!(old.wait().is_err());
    assert_eq!((log.synced(&old, false), log.is_suspect()), (None, false));
    let mut new = log.syncing().unwrap();
    assert!(new.wait().is_err());
    assert_eq!((log.synced(&new, false), log.is_suspect()), (Some(false), true));
}

//! Disks that lie, fill up or break: never a panic, never a wrong entry, always a store.

use std::path::Path;

use super::durability::on_disk;
use super::*;

async fn filled(path: &Path, entries: u64) {
    let store = Store::open(&on_disk(path)).unwrap();
    let mut random = Random(40);
    for number in 0..entries {
        put_placed(&store, number, partition(number % 2), &random.direction(64)).await;
    }
    store.close().await.unwrap();
}

/// Whatever is there is as it was put, and the store works.
async fn sound(path: &Path, entries: u64) -> u64 {
    let store = Store::open(&on_disk(path)).unwrap();
    let mut found = 0;
    for number in 0..entries {
        if let Some(known) = store.get(&key(number)).await.unwrap() {
            assert_eq!(*known, entry(number));
            found += 1;
        }
    }
    assert_eq!(store.usage().entries, found);
    let direction = Random(41).direction(64);
    put_placed(&store, entries, partition(0), &direction).await;
    store.flush().await.unwrap();
    drop(store);
    let again = Store::open(&on_disk(path)).unwrap();
    assert!(again.get(&key(entries)).await.unwrap().is_some());
    assert_eq!(again.usage().entries, found + 1);
    assert_eq!(keys(&again.nearest(&partition(0), &direction, 1).await.unwrap()), [key(entries)]);
    found
}

#[tokio::test]
async fn flipped_bits_cost_entries_but_nothing_else() {
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path(), 200).await;
    let content = std::fs::read(whole.path().join("entries.redb")).unwrap();
    let secret = std::fs::read(whole.path().join("secret")).unwrap();
    // A panic inside the database library is caught; its message would only be noise here.
    let mut random = Random(42);
    let mut salvaged = 0;
    for round in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let mut damaged = content.clone();
        for _ in 0..=round % 4 {
            // Every other round in the head, where few bytes mean much.
            let at = random.below(if round % 2 == 0 { damaged.len() } else { 8192 });
            damaged[at] ^= 1 << random.below(8);
        }
        std::fs::write(folder.path().join("entries.redb"), damaged).unwrap();
        std::fs::write(folder.path().join("secret"), &secret).unwrap();
        salvaged += sound(folder.path(), 200).await;
    }
    assert!(salvaged > 60 * 150, "most is read all the same: {salvaged} of {}", 60 * 200);
}

#[tokio::test]
async fn torn_and_foreign_files_are_moved_aside() {
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path(), 100).await;
    let content = std::fs::read(whole.path().join("entries.redb")).unwrap();
    let secret = std::fs::read(whole.path().join("secret")).unwrap();
    let torn = &content[..content.len() / 2];
    for content in [torn, &content[..100], b"SQLite format 3\0 and more".as_slice(), &vec![0; 70_000]] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("entries.redb"), content).unwrap();
        std::fs::write(folder.path().join("secret"), &secret).unwrap();
        sound(folder.path(), 100).await;
        let aside = std::fs::read_dir(folder.path()).unwrap().filter(|file| {
            file.as_ref().unwrap().file_name().to_string_lossy().starts_with("entries.redb.corrupt-")
        });
        assert_eq!(aside.count(), 1);
    }
}

#[tokio::test]
async fn records_of_another_store_are_skipped_counted_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 50).await;
    // Another secret: every digest is wrong.
    std::fs::write(folder.path().join("secret"), [9; 32]).unwrap();
    let store = Store::open(&on_disk(folder.path())).unwrap();
    assert_eq!((store.usage().entries, store.usage().corrupt_skipped), (0, 50));
    store.close().await.unwrap();
    drop(store);
    let store = Store::open(&on_disk(folder.path())).unwrap();
    assert_eq!((store.usage().entries, store.usage().corrupt_skipped), (0, 0));
}

#[tokio::test]
async fn a_secret_of_the_wrong_length_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "short").unwrap();
    let secret = Store::open(&on_disk(folder.path())).unwrap().secret().borrow().to_owned();
    assert_eq!(std::fs::read(folder.path().join("secret")).unwrap(), secret);
}

#[cfg(target_os = "linux")]
const LIMITED: &str = "REJOINDER_TEST_LIMITED_CHILD";

/// The child of the test below: its shell lets no file grow past two megabytes, as a full disk would not.
#[cfg(target_os = "linux")]
#[test]
fn limited_child() {
    let Ok(path) = std::env::var(LIMITED) else { return };
    let path = Path::new(&path);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&on_disk(path)).unwrap();
        store.put(entry(0), None).await.unwrap();
        store.flush().await.unwrap();
        assert_eq!(store.state(), StoreState::Ok);
        for number in 1..5_000 {
            put_placed(&store, number, partition(number % 2), &Random(number).direction(64)).await;
        }
        assert!(matches!(store.flush().await, Err(StoreError::Disk(_))));
        assert!(matches!(store.state(), StoreState::Degraded(_)));
        assert!(store.usage().write_failures > 0);
        for number in 0..5_000 {
            assert!(store.get(&key(number)).await.unwrap().is_some(), "memory goes on");
        }
        if std::env::var_os("REJOINDER_TEST_DAMAGE").is_some() {
            // While the database is closed, waiting for the next try.
            let file = std::fs::OpenOptions::new().write(true).open(path.join("entries.redb")).unwrap();
            file.set_len(5_000).unwrap();
        }
        let pid = std::process::id().to_string();
        let raised = std::process::Command::new("prlimit")
            .args(["--pid", &pid, "--fsize=unlimited"])
            .status()
            .unwrap();
        assert!(raised.success());
        store.flush().await.unwrap();
        assert_eq!(store.state(), StoreState::Ok);
        store.close().await.unwrap();
    });
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_degrades_and_loses_nothing_once_there_is_room() {
    for damage in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = std::process::Command::new("sh");
        // The limit's signal ignored, writing fails with an error as on a full disk.
        shell.args(["-c", r#"trap '' XFSZ; ulimit -S -f 4096; exec "$0" "$@""#]);
        shell.arg(std::env::current_exe().unwrap());
        shell.args(["--exact", "store::tests::damage::limited_child", "--nocapture"]);
        shell.env(LIMITED, folder.path());
        if damage {
            shell.env("REJOINDER_TEST_DAMAGE", "1");
        }
        let output = shell.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        assert_eq!(sound(folder.path(), 5_000).await, 5_000, "damaged meanwhile: {damage}");
    }
}

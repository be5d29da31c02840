//! What is on disk survives: restarts, `kill -9`, and whoever else looks at the folder.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::*;

pub(super) fn on_disk(path: &Path) -> StoreOptions {
    StoreOptions { data_dir: Some(path.to_owned()), ..StoreOptions::default() }
}

#[tokio::test]
async fn entries_embeddings_and_secret_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(20);
    let directions: Vec<_> = (0..300).map(|_| random.direction(48)).collect();
    let store = Store::open(&on_disk(folder.path())).unwrap();
    let secret = *store.secret().borrow();
    for (number, direction) in (0..).zip(&directions) {
        if number % 3 == 0 {
            store.put(entry(number), None).await.unwrap();
        } else {
            put_placed(&store, number, partition(number % 2), direction).await;
        }
    }
    let newer = altered(&entry(1), |exchange| exchange.document = b"replaced");
    store.put(newer.clone(), None).await.unwrap();
    assert!(store.remove(&key(2).id()).await.unwrap());
    store.close().await.unwrap();
    store.close().await.unwrap();
    let store = Store::open(&on_disk(folder.path())).unwrap();
    assert_eq!(*store.secret().borrow(), secret);
    assert_eq!(*store.get(&key(1)).await.unwrap().unwrap(), newer);
    assert_eq!(store.get(&key(2)).await.unwrap(), None);
    assert_eq!(store.usage().entries, 299);
    for (number, direction) in (3..).zip(&directions[3..]) {
        assert_eq!(*store.get(&key(number)).await.unwrap().unwrap(), entry(number));
        if number % 3 != 0 {
            let found = store.nearest(&partition(number % 2), direction, 1).await.unwrap();
            assert_eq!(keys(&found), [key(number)]);
            assert!((found[0].similarity.0 - 1.0).abs() < 1e-5);
        }
    }
    // Numbers go on where they were: a new entry does not take an old one's place on disk.
    store.put(entry(1000), None).await.unwrap();
    drop(store);
    let store = Store::open(&on_disk(folder.path())).unwrap();
    assert_eq!(store.usage().entries, 300);
    assert_eq!(store.usage().corrupt_skipped, 0);
}

#[tokio::test]
async fn what_does_not_fit_comes_back_newest_first_and_the_rest_leaves_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&on_disk(folder.path())).unwrap();
    for number in 0..500 {
        store.put(entry(number), None).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let small = StoreOptions { max_bytes: 1 << 20, max_entries: 100, ..on_disk(folder.path()) };
    let store = Store::open(&small).unwrap();
    let kept = store.usage().entries;
    assert!((95..=100).contains(&kept), "{kept}");
    for number in 500 - kept..500 {
        assert!(store.get(&key(number)).await.unwrap().is_some(), "{number}");
    }
    store.close().await.unwrap();
    drop(store);
    assert_eq!(Store::open(&on_disk(folder.path())).unwrap().usage().entries, kept);
}

#[tokio::test]
async fn expired_entries_do_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&on_disk(folder.path())).unwrap();
    let mut old = entry(1);
    old.created_at = SystemTime::now() - Duration::from_hours(2);
    store.put(old, None).await.unwrap();
    store.put(entry(2), None).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = Store::open(&on_disk(folder.path())).unwrap();
    assert_eq!(store.get(&key(1)).await.unwrap(), None);
    assert!(store.get(&key(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_removed_is_gone_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&on_disk(folder.path())).unwrap();
    let secret = altered(&entry(1), |exchange| exchange.prompt = "a prompt to be forgotten");
    for number in 2..400 {
        store.put(entry(number), None).await.unwrap();
    }
    store.put(secret, None).await.unwrap();
    store.flush().await.unwrap();
    let holds = |text: &str| {
        let bytes = std::fs::read(folder.path().join("entries.redb")).unwrap();
        memchr::memmem::find(&bytes, text.as_bytes()).is_some()
    };
    assert!(holds("a prompt to be forgotten"));
    assert_eq!(store.purge(&Selector::All).await.unwrap(), 399);
    store.flush().await.unwrap();
    let size = std::fs::metadata(folder.path().join("entries.redb")).unwrap().len();
    assert!(!holds("a prompt to be forgotten"), "{size}");
    assert!(!holds("What is number"));
}

#[cfg(unix)]
#[tokio::test]
async fn the_folder_and_its_files_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("data");
    std::fs::create_dir(&path).unwrap();
    // As a lax umask leaves them.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["entries.redb", "rejoinder.lock"] {
        std::fs::write(path.join(name), "").unwrap();
        std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    let store = Store::open(&on_disk(&path)).unwrap();
    store.put(entry(1), None).await.unwrap();
    store.flush().await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let mut files = 0;
    for file in std::fs::read_dir(&path).unwrap() {
        files += 1;
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(files, 3);
    // Another program's folder is left as it is.
    let shared = outer.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(shared.join("other.txt"), "").unwrap();
    let _store = Store::open(&on_disk(&shared)).unwrap();
    assert_eq!(mode(&shared), 0o755);
}

#[tokio::test]
async fn a_second_store_on_the_folder_is_told_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(&on_disk(folder.path())).unwrap();
    let error = Store::open(&on_disk(folder.path())).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)));
    assert!(error.to_string().contains("another process") && error.to_string().contains("--data-dir"));
    first.close().await.unwrap();
    Store::open(&on_disk(folder.path())).unwrap();
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&on_disk(&file.join("data"))).unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

const CHILD: &str = "REJOINDER_TEST_KILLED_CHILD";

/// The child of the test below: writes a thousand entries a second until it is killed, saying so after each.
#[test]
fn killed_child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let store = Store::open(&on_disk(Path::new(&path))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut out = std::io::stdout().lock();
    let mut random = Random(30);
    runtime.block_on(async {
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        for number in inner(&store).sequence.load(Ordering::Relaxed).. {
            pace.tick().await;
            put_placed(&store, number, partition(number % 7), &random.direction(384)).await;
            writeln!(out, "stored {number}").unwrap();
            out.flush().unwrap();
        }
    });
}

#[test]
fn what_was_stored_a_second_before_a_kill_is_there_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = 1;
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::durability::killed_child", "--nocapture", "--test-threads=1"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stored = Vec::new();
        let span = Duration::from_millis(1_500 + 370 * round);
        while stored.first().is_none_or(|(at, _): &(Instant, u64)| at.elapsed() < span) {
            let line = lines.next().unwrap().unwrap();
            // The harness writes the test's name without a line's end before the first.
            if let Some((_, number)) = line.split_once("stored ") {
                stored.push((Instant::now(), number.parse::<u64>().unwrap()));
            }
        }
        // `Child::kill` is SIGKILL on Unix.
        child.kill().unwrap();
        child.wait().unwrap();
        let killed = Instant::now();
        let store = Store::open(&on_disk(folder.path())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let safe = stored.iter().filter(|(at, _)| killed - *at > Duration::from_secs(1));
        let last_safe = safe.map(|(_, number)| *number).max().expect("the child ran for more than a second");
        assert!(last_safe > first);
        for number in first..=last_safe {
            let found = runtime.block_on(store.get(&key(number))).unwrap();
            assert_eq!(found.as_deref(), Some(&entry(number)), "{number} of {last_safe}");
        }
        assert_eq!(store.usage().corrupt_skipped, 0);
        first = inner(&store).sequence.load(Ordering::Relaxed);
    }
}

//! Redis as `deploy/redis` starts it lets rejoinder do what it needs, and nobody anything else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::deployment::{deploy, program, run_program};
use crate::support::soon;

const PASSWORD: &str = "a password of many characters+/=";

/// Redis as `deploy/redis` starts it, on a Unix socket.
struct Redis {
    socket: PathBuf,
    _folder: TempDir,
    _process: Child,
}

/// `start.sh` with this password, its files in `folder`.
fn start_script(folder: &Path, password: &str) -> Command {
    let secret = folder.join("password");
    std::fs::write(&secret, format!("{password}\n")).unwrap();
    let mut command = program("sh");
    command
        .arg(deploy().join("redis/start.sh"))
        .args(["--port", "0", "--unixsocket"])
        .arg(folder.join("socket"))
        .env("REDIS_SETTINGS", deploy().join("redis"))
        .env("REDIS_RUN", folder)
        .env("REDIS_PASSWORD_FILE", secret)
        .current_dir(folder);
    command
}

impl Redis {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = start_script(folder.path(), PASSWORD).stdout(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = log.next_line().await.unwrap() {
                if line.contains("eady to accept connections") {
                    return;
                }
            }
            panic!("redis-server ended: is it installed? scripts/test installs it");
        };
        soon(ready).await;
        Self { socket: folder.path().join("socket"), _folder: folder, _process: process }
    }

    /// What this user is answered, in redis-cli's words.
    async fn ask(&self, user: Option<(&str, &str)>, words: &[&str]) -> String {
        let mut command = program("redis-cli");
        command.env_remove("REDISCLI_AUTH").arg("-s").arg(&self.socket).arg("--no-auth-warning");
        if let Some((user, password)) = user {
            command.args(["--user", user, "--pass", password]);
        }
        command.args(words);
        run_program(command).await.1.trim().to_owned()
    }
}

#[tokio::test]
async fn redis_lets_rejoinder_do_what_it_needs_with_its_own_keys() {
    let redis = Redis::start().await;
    let rejoinder = Some(("rejoinder", PASSWORD));
    for (words, answer) in [
        (&["PING"][..], "PONG"),
        (&["HSET", "rejoinder:entry:{scope}1", "query", "x"], "1"),
        (&["HMGET", "rejoinder:entry:{scope}1", "query"], "x"),
        (&["EVAL", "return redis.call('PEXPIRE', KEYS[1], 60000)", "1", "rejoinder:entry:{scope}1"], "1"),
        (&["UNLINK", "rejoinder:entry:{scope}1"], "1"),
    ] {
        assert_eq!(redis.ask(rejoinder, words).await, answer, "{words:?}");
    }
}

/// The list that `tests/redis/store.rs` finds to be enough and not too much.
#[test]
fn the_rights_are_those_that_the_architecture_lists() {
    let rights = |text: &str| {
        let words = text.split_whitespace().filter(|word| word.starts_with('+'));
        words.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let documented = include_str!("../../ARCHITECTURE.md");
    let documented = documented.lines().find(|line| line.starts_with("user rejoinder on ")).unwrap();
    let file = std::fs::read_to_string(deploy().join("redis/users.acl")).unwrap();
    let user = &file[file.find("user rejoinder on ").unwrap()..];
    let without_comments: String = user.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    assert_eq!(rights(&without_comments), rights(documented));
}

#[tokio::test]
async fn redis_lets_nobody_do_anything_else() {
    let redis = Redis::start().await;
    let rejoinder = Some(("rejoinder", PASSWORD));
    for words in [
        &["FLUSHALL"][..],
        &["FLUSHDB"],
        &["KEYS", "*"],
        &["CONFIG", "GET", "*"],
        &["ACL", "LIST"],
        &["EVAL", "return redis.call('GET', 'another')", "0"],
        &["SHUTDOWN"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["REPLICAOF", "127.0.0.1", "1"],
        &["GET", "another"],
        &["SET", "another", "x"],
        &["SUBSCRIBE", "another"],
        &["PUBLISH", "another", "x"],
    ] {
        let answer = redis.ask(rejoinder, words).await;
        let refused = ["NOPERM", "ACL failure", "can't access"];
        assert!(refused.iter().any(|word| answer.contains(word)), "{words:?}: {answer}");
    }
    assert!(redis.ask(None, &["PING"]).await.contains("NOAUTH"));
    let wrong = redis.ask(Some(("rejoinder", "wrong")), &["PING"]).await;
    assert!(wrong.contains("WRONGPASS") && wrong.contains("NOAUTH"), "{wrong}");
    let probe = Some(("probe", "any"));
    assert_eq!(redis.ask(probe, &["PING"]).await, "PONG");
    for words in [&["GET", "rejoinder:x"][..], &["INFO"], &["FLUSHALL"]] {
        let answer = redis.ask(probe, words).await;
        assert!(answer.contains("NOPERM"), "{words:?}: {answer}");
    }
}

/// The password is on disk as a hash alone, for its owner.
#[tokio::test]
async fn the_password_itself_is_not_written_down_again() {
    let redis = Redis::start().await;
    let file = redis.socket.with_file_name("users.acl");
    assert!(!std::fs::read_to_string(&file).unwrap().contains(PASSWORD));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn redis_does_not_start_without_a_password_or_with_a_misspelt_right() {
    for password in ["", "short"] {
        let folder = tempfile::tempdir().unwrap();
        let (started, said) = run_program(start_script(folder.path(), password)).await;
        assert!(!started && said.contains("fewer than 16 characters"), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["redis.conf", "users.acl"] {
        let text = std::fs::read_to_string(deploy().join("redis").join(name)).unwrap();
        std::fs::write(folder.path().join(name), text.replace("+unlink", "+unlnik")).unwrap();
    }
    let run_folder = tempfile::tempdir().unwrap();
    let mut command = start_script(run_folder.path(), PASSWORD);
    command.env("REDIS_SETTINGS", folder.path());
    let (started, said) = run_program(command).await;
    assert!(!started && said.contains("+unlnik"), "{said}");
    // Without start.sh, the word in the place of the password is no rule.
    let mut command = program("redis-server");
    let socket = folder.path().join("socket");
    command
        .args(["--port", "0", "--unixsocket"])
        .arg(socket)
        .arg("--aclfile")
        .arg(deploy().join("redis/users.acl"));
    let (started, said) = run_program(command).await;
    assert!(!started && said.contains("ACL"), "{said}");
}

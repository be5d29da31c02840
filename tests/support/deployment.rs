//! What lies in `deploy/`, read and rendered, and the checkers of it that `scripts/test` installs into
//! `.test-clients/deploy`; a test whose checker is missing fails and says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What `kubectl apply -k` is given, in `deploy/kubernetes`.
pub const KUSTOMIZATIONS: [&str; 4] = ["base", "with-redis", "own-redis", "sidecar"];

pub const COMPOSE_FILES: [&str; 2] = ["compose.yaml", "compose.replicas.yaml"];

pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// A checker that `scripts/test` has installed.
pub fn checker(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".test-clients/deploy/bin").join(name);
    assert!(path.exists(), "{} is missing: run scripts/test, which installs it", path.display());
    Command::new(path)
}

/// Whether it succeeded, and all that it said.
pub fn run(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

/// What it printed, where it succeeded.
pub fn printed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The documents of a YAML file.
pub fn documents(file: &Path) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deployment/as_json.py");
    serde_json::from_str(&printed(checker("python").arg("-B").arg(script).arg(file))).unwrap()
}

pub fn compose(name: &str) -> Value {
    documents(&deploy().join(name)).remove(0)
}

pub fn kustomize(folder: &Path) -> Command {
    let mut command = checker("kubectl");
    command.arg("kustomize").arg(folder);
    command
}

/// What a cluster would be given.
pub fn rendered(kustomization: &str) -> Vec<Value> {
    let text = printed(&mut kustomize(&deploy().join("kubernetes").join(kustomization)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rendered.yaml");
    std::fs::write(&file, text).unwrap();
    documents(&file)
}

pub fn secret_template() -> Value {
    documents(&deploy().join("kubernetes/secret.template.yaml")).remove(0)
}

/// The one document of a kind and name; `configMapGenerator` adds a hash to the name.
pub fn find<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|document| {
        let full = document["metadata"]["name"].as_str().unwrap();
        document["kind"] == kind
            && (full == name
                || full.rsplit_once('-').is_some_and(|(stem, _)| kind == "ConfigMap" && stem == name))
    });
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The templates of pods, of whatever makes them.
pub fn pods(documents: &[Value]) -> Vec<&Value> {
    documents.iter().filter_map(|document| document["spec"].get("template")).collect()
}

/// All containers of a pod, init containers included.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().filter_map(|kind| pod["spec"][kind].as_array()).flatten()
}

/// A program of the system, also where only root's path leads.
pub fn program(name: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Whether it succeeded, and all that it said.
pub async fn run_program(mut command: tokio::process::Command) -> (bool, String) {
    let output = super::soon(command.output()).await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

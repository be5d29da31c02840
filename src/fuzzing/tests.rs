//! The corpus, replayed; and that each target has its file, its folder and its place in `fuzz/Cargo.toml`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::TARGETS;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_file_of_the_corpus_passes() {
    for (target, check) in TARGETS {
        let corpus = folder().join("corpus").join(target);
        let files = names(&corpus);
        assert!(!files.is_empty(), "{target} has no seeds");
        for file in files {
            let data = std::fs::read(corpus.join(&file)).unwrap();
            let passed = std::panic::catch_unwind(|| check(&data));
            assert!(passed.is_ok(), "fuzz/corpus/{target}/{file} fails, for the reason above");
        }
    }
}

#[test]
fn every_target_can_be_run() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(names(&folder().join("corpus")), targets);
    let files = targets.iter().map(|target| format!("{target}.rs")).collect();
    assert_eq!(names(&folder().join("fuzz_targets")), files);
    let manifest: toml::Table =
        std::fs::read_to_string(folder().join("Cargo.toml")).unwrap().parse().unwrap();
    let bins = manifest["bin"].as_array().unwrap();
    let built: BTreeSet<String> = bins.iter().map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(built, targets);
    for target in &targets {
        let text =
            std::fs::read_to_string(folder().join("fuzz_targets").join(format!("{target}.rs"))).unwrap();
        assert!(text.contains(&format!("rejoinder::fuzzing::{target}(")), "{target}");
    }
}

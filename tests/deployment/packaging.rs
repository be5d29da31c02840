//! What is handed out beside the program: the pages of `docs/` say what the code does, the service's unit is one that
//! systemd takes, the package has what it names, and what the program is made of is what `deny.toml` allows.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rejoinder::cache::decision::MissReason;
use rejoinder::cache::guard::{Leaning, Rule, compare, exact_only};
use rejoinder::cache::outcome::{Forward, Layer};
use serde::Deserialize;
use serde_json::{Value, json};

const TROUBLESHOOTING: &str = include_str!("../../docs/troubleshooting.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of the first table under a heading, without the table's head.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let lines = page.lines().skip_while(|line| *line != format!("## {heading}")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## ")).skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn code(cell: &str) -> String {
    let name = cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    name.unwrap_or_else(|| panic!("{cell} is no name")).to_owned()
}

/// What the first column names; each once, each with a cause and a remedy.
fn described(heading: &str) -> BTreeSet<String> {
    let rows = table(TROUBLESHOOTING, heading);
    for row in &rows {
        assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "{heading}: {row:?}");
    }
    let names: BTreeSet<String> = rows.iter().map(|row| code(&row[0])).collect();
    assert_eq!(names.len(), rows.len(), "{heading}: one is there twice");
    names
}

fn set(names: impl IntoIterator<Item = &'static str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn each_detail_that_can_be_sent_is_described_and_no_other() {
    assert_eq!(described("Hits"), set([Layer::Exact.as_str(), Layer::Semantic.as_str()]));
    assert_eq!(described("Misses"), set(MissReason::ALL.map(MissReason::as_str)));
    let forwards = [Forward::Miss, Forward::Request, Forward::Stale, Forward::Bypass];
    assert_eq!(described("`fwd=`, and what is not stored"), set(forwards.map(Forward::as_str)));
}

#[test]
fn each_rule_is_described_with_an_example_on_which_it_speaks() {
    let rows = table(TROUBLESHOOTING, "Rules of the guard");
    let names: Vec<_> = rows.iter().map(|row| code(&row[0])).collect();
    assert_eq!(names.iter().cloned().collect::<BTreeSet<_>>(), set(Rule::ALL.iter().map(|rule| rule.name())));
    assert_eq!(names.len(), Rule::ALL.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let rule = Rule::from_name(&code(&row[0])).unwrap();
        let spoke = compare(&row[2], &row[3]).first();
        let kind = if rule.is_certain() { "certain" } else { "doubt" };
        if spoke != Some(rule) || row[1] != kind {
            wrong.push(format!("{row:?}: {spoke:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    let rows = table(TROUBLESHOOTING, "Rules of prompts that are never matched by meaning");
    let names: Vec<_> = rows.iter().map(|row| code(&row[0])).collect();
    assert_eq!(names, Leaning::ALL.iter().map(|leaning| leaning.name()).collect::<Vec<_>>());
    for row in rows.iter().filter(|row| !row[2].is_empty()) {
        assert_eq!(exact_only(&row[2]).map(Leaning::name), Some(code(&row[0]).as_str()), "{row:?}");
    }
}

/// The headings of a page, as links name them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let anchor = |heading: &str| {
        let lower = heading.to_lowercase();
        let kept = lower.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(anchor).collect()
}

/// The links of a folder's pages to what is not there.
fn broken_links(folder: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    let docs = std::fs::read_dir(folder.join("docs")).unwrap();
    let docs = docs.map(|file| format!("docs/{}", file.unwrap().file_name().to_str().unwrap()));
    let pages = docs.filter(|path| Path::new(path).extension().is_some_and(|ending| ending == "md"));
    for path in pages.chain(["README.md".to_owned(), "deploy/README.md".to_owned()]) {
        let page = std::fs::read_to_string(folder.join(&path)).unwrap();
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                folder.join(&path)
            } else {
                folder.join(&path).parent().unwrap().join(file)
            };
            if !target.exists() {
                broken.push(format!("{path}: {link}"));
            } else if !anchor.is_empty() {
                let anchors = anchors(&std::fs::read_to_string(&target).unwrap());
                if !anchors.contains(anchor) {
                    broken.push(format!("{path}: {link} is none of {anchors:?}"));
                }
            }
        }
    }
    broken
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    assert_eq!(broken_links(&root()), [""; 0]);
}

/// Runs `systemd-analyze`; `None`, and says so, where there is none.
fn systemd_analyze(arguments: &[&str], file: &Path) -> Option<(bool, String)> {
    match Command::new("systemd-analyze").args(arguments).arg(file).output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("the unit is not checked, since systemd-analyze is not here (Debian: systemd)");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

/// The unit, with the program that was built here, and the credentials as its drop-in.
fn unit(folder: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let drop_ins = folder.join("rejoinder.service.d");
    std::fs::create_dir_all(&drop_ins).unwrap();
    std::fs::write(drop_ins.join("credentials.conf"), change(text("deploy/systemd/credentials.conf")))
        .unwrap();
    let unit = folder.join("rejoinder.service");
    let program = env!("CARGO_BIN_EXE_rejoinder");
    std::fs::write(
        &unit,
        change(text("deploy/systemd/rejoinder.service")).replace("/usr/bin/rejoinder", program),
    )
    .unwrap();
    unit
}

#[test]
fn systemd_takes_the_unit_and_minds_a_misspelt_one() {
    let folder = tempfile::tempdir().unwrap();
    let unit_file = unit(folder.path(), |text| text);
    let Some((taken, said)) = systemd_analyze(&["verify", "--man=no"], &unit_file) else { return };
    assert!(taken && said.is_empty(), "{said}");
    for (right, wrong) in [
        ("MemoryDenyWriteExecute", "MemoryDenyExecute"),
        ("LoadCredential=hash", "LoadCredentials=hash"),
        ("@privileged", "@privilege"),
    ] {
        let unit_file = unit(folder.path(), |text| text.replace(right, wrong));
        let (_, said) = systemd_analyze(&["verify", "--man=no"], &unit_file).unwrap();
        assert!(!said.is_empty(), "{wrong}");
    }
}

/// 0 is no rights at all, 10 all of them; what is left are sockets, the network and the system's files to read.
#[test]
fn the_service_has_few_rights() {
    let folder = tempfile::tempdir().unwrap();
    let unit_file = unit(folder.path(), |text| text);
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold=15"];
    let Some((few, said)) = systemd_analyze(&arguments, &unit_file) else { return };
    assert!(few, "{said}");
    let unit_file = unit(folder.path(), |text| {
        text.replace("ProtectSystem=strict", "ProtectSystem=no").replace("SystemCallFilter=", "#")
    });
    let (few, said) = systemd_analyze(&arguments, &unit_file).unwrap();
    assert!(!few, "{said}");
}

/// The value of a key of the unit; the last one counts.
fn of_unit(key: &str) -> String {
    let unit = text("deploy/systemd/rejoinder.service");
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.next_back().unwrap_or_else(|| panic!("no {key}")).to_owned()
}

#[test]
fn the_unit_gives_the_time_to_stop_and_secrets_under_the_names_that_are_read() {
    let timeouts = rejoinder::config::Timeouts::default();
    let stop = humantime::parse_duration(&of_unit("TimeoutStopSec")).unwrap();
    assert!(stop > timeouts.drain + timeouts.notice, "{stop:?}");
    // Each credential is used, and rejoinder refuses a file that is not there: so the variable is one that it reads.
    let drop_in = text("deploy/systemd/credentials.conf");
    let lines: Vec<_> = drop_in.lines().map(|line| line.trim_start_matches('#')).collect();
    let given: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("LoadCredential=")).collect();
    assert!(given.len() >= 4);
    for credential in given {
        let (name, _) = credential.split_once(':').unwrap();
        let ending = format!("=%d/{name}");
        let variable = lines.iter().find_map(|line| line.strip_prefix("Environment=")?.strip_suffix(&ending));
        let variable = variable.unwrap_or_else(|| panic!("{name} is not used"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
        let output =
            command.arg("check-config").env_clear().env(variable, "/no/such/secret").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable} is not read");
        assert!(String::from_utf8_lossy(&output.stderr).contains(variable));
    }
}

/// What `deny.toml` has that this test reads. `cargo deny check` reads the rest.
#[derive(Deserialize)]
struct Deny {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Ban>,
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// What the program and its tests are made of for a target, each crate with its version and licence. `cargo metadata`
/// would also have what no feature in use asks for.
fn crates(target: &str) -> BTreeSet<(String, String, String)> {
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "tree",
        "--locked",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ]);
    let output = command.args(["--target", target]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let crates = tree.lines().filter(|line| !line.is_empty()).map(|line| {
        // As in "syn v3.0.10 (proc-macro)|MIT OR Apache-2.0 (*)".
        let (package, license) = line.split_once('|').unwrap();
        let mut words = package.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let version = version.strip_prefix('v').unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), version.to_owned(), license.trim_end_matches(" (*)").to_owned())
    });
    let crates: BTreeSet<_> = crates.filter(|(name, ..)| name != env!("CARGO_PKG_NAME")).collect();
    assert!(crates.len() > 150, "{crates:?}");
    crates
}

/// Reads SPDX expressions: AND binds before OR, and `/` is an old OR.
struct Expression<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<String>>,
    allowed: &'a BTreeSet<&'a str>,
}

impl Expression<'_> {
    fn either(&mut self) -> bool {
        let mut met = self.both();
        while self.tokens.next_if(|token| token == "OR").is_some() {
            met |= self.both();
        }
        met
    }

    fn both(&mut self) -> bool {
        let mut met = self.one();
        while self.tokens.next_if(|token| token == "AND").is_some() {
            met &= self.one();
        }
        met
    }

    fn one(&mut self) -> bool {
        let mut name = self.tokens.next().unwrap_or_default();
        if name == "(" {
            let met = self.either();
            assert_eq!(self.tokens.next().as_deref(), Some(")"));
            return met;
        }
        if self.tokens.next_if(|token| token == "WITH").is_some() {
            name = format!("{name} WITH {}", self.tokens.next().unwrap());
        }
        self.allowed.contains(name.as_str())
    }
}

/// Whether a licence can be met by what is allowed.
fn is_allowed(license: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = license.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<_> = spaced.split_whitespace().map(str::to_owned).collect();
    let mut expression = Expression { tokens: tokens.into_iter().peekable(), allowed };
    let met = expression.either();
    assert_eq!(expression.tokens.next(), None, "{license}");
    met
}

/// The part of a version that two crates may not share a program across: 1 of 1.2.3, 0.4 of 0.4.1.
fn major(version: &str) -> String {
    let mut parts = version.split('.');
    let first = parts.next().unwrap();
    if first == "0" { format!("0.{}", parts.next().unwrap()) } else { first.to_owned() }
}

/// What `cargo deny check bans licenses sources` says, without cargo-deny, which takes minutes to build.
#[test]
fn what_it_is_made_of_is_what_deny_toml_allows() {
    let deny: Deny = toml::from_str(&text("deny.toml")).unwrap();
    let allowed: BTreeSet<_> = deny.licenses.allow.iter().map(String::as_str).collect();
    let mut wrong = Vec::new();
    let mut skipped = BTreeSet::new();
    for target in &deny.graph.targets {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, version, license) in crates(target) {
            if !is_allowed(&license, &allowed) {
                wrong.push(format!("{name} {version}: the licence {license:?} is not allowed"));
            }
            if deny.bans.deny.iter().any(|ban| ban.name == name) {
                wrong.push(format!("{name} {version} is banned"));
            }
            versions.entry(name).or_default().insert(version);
        }
        for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
            let names: Vec<_> = versions.iter().map(|version| format!("{name}@{}", major(version))).collect();
            let (known, unknown): (Vec<_>, Vec<_>) =
                names.into_iter().partition(|name| deny.bans.skip.iter().any(|skip| skip.name == *name));
            skipped.extend(known);
            if unknown.len() > 1 {
                wrong.push(format!("{unknown:?}: two versions, and no reason in deny.toml"));
            }
        }
    }
    for ban in deny.bans.skip.iter().chain(&deny.bans.deny) {
        assert!(ban.reason.len() > 10, "{}: without a reason", ban.name);
    }
    let unused = deny.bans.skip.iter().filter(|skip| !skipped.contains(&skip.name));
    wrong.extend(
        unused.map(|skip| format!("{}: no longer two versions of it: take it out of deny.toml", skip.name)),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_is_from_crates_io_and_pinned_by_its_checksum() {
    let lock: toml::Value = toml::from_str(&text("Cargo.lock")).unwrap();
    for package in lock["package"].as_array().unwrap() {
        if package["name"].as_str() == Some(env!("CARGO_PKG_NAME")) {
            continue;
        }
        let source = package.get("source").and_then(toml::Value::as_str);
        assert_eq!(source, Some("registry+https://github.com/rust-lang/crates.io-index"), "{package}");
        assert!(package.get("checksum").is_some(), "{package}");
    }
}

#[test]
fn licences_are_read_as_spdx_has_them() {
    let allowed = BTreeSet::from(["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]);
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT OR GPL-3.0-only", true),
        ("MIT AND GPL-3.0-only", false),
        ("Apache-2.0/MIT", true),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(GPL-3.0-only OR Apache-2.0) AND Unicode-3.0", false),
        ("GPL-3.0-only OR MIT AND Unicode-3.0", true),
    ] {
        assert_eq!(is_allowed(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn the_licences_of_what_it_is_made_of_come_with_it() {
    match Command::new("python3").arg("scripts/licenses").arg("--check").current_dir(root()).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("python3: {error}; scripts/test installs it"),
    }
}

/// What cargo-cyclonedx writes, as far as `scripts/sbom` reads it: this crate by the folder of a machine, and crates.
fn sbom<'a>(crates: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let itself = "path+file:///home/somebody/rejoinder#rejoinder@0.1.0";
    let part = |(name, version): (&str, &str)| json!({"bom-ref": format!("registry#{name}@{version}"), "name": name, "version": version});
    let components: Vec<_> = crates.map(part).collect();
    let refs: Vec<_> = components.iter().map(|part| part["bom-ref"].clone()).collect();
    let mut dependencies = vec![json!({"ref": itself, "dependsOn": refs})];
    dependencies.extend(refs.iter().map(|one| json!({"ref": one})));
    json!({
        "metadata": {"component": {
            "bom-ref": itself,
            "name": "rejoinder",
            "version": env!("CARGO_PKG_VERSION"),
            "purl": "pkg:cargo/rejoinder@0.1.0?download_url=file://.",
            "components": [{"bom-ref": format!("{itself} bin-target-0")}],
        }},
        "components": components,
        "dependencies": dependencies,
    })
}

/// What `scripts/sbom` makes of it, or says about it.
fn tidied(sbom: &Value, target: &str) -> Result<Value, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rejoinder.cdx.json");
    std::fs::write(&file, sbom.to_string()).unwrap();
    let mut command = Command::new("python3");
    let output = command.arg(root().join("scripts/sbom")).arg(&file).arg(target).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("file://") && !text.contains("/home/somebody"), "{text}");
    Ok(serde_json::from_str(&text).unwrap())
}

#[test]
fn the_sbom_has_what_the_program_is_made_of_alone() {
    let target = "x86_64-unknown-linux-gnu";
    // Tests' crates are among them, as cargo-cyclonedx has others that are not in the program.
    let crates = crates(target);
    let all = || crates.iter().map(|(name, version, _)| (name.as_str(), version.as_str()));
    let made = tidied(&sbom(all()), target).unwrap();
    let parts = made["components"].as_array().unwrap();
    let has = |name: &str| parts.iter().any(|part| part["name"] == name);
    assert!(has("tokio") && has("redb") && !has("proptest") && !has("roxmltree"), "{made}");
    let dependencies = made["dependencies"].as_array().unwrap();
    assert_eq!(dependencies.len(), parts.len() + 1);
    assert_eq!(dependencies[0]["ref"], made["metadata"]["component"]["bom-ref"]);
    assert_eq!(dependencies[0]["dependsOn"].as_array().unwrap().len(), parts.len());

    let without = tidied(&sbom(all().filter(|(name, _)| *name != "tokio")), target);
    assert!(without.as_ref().is_err_and(|said| said.contains("tokio")), "{without:?}");
}

/// What `cargo deb` would put into the package is there, or made by scripts/package.
#[test]
fn the_debian_package_has_what_it_names() {
    let manifest: toml::Value = toml::from_str(&text("Cargo.toml")).unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let package = text("scripts/package");
    let mut targets = Vec::new();
    for asset in deb["assets"].as_array().unwrap() {
        let source = asset[0].as_str().unwrap();
        targets.push(asset[1].as_str().unwrap());
        match source.strip_prefix("target/package/") {
            Some(made) => assert!(
                package.contains(&format!("$out/{}", made.trim_end_matches("*.1").trim_end_matches('/')))
                    || package.contains(made),
                "{source}"
            ),
            None => assert!(root().join(source.trim_end_matches('*')).exists(), "{source}"),
        }
    }
    assert!(targets.contains(&"etc/rejoinder/") && targets.contains(&"usr/share/man/man1/"));
    // Without a script that has the token, cargo-deb leaves out what the unit needs at upgrade and removal.
    for script in ["postinst", "prerm", "postrm"] {
        let path = format!("{}/{script}", deb["maintainer-scripts"].as_str().unwrap());
        assert!(text(&path).lines().any(|line| line == "#DEBHELPER#"), "{path}");
    }
    assert_eq!(deb["conf-files"][0].as_str(), Some("/etc/rejoinder/rejoinder.toml"));
    assert!(of_unit("ExecStart").ends_with("--config /etc/rejoinder/rejoinder.toml"));
    // The line that scripts/package makes a setting of.
    assert!(text("config/rejoinder.toml").lines().any(|line| line == "# data_dir = \"/var/lib/rejoinder\""));
    assert_eq!(of_unit("StateDirectory"), "rejoinder");
}

/// What of the sources the Debian package lays beside its documentation, in a folder.
fn documentation_of_the_package(folder: &Path) {
    let manifest: toml::Value = toml::from_str(&text("Cargo.toml")).unwrap();
    for asset in manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap() {
        let (source, target) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
        let Some(target) = target.strip_prefix("usr/share/doc/rejoinder/") else { continue };
        let sources: Vec<_> = match source.strip_suffix("/*") {
            Some(all) => {
                std::fs::read_dir(root().join(all)).unwrap().map(|file| file.unwrap().path()).collect()
            }
            None if source.starts_with("target/") => continue,
            None => vec![root().join(source)],
        };
        for source in sources {
            let mut to = folder.join(target);
            if target.is_empty() || target.ends_with('/') {
                to.push(source.file_name().unwrap());
            }
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&source, &to).unwrap();
        }
    }
}

#[test]
fn the_pages_in_the_debian_package_refer_to_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    documentation_of_the_package(folder.path());
    assert_eq!(broken_links(folder.path()), [""; 0]);
}

/// The archive that `scripts/package` makes, unpacked into a folder; of a program that calls the one built here.
fn archive(folder: &Path) -> PathBuf {
    // The sources, so that target/package of this checkout stays what it is.
    let sources = folder.join("sources");
    std::fs::create_dir(&sources).unwrap();
    for entry in std::fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "target" && entry.file_name() != ".git" {
            std::os::unix::fs::symlink(entry.path(), sources.join(entry.file_name())).unwrap();
        }
    }
    let program = folder.join("rejoinder");
    let calls = format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_rejoinder"));
    std::fs::write(&program, calls).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(sources.join("scripts/package"));
    command
        .arg("--binary")
        .arg(&program)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .env_remove("CARGO_TARGET_DIR");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = std::fs::read_dir(sources.join("target/package")).unwrap().map(|file| file.unwrap().path());
    let archive =
        made.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "gz")).unwrap();
    let unpacked =
        Command::new("tar").args(["--extract", "--file"]).arg(&archive).current_dir(folder).status();
    assert!(unpacked.unwrap().success());
    folder.join(archive.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz"))
}

#[test]
fn the_archive_has_what_its_pages_and_its_unit_refer_to() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path());
    assert_eq!(broken_links(&archive), [""; 0]);
    let unit = std::fs::read_to_string(archive.join("deploy/systemd/rejoinder.service")).unwrap();
    let by_hand: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("#   install ")).collect();
    assert_eq!(by_hand.len(), 3, "{unit}");
    for line in by_hand {
        // The file is the word before where it goes.
        let words: Vec<_> = line.split_whitespace().take_while(|word| *word != "#").collect();
        assert!(archive.join(words[words.len() - 2]).is_file(), "{line}");
    }
    for part in
        ["LICENSE", "THIRD-PARTY-LICENSES", "CHANGELOG.md", "man/rejoinder.1", "completions/_rejoinder"]
    {
        assert!(archive.join(part).is_file(), "{part}");
    }
}

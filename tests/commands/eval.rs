//! `rejoinder eval` measures what `rejoinder serve` does with labelled pairs.

use rejoinder::config::EmbedderKind;
use serde_json::{Value, json};

use crate::support::program::{file, output, output_with, rejoinder};
use crate::support::{PARAPHRASE, QUESTION, proxy_with, semantic_proxy, upstream};

/// One pair for each thing that can become of one, columns in an order of their own.
const PAIRS: &str = "\
kind,label,b,a,source
blanks,1,What  is the capital of France? ,What is the capital of France?,one
para,1,What is the capital city of France?,What is the capital of France?,one
para,1,Which dressings go well with rocket?,How do I centre a div?,two
hard,0,\"Sort the list in \"\"descending\"\" order\",\"Sort the list in \"\"ascending\"\" order\",one
hard,0,How do I reverse a list in Python?,What is the capital of France?,two
leaning,0,What is the weather in Oslo today?,What is the weather in Oslo?,two
";

async fn report(arguments: &[&str]) -> Value {
    let (code, out, err) = output(rejoinder(&[&["eval", "--json"], arguments].concat())).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(err, "", "no progress bar where there is no terminal");
    serde_json::from_str(&out).unwrap()
}

fn counts(rate: &Value) -> (u64, u64) {
    (rate["count"].as_u64().unwrap(), rate["of"].as_u64().unwrap())
}

#[tokio::test]
async fn every_figure_of_a_small_file() {
    let pairs = file(".csv", PAIRS);
    let report = report(&[pairs.path().to_str().unwrap(), "--max-error", "0.5"]).await;
    assert_eq!(
        report["pairs"],
        json!({"total": 6, "positive": 3, "negative": 3, "negative_but_equal": 0, "skipped": []})
    );
    assert_eq!(report["embedder"], "builtin/all-MiniLM-L6-v2/1");
    assert_eq!(report["both_ways"], false);
    let configured = &report["configured"];
    assert_eq!(
        configured["recall"],
        json!({"count": 2, "of": 3, "value": 0.666_667, "low": 0.207_66, "high": 0.938_508})
    );
    assert_eq!(counts(&configured["precision"]), (2, 2));
    assert_eq!(counts(&configured["false_hit_rate"]), (0, 3));
    assert_eq!(counts(&configured["hit_rate"]), (2, 6));
    assert_eq!(
        report["outcomes"],
        json!({
            "below-threshold": {"positive": 1, "negative": 1},
            "exact": {"positive": 1, "negative": 0},
            "exact-only": {"positive": 0, "negative": 1},
            "guard-rejected": {"positive": 0, "negative": 1},
            "semantic": {"positive": 1, "negative": 0},
        })
    );
    assert_eq!(
        report["rules"],
        json!({
            "moment": {"positive": 0, "negative": 1},
            "quoted": {"positive": 0, "negative": 1},
        })
    );
    let kinds: Vec<_> = report["kinds"].as_array().unwrap().iter().map(|kind| &kind["name"]).collect();
    assert_eq!(kinds, ["blanks", "hard", "leaning", "para"]);
    assert_eq!(counts(&report["kinds"][3]["recall"]), (1, 2));
    assert_eq!(report["kinds"][3]["false_hit_rate"], Value::Null);
    let sources: Vec<_> = report["sources"].as_array().unwrap().iter().map(|kind| &kind["name"]).collect();
    assert_eq!(sources, ["one", "two"]);
    let recommended = &report["recommended"];
    assert_eq!(recommended["max_error"], 0.5);
    assert_eq!((&recommended["negatives_needed"], &recommended["can_be_shown"]), (&json!(4), &json!(false)));
    assert_eq!(counts(&recommended["similarity_threshold"]["observed"]["recall"]), (2, 3));
    assert_eq!(recommended["similarity_threshold"]["shown"], Value::Null);
    // What is stricter reuses no more.
    for table in ["by_similarity", "by_confidence"] {
        let points = report[table].as_array().unwrap();
        assert!(points.contains(configured), "{table} has the configured point");
        let reused: Vec<_> = points.iter().map(|point| counts(&point["hit_rate"]).0).collect();
        assert!(reused.is_sorted_by(|less, more| less >= more), "{table}: {reused:?}");
        assert_eq!(reused.last(), Some(&1), "the exact layer asks no threshold");
    }
}

/// Not a copy of the decision: the same pairs, asked of a proxy over HTTP.
#[tokio::test]
async fn a_proxy_says_the_same() {
    let pairs = file(".csv", PAIRS);
    let rows = file(".csv", "");
    report(&[pairs.path().to_str().unwrap(), "--rows", rows.path().to_str().unwrap()]).await;
    let mut rows = csv::Reader::from_path(rows.path()).unwrap();
    let rows: Vec<Vec<String>> =
        rows.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
    assert_eq!(rows.len(), 6);
    let upstream = upstream().await;
    for row in rows {
        let [line, stored, asked, label, kind, source, outcome, similarity, confidence, _, score, _] =
            row.as_slice().try_into().map(|row: &[String; 12]| row.each_ref()).unwrap();
        assert!((2..=7).contains(&line.parse::<u32>().unwrap()), "{row:?}");
        assert!(
            PAIRS.lines().any(|line| line.starts_with(&format!("{kind},{label},")) && line.ends_with(source))
        );
        let proxy = semantic_proxy(&upstream).await;
        let body = |prompt| json!({"model": "m", "messages": [{"role": "user", "content": prompt}]});
        proxy.post("/v1/chat/completions", &body(stored)).send().await;
        let reply = proxy.post("/v1/chat/completions", &body(asked)).send().await;
        assert!(
            reply.cache_status().ends_with(&format!("detail={outcome}")),
            "{row:?}: {}",
            reply.cache_status()
        );
        let decimals = [(similarity, "x-rejoinder-similarity"), (confidence, "x-rejoinder-confidence")];
        for (measured, name) in decimals {
            let Some(served) = reply.header(name) else {
                assert_eq!(outcome, "exact-only");
                continue;
            };
            // The proxy asks the verifier of nothing that is not similar enough.
            if name.ends_with("confidence") && outcome == "below-threshold" && !score.is_empty() {
                continue;
            }
            let (served, measured) = (served.parse::<f64>().unwrap(), measured.parse::<f64>().unwrap());
            assert!((served - measured).abs() < 1e-3, "{name} of {row:?}: {served}");
        }
    }
}

#[tokio::test]
async fn the_other_way_round_counts_twice_and_widens_nothing() {
    let pairs = file(".csv", PAIRS);
    let path = pairs.path().to_str().unwrap();
    let (once, twice) = (report(&[path]).await, report(&[path, "--both-ways"]).await);
    assert_eq!(twice["both_ways"], true);
    assert_eq!(twice["pairs"], once["pairs"]);
    let (single, double) = (&once["configured"]["recall"], &twice["configured"]["recall"]);
    assert_eq!(counts(double), (4, 6));
    for field in ["value", "low", "high"] {
        assert_eq!(single[field], double[field], "{field}");
    }
}

#[tokio::test]
async fn standard_input_and_json_lines_are_read() {
    let lines = [
        json!({"a": QUESTION, "b": PARAPHRASE, "label": 1}),
        json!({"a": "Name 5 rivers", "b": "Name 6 rivers", "label": false, "kind": "number"}),
    ];
    let text = lines.map(|line| line.to_string()).join("\n");
    for format in [&["--format", "jsonl"][..], &[]] {
        let arguments = [&["eval", "-", "--json"], format].concat();
        let (code, out, err) = output_with(rejoinder(&arguments), &text).await;
        assert_eq!(code, Some(0), "{err}");
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["file"], "-");
        assert_eq!(counts(&report["configured"]["recall"]), (1, 1));
        assert_eq!(counts(&report["configured"]["false_hit_rate"]), (0, 1));
    }
    let named = file(".jsonl", &text);
    assert_eq!(report(&[named.path().to_str().unwrap()]).await["pairs"]["total"], 2);
}

#[tokio::test]
async fn bad_lines_are_named_and_refused_or_left_out() {
    let pairs = file(".csv", "a,b,label\nx,y,1\nx,y\nx,,1\nx,y,perhaps\n");
    let path = pairs.path().to_str().unwrap();
    let (code, out, err) = output(rejoinder(&["eval", path])).await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    for line in [
        "3: it has 2 fields, and label is field 3",
        "4: b is empty",
        "5: label \"perhaps\" is neither 1 nor 0",
    ] {
        assert!(err.contains(&format!("{path}:{line}\n")), "{line}: {err}");
    }
    assert!(err.contains("--skip-bad"), "{err}");

    let (code, out, err) = output(rejoinder(&["eval", path, "--skip-bad", "--json"])).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("4: b is empty"), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["pairs"]["total"], 1);
    assert_eq!(report["pairs"]["skipped"][1], json!({"line": 4, "reason": "b is empty"}));
}

#[tokio::test]
async fn the_plot_is_well_formed_and_shows_each_curve_and_bin() {
    let folder = tempfile::tempdir().unwrap();
    // A name that must not become markup.
    let pairs = folder.path().join("a<b>&c.csv");
    std::fs::write(&pairs, PAIRS).unwrap();
    let plot = folder.path().join("plot.svg");
    let report = report(&[pairs.to_str().unwrap(), "--plot", plot.to_str().unwrap()]).await;
    let text = std::fs::read_to_string(&plot).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let of_class = |class: &str| {
        document.descendants().filter(|node| node.attribute("class") == Some(class)).collect::<Vec<_>>()
    };
    let title = document.descendants().find(|node| node.tag_name().name() == "title").unwrap();
    assert!(title.text().unwrap().ends_with("a<b>&c.csv"), "{title:?}");
    let bins = report["reliability"]["bins"].as_array().unwrap().len();
    assert_eq!(of_class("bin").len(), bins);
    assert!(bins > 0);
    // The two curves, and their keys.
    assert_eq!((of_class("line a").len(), of_class("line b").len()), (2, 2));
    assert!(of_class("line b")[0].attribute("d").unwrap().matches('L').count() >= 2);
    assert!(text.contains("prefers-color-scheme:dark"));
    // Where it cannot be written there is no report either.
    let nowhere = folder.path().join("missing").join("plot.svg");
    let arguments = ["eval", pairs.to_str().unwrap(), "--plot", nowhere.to_str().unwrap()];
    let (code, out, err) = output(rejoinder(&arguments)).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("cannot write"), "{err}");
}

/// Prompts that the guard passes, nearer ones labelled 1 and farther ones 0.
fn calibrating() -> String {
    let towns = "Aachen Bergen Cardiff Dresden Essen Faro Ghent Hobart Izmir Jena Krakow Lyon Malmo Nantes Osaka \
                 Porto Quito Riga Sofia Tunis Utrecht Vienna Warsaw Zagreb";
    let pairs = towns.split(' ').map(|town| {
        let asked = format!("How do I get to {town}?");
        format!("{asked},How can I get to {town}?,1\n{asked},Hello! {asked} Thanks a lot!,0\n")
    });
    std::iter::once("a,b,label\n".to_owned()).chain(pairs).collect()
}

#[tokio::test]
async fn a_calibration_is_written_and_taken() {
    let pairs = file(".csv", &calibrating());
    let pairs = pairs.path().to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (calibration, config, rows) = (path("calibration.toml"), path("rejoinder.toml"), path("rows.csv"));
    // Of similarity, which tells these apart; to the verifier they are all the same.
    std::fs::write(&config, "[cache]\nverifier = false\n").unwrap();
    let fitted =
        report(&[pairs, "--config", &config, "--calibrate", &calibration]).await["calibration"].clone();
    assert_eq!(fitted["basis"], "similarity");
    assert_eq!((&fitted["pairs"], &fitted["positive"]), (&json!(48), &json!(24)));
    assert_eq!(fitted["embedder"], "builtin/all-MiniLM-L6-v2/1");
    let [intercept, slope] = ["intercept", "slope"].map(|name| fitted[name].as_f64().unwrap());
    let expected = |similarity: f64| 1.0 / (1.0 + (-slope.mul_add(similarity, intercept)).exp());

    // By the next evaluation …
    std::fs::write(&config, format!("[cache]\nverifier = false\ncalibration = {calibration:?}\n")).unwrap();
    report(&[pairs, "--config", &config, "--rows", &rows]).await;
    let mut count = 0;
    for row in csv::Reader::from_path(&rows).unwrap().records() {
        let row = row.unwrap();
        let [similarity, confidence] = [&row[7], &row[8]].map(|field| field.parse::<f64>().unwrap());
        assert!((expected(similarity) - confidence).abs() < 1e-3, "{row:?}");
        count += 1;
    }
    assert_eq!(count, 48);

    // … and by the proxy.
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.cache.verifier = false;
        config.cache.calibration = Some(calibration.clone().into());
        config.cache.min_confidence = Some(0.0);
    })
    .await;
    let body = |prompt| json!({"model": "m", "messages": [{"role": "user", "content": prompt}]});
    proxy.post("/v1/chat/completions", &body(QUESTION)).send().await;
    let hit = proxy.post("/v1/chat/completions", &body(PARAPHRASE)).send().await;
    assert_eq!(hit.layer(), Some("semantic"));
    let [similarity, confidence] = ["x-rejoinder-similarity", "x-rejoinder-confidence"]
        .map(|name| hit.header(name).unwrap().parse::<f64>().unwrap());
    assert!((expected(similarity) - confidence).abs() < 1e-2, "{similarity} {confidence}");
}

#[tokio::test]
async fn a_calibration_that_does_not_fit_is_refused() {
    let pairs = file(".csv", PAIRS);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (calibration, config) = (path("calibration.toml"), path("rejoinder.toml"));
    let pairs = pairs.path().to_str().unwrap();
    let (code, out, err) = output(rejoinder(&["eval", pairs, "--calibrate", &calibration])).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("a calibration takes 20 of each"), "{err}");
    assert!(!std::path::Path::new(&calibration).exists());

    let other = "version = 2\nbasis = \"verifier\"\nembedder = \"ollama/other\"\nintercept = -9.0\nslope = 12.0\npairs = 50\n\
                 positive = 25\nexpected_calibration_error = 0.1\n";
    std::fs::write(&calibration, other).unwrap();
    std::fs::write(&config, format!("[cache]\ncalibration = {calibration:?}\n")).unwrap();
    for command in
        [&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"][..], &["eval", pairs]]
    {
        let (code, _, err) = output(rejoinder(&[command, &["--config", &config]].concat())).await;
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("ollama/other") && err.contains("builtin/all-MiniLM-L6-v2/1"), "{err}");
    }
}

#[tokio::test]
async fn wrong_usage_is_told_with_exit_code_2() {
    let good = file(".csv", PAIRS);
    let good = good.path().to_str().unwrap();
    let (empty, headless) = (file(".csv", "a,b,label\n"), file(".csv", "x,y,1\n"));
    let empty = empty.path().to_str().unwrap();
    let headless = headless.path().to_str().unwrap();
    for (arguments, reason) in [
        (&["/nowhere/pairs.csv"][..], "cannot read /nowhere/pairs.csv"),
        (&[empty], "there are no pairs in it"),
        (&[headless], "the column a is missing"),
        (&[good, "--max-error", "2"], "2 is not between 0 and 1"),
        (&[good, "--embedder", "off"], "nothing to measure"),
        (&[good, "--similarity-threshold", "7"], "similarity_threshold"),
        (&[good, "--format", "xml"], "possible values: csv, jsonl"),
    ] {
        let (code, out, err) = output(rejoinder(&[&["eval"], arguments].concat())).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {err}");
        assert!(err.contains(reason), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn an_embedder_that_fails_leaves_no_report() {
    let pairs = file(".csv", PAIRS);
    let path = pairs.path().to_str().unwrap();
    // A port that nobody listens on: it was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let (code, out, err) =
        output(rejoinder(&["eval", path, "--embedder", "ollama", "--embedder-url", &url])).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("were not embedded"), "{err}");
}

#[tokio::test]
async fn people_read_a_table_and_help_tells_the_exit_codes() {
    let pairs = file(".csv", PAIRS);
    let (code, out, _) = output(rejoinder(&["eval", pairs.path().to_str().unwrap()])).await;
    assert_eq!(code, Some(0));
    for part in [
        "6 pairs, 3 with one answer, 3 with different ones",
        "Area under the ROC curve",
        "recall          0.667 (0.208-0.939), 2 of 3",
        "These pairs cannot show it",
        "It takes 189 of them.",
        "quoted",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, help, _) = output(rejoinder(&["eval", "--help"])).await;
    assert_eq!(code, Some(0));
    assert!(help.contains("Exit codes: 0 measured") && !help.contains("--listen"), "{help}");
}

#[tokio::test]
async fn mode_verified_is_simulated_over_the_prompts_of_the_pairs() {
    let pairs = file(".csv", PAIRS);
    let plot = tempfile::NamedTempFile::new().unwrap();
    let path = pairs.path().to_str().unwrap();
    let flags = ["--simulate-verified", "--runs", "2", "--requests", "400", "--lifetime", "20"];
    let plotted = ["--max-error", "0.3", "--plot", plot.path().to_str().unwrap()];
    let simulation = report(&[&[path][..], &flags, &plotted].concat()).await;
    assert_eq!((&simulation["prompts"], &simulation["needs"]), (&json!(9), &json!(7)));
    assert_eq!(simulation["plan"]["limits"]["max_error"], 0.3);
    let runs = simulation["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        let count = |name: &str| run["end"][name].as_u64().unwrap();
        assert_eq!(count("requests") + run["exact"].as_u64().unwrap(), 400);
        assert!(count("served") + count("explored") <= count("candidates"), "{run}");
        assert!(count("explored") > 0, "{run}");
        assert!(count("wrong") <= count("served"), "{run}");
        assert_eq!(run["curve"].as_array().unwrap().len(), 100);
    }
    let drawn = std::fs::read_to_string(plot.path()).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"));
    assert_eq!(drawn.matches("<title>the bound</title>").count(), 1);

    let (code, out, err) = output(rejoinder(&[&["eval", path][..], &flags].concat())).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("runs that ended over the limit: 0.0 %"), "{out}");
    let (code, _, err) = output(rejoinder(&["eval", path, "--runs", "2"])).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("--simulate-verified"), "{err}");
}

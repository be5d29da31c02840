//! What lies in `deploy/` is of the form that Compose and Kubernetes accept, by checkers that need neither a container
//! engine nor a cluster. That each checker can fail is tested as well.

use std::path::Path;

use serde_json::Value;

use crate::support::deployment::{
    COMPOSE_FILES, KUSTOMIZATIONS, checker, deploy, documents, find, kustomize, printed, rendered, run,
    secret_template,
};

/// The oldest version of Kubernetes that the manifests are for, and the newest that the checker knows.
const KUBERNETES: [&str; 2] = ["1.30.0", "1.37.0"];

/// Whether the schemas of this version of Kubernetes accept the document, and what the checker says.
fn accepted(document: &Value, version: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("document.yaml");
    std::fs::write(&file, document.to_string()).unwrap();
    run(checker("kubernetes-validate").args(["--strict", "--kubernetes-version", version]).arg(file))
}

#[test]
fn compose_files_follow_the_compose_specification() {
    for name in COMPOSE_FILES {
        let (valid, said) = run(checker("check-jsonschema")
            .args(["--builtin-schema", "vendor.compose-spec"])
            .arg(deploy().join(name)));
        assert!(valid, "{name}: {said}");
    }
}

#[test]
fn a_misspelt_key_of_a_compose_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    for name in COMPOSE_FILES {
        let text = std::fs::read_to_string(deploy().join(name)).unwrap();
        for (right, wrong) in
            [("read_only: true", "readonly: true"), ("stop_grace_period: 45s", "stop_grace_period: []")]
        {
            assert!(text.contains(right), "{name}: {right}");
            std::fs::write(&file, text.replace(right, wrong)).unwrap();
            let (valid, said) =
                run(checker("check-jsonschema").args(["--builtin-schema", "vendor.compose-spec"]).arg(&file));
            assert!(!valid, "{name}: {wrong}: {said}");
        }
    }
}

#[test]
fn manifests_follow_the_schemas_of_kubernetes() {
    for version in KUBERNETES {
        for name in KUSTOMIZATIONS {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("rendered.yaml");
            std::fs::write(&file, printed(&mut kustomize(&deploy().join("kubernetes").join(name)))).unwrap();
            let (valid, said) = run(checker("kubernetes-validate")
                .args(["--strict", "--kubernetes-version", version])
                .arg(&file));
            assert!(valid, "{name}, Kubernetes {version}: {said}");
            assert_eq!(said.matches(" passed for resource ").count(), documents(&file).len(), "{said}");
        }
        let (valid, said) = accepted(&secret_template(), version);
        assert!(valid, "{said}");
    }
}

#[test]
fn a_misspelt_field_of_each_kind_is_noticed() {
    let mut documents = rendered("with-redis");
    documents.push(secret_template());
    let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    for kind in [
        "Deployment",
        "StatefulSet",
        "Service",
        "ConfigMap",
        "Secret",
        "ServiceAccount",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
    ] {
        assert!(kinds.contains(&kind), "{kind}");
    }
    for document in &documents {
        let mut misspelt = document.clone();
        let fields = if document.get("spec").is_some() { &mut misspelt["spec"] } else { &mut misspelt };
        let fields = fields.as_object_mut().unwrap();
        let name = fields.keys().find(|name| !["kind", "apiVersion", "metadata"].contains(&name.as_str()));
        let name = name.unwrap().clone();
        let value = fields.remove(&name).unwrap();
        fields.insert(format!("{name}s"), value);
        for version in KUBERNETES {
            let (valid, said) = accepted(&misspelt, version);
            assert!(!valid, "{}: {name}s: {said}", document["kind"]);
        }
    }
    // Deep inside, too.
    let mut misspelt = find(&documents, "Deployment", "rejoinder").clone();
    let probe = &mut misspelt["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"];
    probe["paht"] = probe["path"].take();
    let (valid, said) = accepted(&misspelt, KUBERNETES[0]);
    assert!(!valid && said.contains("paht"), "{said}");
}

#[test]
fn a_kustomization_that_names_what_is_not_there_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["resources: [missing.yaml]\n", "resorces: []\n"] {
        std::fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
        let (rendered, said) = run(&mut kustomize(folder.path()));
        assert!(!rendered, "{text}: {said}");
    }
}

#[test]
fn the_dockerfile_has_nothing_that_a_linter_minds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
    let (clean, said) = run(checker("hadolint").arg(&file));
    assert!(clean, "{said}");
    let text = std::fs::read_to_string(&file).unwrap();
    for line in ["USER 65532:65532", "FROM scratch"] {
        assert!(text.lines().any(|written| written == line), "{line}");
    }
    assert!(text.contains("HEALTHCHECK") && text.contains(r#"CMD ["/rejoinder", "healthcheck"]"#));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Dockerfile");
    std::fs::write(&file, text.replace("WORKDIR /src", "WORKDIR src")).unwrap();
    let (clean, said) = run(checker("hadolint").arg(&file));
    assert!(!clean && said.contains("DL3000"), "{said}");
}

//! The files of `deploy/` agree with each other and with rejoinder: names lead somewhere, every setting is one that
//! rejoinder reads, whoever stops is given the time, and nobody has more rights than it needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rejoinder::config::Timeouts;
use serde_json::{Value, json};

use crate::support::deployment::{
    COMPOSE_FILES, KUSTOMIZATIONS, compose, containers, deploy, find, pods, rendered, run, secret_template,
};

fn duration(value: &Value) -> Duration {
    humantime::parse_duration(value.as_str().unwrap()).unwrap()
}

fn bytes(text: &str) -> u64 {
    let digits: u64 = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).parse().unwrap();
    match text.trim_start_matches(|letter: char| letter.is_ascii_digit()) {
        "mb" => digits << 20,
        "G" | "Gi" => digits << 30,
        unit => panic!("{unit}"),
    }
}

/// The schema does not look where names lead.
#[test]
fn what_compose_files_name_is_there() {
    for name in COMPOSE_FILES {
        let file = compose(name);
        let services = file["services"].as_object().unwrap();
        for (service, settings) in services {
            let place = format!("{name}: {service}");
            for dependency in settings["depends_on"].as_object().into_iter().flat_map(|map| map.keys()) {
                assert!(services.contains_key(dependency), "{place}: {dependency}");
                // Compose waits for it to be healthy: somebody must say when it is.
                let checked = services[dependency].get("healthcheck").is_some() || dependency == "rejoinder";
                assert!(checked, "{place}: {dependency} has no health check");
            }
            for secret in settings["secrets"].as_array().into_iter().flatten() {
                let file = file["secrets"][secret.as_str().unwrap()]["file"].as_str();
                let file = file.unwrap_or_else(|| panic!("{place}: {secret}"));
                assert!(file.starts_with("secrets/"), "{place}: git ignores deploy/secrets, not {file}");
            }
            for network in settings["networks"].as_array().into_iter().flatten() {
                assert!(file["networks"].get(network.as_str().unwrap()).is_some(), "{place}: {network}");
            }
            for volume in settings["volumes"].as_array().into_iter().flatten() {
                let source = volume.as_str().unwrap().split(':').next().unwrap();
                let known = match source.strip_prefix("./") {
                    Some(path) => deploy().join(path).is_file(),
                    None => file["volumes"].get(source).is_some(),
                };
                assert!(known, "{place}: {source}");
            }
            for port in settings["ports"].as_array().into_iter().flatten() {
                assert!(
                    port.as_str().unwrap().starts_with("127.0.0.1:"),
                    "{place}: {port} is open to everybody"
                );
            }
            for (variable, value) in settings["environment"].as_object().into_iter().flatten() {
                if variable.ends_with("_FILE") {
                    let secret = value.as_str().unwrap().strip_prefix("/run/secrets/").unwrap();
                    let given = settings["secrets"].as_array().unwrap();
                    assert!(given.iter().any(|name| name == secret), "{place}: {variable}");
                }
            }
        }
    }
}

/// `rejoinder check-config` with this environment alone.
fn check_config(environment: &BTreeMap<String, String>) -> (bool, String) {
    run(Command::new(env!("CARGO_BIN_EXE_rejoinder")).arg("check-config").env_clear().envs(environment))
}

/// A container's settings, its secrets and its configuration laid into `folder`.
fn environment<'a>(
    variables: impl Iterator<Item = (&'a str, &'a str)>,
    configuration: Option<&str>,
    folder: &Path,
) -> BTreeMap<String, String> {
    let laid = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let value = |name: &str, value: &str| {
        if name == "REJOINDER_CONFIG" {
            return laid("rejoinder.toml", configuration.unwrap());
        }
        if name.ends_with("_FILE") {
            return laid(value.rsplit('/').next().unwrap(), "a secret of 27 characters..\n");
        }
        // ${NAME:-default}, as Compose has it.
        let default = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')?.split_once(":-"));
        default.map_or(value, |(_, default)| default).to_owned()
    };
    variables.map(|(name, text)| (name.to_owned(), value(name, text))).collect()
}

/// The environment of each container of rejoinder in `deploy/`, with where it is from.
fn environments(folder: &Path) -> Vec<(String, BTreeMap<String, String>)> {
    let mut all = Vec::new();
    for name in COMPOSE_FILES {
        let file = compose(name);
        let variables = file["services"]["rejoinder"]["environment"].as_object().unwrap();
        let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
        let configuration = std::fs::read_to_string(deploy().join("replica.toml")).unwrap();
        all.push((name.to_owned(), environment(variables, Some(&configuration), folder)));
    }
    for name in KUSTOMIZATIONS {
        let documents = rendered(name);
        let configuration = (name != "sidecar")
            .then(|| find(&documents, "ConfigMap", "rejoinder")["data"]["rejoinder.toml"].as_str().unwrap());
        let pods = pods(&documents);
        let container =
            pods.iter().flat_map(|pod| containers(pod)).find(|container| container["name"] == "rejoinder");
        let variables = container.unwrap()["env"].as_array().unwrap().iter();
        let variables =
            variables.map(|entry| (entry["name"].as_str().unwrap(), entry["value"].as_str().unwrap()));
        all.push((name.to_owned(), environment(variables, configuration, folder)));
    }
    all
}

#[test]
fn rejoinder_accepts_the_settings_of_every_container() {
    let folder = tempfile::tempdir().unwrap();
    for (place, environment) in environments(folder.path()) {
        let (valid, said) = check_config(&environment);
        assert!(valid, "{place}: {said}");
        for (variable, value) in &environment {
            // What rejoinder does not read would be ignored without a word.
            let key = variable.strip_prefix("REJOINDER_").unwrap().to_lowercase();
            let line = match key.as_str() {
                "config" => "[timeouts]".to_owned(),
                "admin_token_file" => "token = \"***\"".to_owned(),
                "secret_file" => "secret = \"***\"".to_owned(),
                "redis_password_file" => "password = \"***\"".to_owned(),
                _ => format!("{key} = \"{}\"", value.trim_end_matches('/')),
            };
            let found = said.lines().any(|printed| printed.replace("/\"", "\"") == line);
            assert!(found, "{place}: no {line} in what is in force:\n{said}");
        }
    }
}

#[test]
fn rejoinder_refuses_a_misspelt_key_and_the_empty_secrets_of_the_template() {
    let folder = tempfile::tempdir().unwrap();
    let (_, environment) =
        environments(folder.path()).into_iter().find(|(place, _)| place == "with-redis").unwrap();
    let file = &environment["REJOINDER_CONFIG"];
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replace("drain", "drian")).unwrap();
    let (valid, said) = check_config(&environment);
    assert!(!valid && said.contains("drian"), "{said}");

    std::fs::write(file, text).unwrap();
    let template = secret_template();
    for (name, value) in template["stringData"].as_object().unwrap() {
        std::fs::write(folder.path().join(name), value.as_str().unwrap()).unwrap();
    }
    let (valid, said) = check_config(&environment);
    assert!(!valid && said.contains("REJOINDER_ADMIN_TOKEN"), "{said}");
}

#[test]
fn every_container_has_no_more_rights_than_it_needs() {
    for name in ["with-redis", "sidecar"] {
        let documents = rendered(name);
        for pod in pods(&documents) {
            let spec = &pod["spec"];
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{spec}");
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(spec["automountServiceAccountToken"], false);
            // REJOINDER_PORT and the like would be taken for settings.
            assert_eq!(spec["enableServiceLinks"], false);
            for container in containers(pod) {
                let expected = json!({
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                });
                assert_eq!(container["securityContext"], expected, "{}", container["name"]);
                assert!(container["resources"]["limits"]["memory"].is_string(), "{}", container["name"]);
                assert!(container["resources"]["requests"]["cpu"].is_string(), "{}", container["name"]);
            }
        }
    }
    for name in COMPOSE_FILES {
        for (service, settings) in compose(name)["services"].as_object().unwrap() {
            // Ollama's image is its own affair.
            if service != "ollama" {
                assert_eq!(settings["read_only"], true, "{name}: {service}");
                assert_eq!(settings["cap_drop"], json!(["ALL"]), "{name}: {service}");
                assert_eq!(settings["security_opt"], json!(["no-new-privileges:true"]), "{name}: {service}");
            }
        }
    }
}

#[test]
fn what_manifests_name_is_there() {
    let documents = rendered("with-redis");
    let template = secret_template();
    let labels = |pod: &Value, selector: &Value| {
        selector.as_object().unwrap().iter().all(|(name, value)| pod["metadata"]["labels"][name] == *value)
    };
    let ports = |pod: &Value| {
        containers(pod)
            .filter_map(|container| container["ports"].as_array())
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
    };
    let every = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
    let all_pods = pods(&documents);
    for service in every("Service") {
        let pod = all_pods.iter().find(|pod| labels(pod, &service["spec"]["selector"])).unwrap();
        for port in service["spec"]["ports"].as_array().unwrap() {
            let found =
                ports(pod).into_iter().find(|candidate| candidate["name"] == port["targetPort"]).unwrap();
            assert_eq!(found["containerPort"], port["port"], "{port}");
        }
    }
    for kind in ["PodDisruptionBudget", "Deployment", "StatefulSet"] {
        for document in every(kind) {
            let selector = &document["spec"]["selector"]["matchLabels"];
            assert!(all_pods.iter().any(|pod| labels(pod, selector)), "{kind}: {selector}");
        }
    }
    for policy in every("NetworkPolicy") {
        let pod =
            all_pods.iter().find(|pod| labels(pod, &policy["spec"]["podSelector"]["matchLabels"])).unwrap();
        for rule in policy["spec"]["ingress"].as_array().unwrap() {
            for port in rule["ports"].as_array().unwrap() {
                assert!(ports(pod).iter().any(|candidate| candidate["name"] == port["port"]), "{port}");
            }
        }
    }
    // Who speaks to Redis is let in there: replicas and sidecars.
    let policy = find(&documents, "NetworkPolicy", "rejoinder-redis");
    let clients = &policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
    let sidecar = rendered("sidecar");
    for pod in [&find(&documents, "Deployment", "rejoinder")["spec"]["template"], pods(&sidecar)[0]] {
        assert!(labels(pod, clients), "{clients}");
    }
    let autoscaler = find(&documents, "HorizontalPodAutoscaler", "rejoinder");
    let deployment =
        find(&documents, "Deployment", autoscaler["spec"]["scaleTargetRef"]["name"].as_str().unwrap());
    assert!(deployment["spec"].get("replicas").is_none(), "each apply would undo what the autoscaler did");
    assert!(autoscaler["spec"]["minReplicas"].as_u64().unwrap() >= 2);
    for pod in all_pods.iter().copied().chain(pods(&sidecar)) {
        for container in containers(pod) {
            for entry in container["env"].as_array().into_iter().flatten() {
                let Some(key) =
                    entry["value"].as_str().and_then(|it| it.strip_prefix("/run/secrets/rejoinder/"))
                else {
                    continue;
                };
                assert!(template["stringData"].get(key).is_some(), "{key}");
                let volumes = pod["spec"]["volumes"].as_array().unwrap();
                let volume = &volumes.iter().find(|volume| volume["name"] == "secrets").unwrap()["secret"];
                assert_eq!(volume["secretName"], template["metadata"]["name"]);
                let items = volume["items"].as_array();
                assert!(items.is_none_or(|items| items.iter().any(|item| item["path"] == key)), "{key}");
            }
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                if let Some(get) = container[probe].get("httpGet") {
                    assert!(ports(pod).iter().any(|port| port["name"] == get["port"]), "{get}");
                    assert!(["/healthz", "/readyz"].contains(&get["path"].as_str().unwrap()), "{get}");
                }
            }
            assert!(container["name"] == "application" || container.get("livenessProbe").is_some());
        }
    }
}

/// A time in `[timeouts]` of a configuration, or the default.
fn timeouts(text: &str) -> Timeouts {
    let table: toml::Table = text.parse().unwrap();
    table["timeouts"].clone().try_into().unwrap()
}

/// Nobody is killed while it still lets requests finish.
#[test]
fn who_stops_is_given_the_time_to_drain() {
    let margin = Duration::from_secs(5);
    let all = |timeouts: &Timeouts| timeouts.notice + timeouts.drain + margin;
    let default = Timeouts::default();
    let documents = rendered("with-redis");
    let given =
        timeouts(find(&documents, "ConfigMap", "rejoinder")["data"]["rejoinder.toml"].as_str().unwrap());
    let pod = &find(&documents, "Deployment", "rejoinder")["spec"]["template"]["spec"];
    let sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    let grace = |pod: &Value| Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
    assert!(grace(pod) >= Duration::from_secs(sleep) + all(&given));

    let sidecar = rendered("sidecar");
    let pod = &pods(&sidecar)[0]["spec"];
    assert!(grace(pod) >= all(&default));
    assert_eq!(pod["initContainers"][0]["restartPolicy"], "Always", "else it is no sidecar");

    let given = timeouts(&std::fs::read_to_string(deploy().join("replica.toml")).unwrap());
    for (name, timeouts) in [("compose.yaml", &default), ("compose.replicas.yaml", &given)] {
        let grace = duration(&compose(name)["services"]["rejoinder"]["stop_grace_period"]);
        assert!(grace >= all(timeouts), "{name}");
    }
    let balancer = std::fs::read_to_string(deploy().join("haproxy/haproxy.cfg")).unwrap();
    let stop = balancer.lines().find_map(|line| line.trim().strip_prefix("hard-stop-after ")).unwrap();
    let stop = humantime::parse_duration(stop).unwrap();
    assert!(stop > given.drain);
    assert!(duration(&compose("compose.replicas.yaml")["services"]["balancer"]["stop_grace_period"]) > stop);
    // It asks every second and believes the second answer.
    assert!(balancer.matches("inter 1s fall 2").count() == 2 && given.notice > Duration::from_secs(3));
}

/// `HAProxy` does not start where it may not open as many files as its connections could need.
#[test]
fn the_load_balancer_may_open_a_file_for_both_ends_of_each_connection() {
    let settings = std::fs::read_to_string(deploy().join("haproxy/haproxy.cfg")).unwrap();
    let connections = settings.lines().find_map(|line| line.trim().strip_prefix("maxconn ")).unwrap();
    let files =
        compose("compose.replicas.yaml")["services"]["balancer"]["ulimits"]["nofile"].as_u64().unwrap();
    assert!(files > connections.parse::<u64>().unwrap() * 2 + 100);
}

#[test]
fn redis_has_twice_the_memory_that_it_fills() {
    let settings = std::fs::read_to_string(deploy().join("redis/redis.conf")).unwrap();
    let setting =
        |name: &str| settings.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    let twice = bytes(setting("maxmemory")) * 2;
    assert!(settings.lines().any(|line| line.starts_with("maxmemory-policy ")));
    let compose = compose("compose.replicas.yaml");
    let limit = &compose["services"]["redis"]["deploy"]["resources"]["limits"]["memory"];
    assert!(bytes(limit.as_str().unwrap()) >= twice);
    let documents = rendered("with-redis");
    let pod = &find(&documents, "StatefulSet", "rejoinder-redis")["spec"]["template"]["spec"];
    let resources = &pod["containers"][0]["resources"];
    assert!(bytes(resources["limits"]["memory"].as_str().unwrap()) >= twice);
    assert_eq!(resources["limits"]["memory"], resources["requests"]["memory"]);
}

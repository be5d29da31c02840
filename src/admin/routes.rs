//! The paths of the admin listener: one table, from which requests are routed, methods refused, and `openapi.json` checked.

use http::Method;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Audits,
    Config,
    Counters,
    Decisions,
    Entries,
    Entry,
    Explain,
    Export,
    Health,
    Import,
    Metrics,
    NearMisses,
    Observations,
    OpenApi,
    Overview,
    Purge,
    Readiness,
    Verified,
}

/// A path and what is there.
#[derive(Debug)]
pub(super) struct Route {
    /// The path; its last part may be in braces and stands for any then.
    pub(super) path: &'static str,
    /// The methods that are possible, as the header `Allow` lists them.
    pub(super) allow: &'static str,
    pub(super) resource: Resource,
}

/// Every path.
pub(super) static ROUTES: [Route; 18] = [
    Route { path: "/audits", allow: "GET, HEAD", resource: Resource::Audits },
    Route { path: "/config", allow: "GET, HEAD", resource: Resource::Config },
    Route { path: "/decisions", allow: "GET", resource: Resource::Decisions },
    Route { path: "/entries", allow: "GET, HEAD", resource: Resource::Entries },
    Route { path: "/entries/{id}", allow: "GET, HEAD, DELETE", resource: Resource::Entry },
    Route { path: "/explain", allow: "POST", resource: Resource::Explain },
    Route { path: "/export", allow: "GET", resource: Resource::Export },
    Route { path: "/healthz", allow: "GET, HEAD", resource: Resource::Health },
    Route { path: "/import", allow: "POST", resource: Resource::Import },
    Route { path: "/internal/metrics", allow: "GET, HEAD", resource: Resource::Counters },
    Route { path: "/metrics", allow: "GET, HEAD", resource: Resource::Metrics },
    Route { path: "/near-misses", allow: "GET, HEAD", resource: Resource::NearMisses },
    Route { path: "/observations", allow: "GET, HEAD", resource: Resource::Observations },
    Route { path: "/openapi.json", allow: "GET, HEAD", resource: Resource::OpenApi },
    Route { path: "/overview", allow: "GET, HEAD", resource: Resource::Overview },
    Route { path: "/purge", allow: "POST", resource: Resource::Purge },
    Route { path: "/readyz", allow: "GET, HEAD", resource: Resource::Readiness },
    Route { path: "/verified", allow: "GET, HEAD", resource: Resource::Verified },
];

impl Route {
    /// The route of a path, and what stands in the place of the part in braces; empty where there is none.
    pub(super) fn of_path(path: &str) -> Option<(&'static Self, &str)> {
        ROUTES.iter().find_map(|route| match route.path.split_once('{') {
            Some((prefix, _)) => {
                let part = path.strip_prefix(prefix)?;
                (!part.is_empty() && !part.contains('/')).then_some((route, part))
            }
            None => (route.path == path).then_some((route, "")),
        })
    }

    /// Whether a method is possible.
    pub(super) fn allows(&self, method: &Method) -> bool {
        self.allow.split(", ").any(|allowed| allowed == method.as_str())
    }

    /// Whether anybody may ask: the probes of an orchestrator come by address and without a token.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.resource, Resource::Health | Resource::Readiness)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_path_has_one_route() {
        for route in &ROUTES {
            let path = route.path.replace("{id}", "x");
            let (found, part) = Route::of_path(&path).unwrap();
            assert_eq!((found.path, part.is_empty()), (route.path, !route.path.contains('{')));
        }
        for path in ["", "/", "/metrics/", "/Metrics", "/entries/", "/entries/a/b", "/..%2fmetrics"] {
            assert!(Route::of_path(path).is_none(), "{path}");
        }
    }

    #[test]
    fn the_document_describes_every_route_and_no_other() {
        let document: Value = serde_json::from_str(crate::admin::OPEN_API).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let described: BTreeSet<_> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let routed: BTreeSet<_> = ROUTES
            .iter()
            .flat_map(|route| route.allow.split(", ").map(move |method| format!("{method} {}", route.path)))
            // What HEAD says is what GET says.
            .filter(|operation| !operation.starts_with("HEAD "))
            .collect();
        assert_eq!(described, routed);
    }
}

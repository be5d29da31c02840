//! The dashboard: the files of a page that shows what the admin listener's other paths say.
//!
//! Called by `admin`, which checks who asks and serves them. The page is written by hand, as modules that a browser
//! runs as they are: nothing builds it, and it loads nothing from elsewhere. It knows the admin API and nothing of
//! the program behind it.

/// A file of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// All of it.
    pub bytes: &'static [u8],
}

/// What a browser lets the page do: run and load its own files, ask its own origin, and nothing else. No text becomes
/// markup or script, whatever a prompt holds: the page has no inline script and makes no element from a string, which
/// Trusted Types hold it to.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// Its files by path.
const ASSETS: [(&str, &str, &[u8]); 13] = [
    ("/", HTML, include_bytes!("assets/index.html")),
    ("/dashboard/icon.svg", PICTURE, include_bytes!("assets/icon.svg")),
    ("/dashboard/style.css", STYLE, include_bytes!("assets/style.css")),
    ("/dashboard/theme.js", SCRIPT, include_bytes!("assets/theme.js")),
    ("/dashboard/app.js", SCRIPT, include_bytes!("assets/app.js")),
    ("/dashboard/api.js", SCRIPT, include_bytes!("assets/api.js")),
    ("/dashboard/dom.js", SCRIPT, include_bytes!("assets/dom.js")),
    ("/dashboard/words.js", SCRIPT, include_bytes!("assets/words.js")),
    ("/dashboard/charts.js", SCRIPT, include_bytes!("assets/charts.js")),
    ("/dashboard/overview.js", SCRIPT, include_bytes!("assets/overview.js")),
    ("/dashboard/live.js", SCRIPT, include_bytes!("assets/live.js")),
    ("/dashboard/entries.js", SCRIPT, include_bytes!("assets/entries.js")),
    ("/dashboard/playground.js", SCRIPT, include_bytes!("assets/playground.js")),
];

/// The file at a path of the admin listener, if it is the dashboard's.
pub fn asset(path: &str) -> Option<Asset> {
    let (_, content_type, bytes) = ASSETS.iter().find(|(known, ..)| *known == path)?;
    Some(Asset { content_type, bytes })
}

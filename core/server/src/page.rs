//! The chat page that an instance serves.
//!
//! ```
//! use fanfare_core::settings::Settings;
//! use fanfare_server::page;
//!
//! let mut settings = Settings::default();
//! settings.files = page::files();
//! assert_eq!(settings.files["/"].status, 200);
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_core::http::Answer;

/// The page may load its own files and reach its own server's sockets, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

struct File {
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
}

const FILES: [File; 7] = [
    File { path: "/", content_type: "text/html; charset=utf-8", body: include_bytes!("page/index.html") },
    File { path: "/page.css", content_type: "text/css; charset=utf-8", body: include_bytes!("page/page.css") },
    File { path: "/noscript.css", content_type: "text/css; charset=utf-8", body: include_bytes!("page/noscript.css") },
    File { path: "/page.js", content_type: "text/javascript; charset=utf-8", body: include_bytes!("page/page.js") },
    File { path: "/log.js", content_type: "text/javascript; charset=utf-8", body: include_bytes!("page/log.js") },
    File { path: "/socket.js", content_type: "text/javascript; charset=utf-8", body: include_bytes!("page/socket.js") },
    File { path: "/icon.svg", content_type: "image/svg+xml", body: include_bytes!("page/icon.svg") },
];

/// The files of the page by their paths, for [`Settings::files`](fanfare_core::settings::Settings::files).
#[must_use]
pub fn files() -> BTreeMap<String, Answer> {
    let answer = |file: &File| {
        Answer { status: 200, fields: Vec::new(), body: Bytes::from_static(file.body) }
            .with_field("Content-Type", file.content_type)
            .with_field("Content-Security-Policy", POLICY)
            .with_field("X-Content-Type-Options", "nosniff")
            .with_field("Referrer-Policy", "no-referrer")
            // A new version's page is never run with an old version's script.
            .with_field("Cache-Control", "no-cache")
    };
    FILES.iter().map(|file| (file.path.to_owned(), answer(file))).collect()
}

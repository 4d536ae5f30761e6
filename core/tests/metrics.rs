//! What the page about metrics says is what is there.

#![expect(clippy::disallowed_methods, reason = "a test may read files and settings")]

use std::path::Path;

use fanfare_core::metrics::metrics_table;

const BEGIN: &str = "<!-- metrics -->\n";
const END: &str = "<!-- /metrics -->";

/// With `FANFARE_BLESS=1` in the environment the table is written anew instead.
#[test]
fn the_table_of_metrics_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page marks where the table begins");
    let (table, after) = rest.split_once(END).expect("the page marks where the table ends");
    if std::env::var_os("FANFARE_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", metrics_table())).unwrap();
    } else {
        assert_eq!(table, metrics_table(), "run this test with FANFARE_BLESS=1 to write the table anew");
    }
}

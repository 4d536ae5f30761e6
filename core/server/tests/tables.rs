//! What tables for readers say is what is there.

use std::path::Path;

use fanfare_server::cli::options_table;
use fanfare_server::metrics::metrics_table;

#[test]
fn the_table_of_options_is_current() {
    check("../docs/options.md", "options", &options_table());
}

#[test]
fn the_table_of_metrics_is_current() {
    check("../docs/metrics.md", "metrics", &metrics_table());
}

/// With `FANFARE_BLESS=1` in the environment the table is written again instead.
fn check(page: &str, name: &str, current: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).expect("the page is there");
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).expect("the page marks where the table begins");
    let (table, after) = rest.split_once(&end).expect("the page marks where the table ends");
    if std::env::var_os("FANFARE_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&path, format!("{before}{begin}{current}{end}{after}")).expect("the page can be written");
    } else {
        assert_eq!(table, current, "run this test with FANFARE_BLESS=1 to write the table again");
    }
}

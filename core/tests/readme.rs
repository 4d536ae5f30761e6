//! What README says about the options is what the command line does.

#![expect(clippy::disallowed_methods, reason = "a test may read files and settings")]

use std::path::Path;

use fanfare_core::config::cli::options_table;

const BEGIN: &str = "<!-- options -->\n";
const END: &str = "<!-- /options -->";

/// With `FANFARE_BLESS=1` in the environment README is written anew instead.
#[test]
fn the_table_of_options_in_readme_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("README marks where the table begins");
    let (table, after) = rest.split_once(END).expect("README marks where the table ends");
    if std::env::var_os("FANFARE_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", options_table())).unwrap();
    } else {
        assert_eq!(table, options_table(), "run this test with FANFARE_BLESS=1 to write the table anew");
    }
}

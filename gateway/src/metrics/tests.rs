use std::fmt::Write;

use super::*;
use crate::testing;

#[test]
fn the_names_and_labels_of_the_series_are_a_contract() {
    let metrics = Metrics::new(&testing::config(1), "hash").unwrap();

    let text = metrics.render().unwrap();

    let mut series = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        writeln!(series, "{} {value}", name.replace(env!("CARGO_PKG_VERSION"), "VERSION")).unwrap();
    }
    insta::assert_snapshot!(series, @r#"
    "#);
}

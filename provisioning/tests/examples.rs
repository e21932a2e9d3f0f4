//! The examples compile and do what they say.

use std::path::Path;

#[path = "../examples/check_file.rs"]
#[expect(dead_code, reason = "the test calls the function below main")]
mod check_file;
#[path = "../examples/locate_addresses.rs"]
#[expect(dead_code, reason = "the test calls the function below main")]
mod locate_addresses;

#[test]
fn check_file_prints_the_plan_or_all_problems() {
    let report = check_file::check(Path::new("tests/good/shortest.toml")).unwrap();
    assert!(report.contains("FC 3 %MW10 to %MW11: 2 registers"), "{report}");
    let noted = check_file::check(Path::new("tests/noted/misaligned_real.toml")).unwrap();
    assert!(noted.starts_with("note: tests/noted/misaligned_real.toml:"), "{noted}");
    let problems = check_file::check(Path::new("tests/broken/type_misspelt.toml")).unwrap_err();
    assert!(problems.ends_with("type_misspelt.toml: 1 problem"), "{problems}");
}

#[test]
fn locate_addresses_shows_the_registers_of_each_model() {
    let lines = locate_addresses::locate("%MD5", "REAL").unwrap();
    assert_eq!(lines[0], "M241: holding:10, count 2, CDAB");
    assert_eq!(lines[3], "M221: holding:5, count 2, CDAB");
    assert!(lines[4].starts_with("generic: `%MD5` is an address of a Modicon PLC"), "{lines:?}");
    assert_eq!(
        locate_addresses::locate("%MD5", "FLOAT"),
        Err("`FLOAT` is not a supported type".to_owned())
    );
}

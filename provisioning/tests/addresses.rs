//! An address that a PLC cannot serve is explained in the PLC's own words.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use provisioning::plc::{IecType, Model};

fn says(model: Model, at: &str, iec: IecType) -> String {
    let refusal = model.locate(at, iec).unwrap_err();
    format!("{}\n  {}", refusal.message, refusal.help.unwrap_or_default())
}

#[test]
fn each_refusal_says_what_to_write_instead() {
    use IecType::{Bool, Int, Lreal, Real};
    let m241 = [
        ("%M163", Bool),
        ("%M20.3", Bool),
        ("input:10", Int),
        ("%IW3", Int),
        ("%QB0", Bool),
        ("%MF10", Real),
        ("%SW6", Int),
        ("%KW1", Int),
        ("%MZ1", Int),
        ("40011", Int),
        ("400011", Int),
        ("10004", Bool),
        ("10", Int),
        ("MW10", Int),
        ("%MW 10", Int),
        ("temperature", Real),
        ("%MX20", Bool),
        ("%MX20", Real),
        ("%MX10.12", Bool),
        ("%MW10.16", Bool),
        ("%MD5.3", Bool),
        ("%MD5", Bool),
        ("%MX20.0", Real),
        ("%MB21", Real),
        ("%QX0", Bool),
        ("%I5", Bool),
        ("%QX0.9", Bool),
        ("%QX0.1", Real),
        ("coil:3.1", Bool),
        ("%MW64000", Int),
        ("%MW70000", Int),
        ("%MW59998", Lreal),
        ("%MW60199", Real),
        ("%QX9000.0", Bool),
    ];
    let generic = [
        ("%MW10", Int),
        ("%MX21.3", Bool),
        ("%MD5", Real),
        ("%MB3", Int),
        ("40011", Int),
        ("30001", Int),
        ("10", Int),
        ("holding:70000", Int),
        ("holding:65535", Real),
        ("holding:3.2", Int),
        ("coil:3", Int),
    ];
    let m241 = m241.map(|(at, iec)| says(Model::M241, at, iec));
    let generic = generic.map(|(at, iec)| says(Model::Generic, at, iec));
    insta::assert_snapshot!([m241.join("\n"), generic.join("\n")].join("\n\ngeneric:\n"));
}

//! An invalid address is explained in the terms of the PLC, with what to write instead.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use provisioning::plc::IecType::{self, Bool, Int, Lreal, Real};
use provisioning::plc::PlcModel;

fn error_text(model: PlcModel, at: &str, iec: IecType) -> String {
    let error = model.locate(at, iec).unwrap_err();
    format!("{}\n  {}", error.message, error.help.unwrap_or_default())
}

const M241: &[(&str, IecType)] = &[
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

const M221: &[(&str, IecType)] = &[
    ("%MX20.3", Bool),
    ("%MX20", Bool),
    ("%MB20", Int),
    ("%ML3", Lreal),
    ("%M20.3", Bool),
    ("%M20", Int),
    ("%I0.3", Bool),
    ("%Q0.3", Bool),
    ("%IW0.1", Int),
    ("%S6", Bool),
    ("%SW6", Int),
    ("%KF6", Real),
    ("%TM0", Int),
    ("%MW10:X16", Bool),
    ("%MF10", Bool),
    ("%MD10:X3", Bool),
    ("input:10", Int),
    ("40011", Int),
    ("00011", Bool),
    ("10", Int),
    ("%MW65535", Real),
    ("%MW70000", Int),
    ("%M70000", Bool),
];

const M262: &[(&str, IecType)] = &[("%M163", Bool), ("%MF10", Real), ("%MW64000", Int)];

const GENERIC: &[(&str, IecType)] = &[
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

#[test]
fn every_error_says_what_to_write_instead() {
    let texts = |model, of: &[(&str, IecType)]| {
        let texts: Vec<_> = of.iter().map(|&(at, iec)| error_text(model, at, iec)).collect();
        texts.join("\n")
    };
    insta::assert_snapshot!("m241", texts(PlcModel::M241, M241));
    insta::assert_snapshot!("m221", texts(PlcModel::M221, M221));
    insta::assert_snapshot!("m262", texts(PlcModel::M262, M262));
    insta::assert_snapshot!("generic", texts(PlcModel::Generic, GENERIC));
}

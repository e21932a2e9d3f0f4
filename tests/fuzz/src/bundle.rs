use provisioning::bundle::{Bundle, BundleSource, MANIFEST, VerifyPolicy, is_member_name, verify};

/// A bundle as a box finds it on a stick, after a first byte of 0; otherwise what is signed in one,
/// which no fuzzer could sign. What is read has one form only, so that it renders to the same
/// bytes.
pub fn bundle(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    if *kind == 0 {
        let blank = VerifyPolicy {
            keys: None,
            gateway: None,
            tunnel_public_key: None,
            last_counter: None,
            source: BundleSource::ByHand,
        };
        match verify(rest, &blank) {
            Ok(verified) => {
                let known = VerifyPolicy { keys: Some(&verified.keys), ..blank };
                assert!(verify(rest, &known).is_ok());
                check(&verified.bundle);
            }
            Err(error) => assert!(error.to_string().len() < 500, "{error}"),
        }
        return;
    }
    match Bundle::read(rest) {
        Ok(bundle) => {
            check(&bundle);
            assert_eq!(bundle.render().expect("it was read"), rest);
        }
        Err(error) => assert!(error.to_string().len() < 500, "{error}"),
    }
}

fn check(bundle: &Bundle<'_>) {
    assert!(bundle.manifest().counter > 0);
    for name in bundle.files().keys() {
        assert!(is_member_name(name) && *name != MANIFEST);
        assert!(!name.starts_with('/') && !name.contains(".."));
    }
}

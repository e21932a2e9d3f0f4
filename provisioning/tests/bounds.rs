//! What a file may hold is bounded, and reading it takes time in proportion to its length.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use provisioning::config;

const HEAD: &str = "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://127.0.0.1\"]\n";
const PLC: &str = "[[plc]]\nname = \"p\"\nmodel = \"generic\"\naddress = \"127.0.0.1:502\"\n";
/// Many times what each file here takes on a busy machine; with time in proportion to the square of
/// the length, each would take longer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the rendered problems of a file, or an empty text.
fn problems(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bounds_{name}.toml"));
    fs::write(&path, text).unwrap();
    let start = Instant::now();
    let shown = config::load(&path).map_or_else(|rejected| rejected.to_string(), |_| String::new());
    let took = start.elapsed();
    assert!(took < LOAD_TIMEOUT, "{name} took {took:?}");
    fs::remove_file(&path).unwrap();
    shown
}

fn tag(name: &str, rest: &str) -> String {
    format!("[[plc.tag]]\nname = \"{name}\"\nat = \"holding:1\"\ntype = \"UINT\"\n{rest}")
}

fn file(tags: &str) -> String {
    format!("{HEAD}{PLC}{tags}")
}

/// Repeats a text with a running number in place of `#`.
fn repeated(count: usize, text: &str) -> String {
    (0..count).map(|number| text.replace('#', &number.to_string())).collect()
}

#[test]
fn tags_and_plcs_are_counted() {
    let tags = |count| {
        let tag = "{name=\"t#\",at=\"coil:1\",type=\"BOOL\"},";
        format!("{HEAD}{PLC}tag = [{}]\n", repeated(count, tag))
    };
    let shown = problems("too_many_tags", &tags(65_536));
    assert!(shown.contains("this PLC has 65536 tags"), "{shown}");
    let plc = PLC.replace("\"p\"", "\"p#\"") + &tag("t", "");
    let shown = problems("too_many_plcs", &format!("{HEAD}{}", repeated(10_001, &plc)));
    assert!(shown.contains("there are 10001 PLCs"), "{shown}");
}

#[test]
fn a_name_is_short_and_shows_what_it_is() {
    for (what, name, wanted) in [
        ("long", "x".repeat(5 << 20), "too long"),
        ("backwards", "level\\u202Eevol".to_owned(), "\\u{202e}"),
        ("isolated", "a\\u2066b".to_owned(), "\\u{2066}"),
        ("of_no_width", "pump\\u200B6".to_owned(), "\\u{200b}"),
        ("with_escape", "a\\u001B[2J".to_owned(), "\\u{1b}"),
        ("with_a_line_break", "a\\nb".to_owned(), "line break"),
    ] {
        let shown = problems(what, &file(&tag(&name, "")));
        assert!(shown.contains(wanted), "{what}: {}", shown.get(..2_000).unwrap_or(&shown));
        assert!(shown.len() < 4_000, "{what}: {} bytes", shown.len());
        let plc = PLC.replace("\"p\"", &format!("\"{name}\"")) + &tag("t", "");
        let shown = problems(&format!("plc_{what}"), &format!("{HEAD}{plc}"));
        assert!(shown.contains("`name`"), "{what}: {}", shown.get(..2_000).unwrap_or(&shown));
    }
}

#[test]
fn what_each_message_carries_is_bounded() {
    let extra = repeated(2_000, "k# = 1, ");
    let shown = problems(
        "extra",
        &format!("{HEAD}[publish]\nextra = {{ {extra}z = 1 }}\n{PLC}{}", tag("t", "")),
    );
    assert!(shown.contains("`extra` is too long"), "{shown}");
    let topic = format!(
        "{HEAD}[publish]\ntopic = \"{}\"\n{PLC}{}",
        "{gateway}/x".repeat(500),
        tag("t", "")
    );
    let shown = problems("topic", &topic);
    assert!(shown.contains("topic") && shown.contains("1024 bytes"), "{shown}");
    let brokers = "\"mqtt://127.0.0.1\", ".repeat(50_000);
    let shown = problems(
        "brokers",
        &file(&tag("t", "")).replace("brokers = [", &format!("brokers = [{brokers}")),
    );
    assert!(shown.contains("`brokers` has 50001 values"), "{shown}");
}

#[test]
fn an_enumeration_with_sixty_six_thousand_names_is_read() {
    let names = repeated(66_000, "# = \"n#\", ");
    let names = names.trim_end_matches(", ");
    let text = file(&tag("t", &format!("enum = {{ {names} }}\n")));
    let shown = problems("enumeration", &text);
    // A UINT holds 65,536 of them.
    assert!(shown.contains("65536"), "{shown}");
    let twice = text.replace("\"n65999\"", "\"n0\"");
    assert!(problems("enumeration_twice", &twice).contains("twice"));
}

#[test]
fn thousands_of_problems_are_found_in_proportion_to_the_file() {
    let tags = "[[plc.tag]]\nname = \"t#\"\nat = \"%MW#\"\ntype = \"FLOAT\"\nunit = 1\n";
    let plcs = "[[plc]]\nname = \"p#\"\nmodel = \"M999\"\ntimezone = \"Europe/Amsterdm\"\n";
    let zones = format!("{}{}", repeated(5_000, plcs), tag("t", ""));
    let mut keys = String::from("[queue]\n");
    for number in 0..30_000 {
        writeln!(keys, "adress{number} = 1").unwrap();
    }
    let line = repeated(20_000, "{name=\"a\",at=1,type=2},");
    for (what, text) in [
        ("tags", file(&repeated(10_000, tags))),
        ("missing_keys", file(&repeated(20_000, "[[plc.tag]]\nnmae = \"t#\"\n"))),
        ("plcs", format!("{HEAD}{zones}")),
        ("unknown_keys", format!("{HEAD}{keys}{PLC}{}", tag("t", ""))),
        ("one_line", format!("{HEAD}{PLC}tag = [{line}]\n")),
        ("same_name", file(&repeated(20_000, &tag("same", "")))),
        ("no_toml", repeated(50_000, "this is no TOML #\n")),
    ] {
        let shown = problems(what, &text);
        assert!(shown.contains("the first 200 are shown"), "{what}: {shown}");
        assert!(shown.len() < 1 << 20, "{what}: {} bytes", shown.len());
    }
}

#[test]
fn a_very_long_key_and_a_line_full_of_addresses_are_rejected_soon() {
    let key = "k".repeat(1 << 20);
    assert!(!problems("key", &file(&format!("{}{key} = 1\n", tag("t", "")))).is_empty());
    assert!(!problems("colons", &":".repeat(1 << 20)).is_empty());
    let addresses = "a://b@c,".repeat(100_000);
    let shown = problems("addresses", &format!("{HEAD}brokers = [\"{addresses}\"]\n"));
    assert!(!shown.contains("a://b@"), "{}", shown.get(..2_000).unwrap_or(&shown));
}

//! Hostile and generated declarations.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::layout::{Layout, Layouts, MemberContent};
use super::*;
use crate::plc::{DataType, IecType, Table};

fn import_text(path: &str, text: &str) -> Import {
    let file = ImportFile { path: path.into(), bytes: text.as_bytes().to_vec() };
    import(&[file], None).unwrap_or_else(|rejected| panic!("{rejected}"))
}

fn gvl(text: &str) -> Import {
    import_text("GVL.gvl", text)
}

fn codes(import: &Import) -> Vec<&'static str> {
    import.skipped.iter().map(|skipped| skipped.reason.code()).collect()
}

/// Returns name, address and type of each tag.
fn tags(import: &Import) -> Vec<String> {
    import.tags.iter().map(|tag| format!("{} {} {}", tag.name, tag.at, tag.data_type)).collect()
}

#[test]
fn types_that_contain_themselves_are_reported() {
    let import = gvl("TYPE A : STRUCT b : B; END_STRUCT END_TYPE\n\
         TYPE B : STRUCT a : ARRAY[0..1] OF A; END_STRUCT END_TYPE\n\
         TYPE C : C; END_TYPE\n\
         VAR_GLOBAL a AT %MW0 : A; b AT %MW0 : B; c AT %MW0 : C; END_VAR");
    assert_eq!(codes(&import), ["nested-types"; 3]);
}

#[test]
fn types_and_brackets_may_be_nested_to_a_limit() {
    let mut types = "TYPE T0 : INT; END_TYPE\n".to_owned();
    for level in 1..100 {
        let below = level - 1;
        let _ = writeln!(
            types,
            "TYPE T{level} : STRUCT a : T{below}; b : T{below}; END_STRUCT END_TYPE"
        );
    }
    let import = gvl(&format!("{types} VAR_GLOBAL a AT %MW0 : T4; b AT %MW0 : T99; END_VAR"));
    assert_eq!((import.tags.len(), codes(&import)), (16, vec!["nested-types"]));

    let mut chain = "TYPE E0 : STRUCT a : INT; END_STRUCT END_TYPE\n".to_owned();
    for level in 1..50_000 {
        let _ =
            writeln!(chain, "TYPE E{level} EXTENDS E{} : STRUCT END_STRUCT END_TYPE", level - 1);
    }
    let import = gvl(&format!("{chain} VAR_GLOBAL a AT %MW0 : E49999; b AT %MW0 : E9; END_VAR"));
    assert_eq!(
        (tags(&import), codes(&import)),
        (vec!["b.a %MW0 INT".to_owned()], vec!["nested-types"])
    );

    let arrays = "ARRAY[0..0] OF ".repeat(100_000);
    let brackets = "(".repeat(100_000);
    let sum = "1+".repeat(100_000);
    let text = format!(
        "VAR_GLOBAL a AT %MW0 : {arrays} INT; b AT %MW0 : ARRAY[0..{brackets}] OF INT;\n\
         c AT %MW0 : ARRAY[0..{sum}1] OF INT; d AT %MW9 : INT; END_VAR"
    );
    let import = gvl(&text);
    assert_eq!(tags(&import), ["d %MW9 INT"]);
    assert!(codes(&import).iter().all(|code| *code == "unreadable"));
    let nodes = "<a>".repeat(200_000);
    let file = ImportFile { path: "deep.xml".into(), bytes: nodes.into_bytes() };
    assert!(import_err(&file).contains("not well-formed"));
}

fn import_err(file: &ImportFile) -> String {
    import(std::slice::from_ref(file), None).unwrap_err().to_string()
}

#[test]
fn sizes_without_end_take_no_time_and_no_memory() {
    let huge = "ARRAY[0..2147483647, 0..2147483647, 0..2147483647] OF";
    let import = gvl(&format!(
        "TYPE E : STRUCT END_STRUCT END_TYPE\n\
         TYPE F : STRUCT x : BIT; y : ARRAY[0..1000] OF INT; END_STRUCT END_TYPE\n\
         VAR_GLOBAL a AT %MW0 : {huge} INT; b AT %MW0 : {huge} E; c AT %MW0 : {huge} F;\n\
         d AT %MW0 : ARRAY[5..1] OF INT; e AT %MW0 : STRING(0); f AT %MW0 : STRING(32767);\n\
         g AT %MW0 : ARRAY[-9223372036854775807..9223372036854775807] OF BYTE; END_VAR"
    ));
    let unsupported = "unsupported-type";
    let expected = ["too-large", unsupported, "too-large", unsupported, unsupported, unsupported];
    assert_eq!(codes(&import)[..6], expected);
    assert_eq!(codes(&import)[6], "too-large");
}

#[test]
fn tags_beyond_the_limit_of_a_plc_are_skipped_with_a_reason() {
    let mut text = "TYPE B : STRUCT\n".to_owned();
    for bit in 0..10_000 {
        let _ = writeln!(text, "b{bit} : BIT;");
    }
    text.push_str("END_STRUCT END_TYPE\nVAR_GLOBAL\n");
    for variable in 0..50 {
        let _ = writeln!(text, "v{variable} AT %MW0 : B;");
    }
    text.push_str("END_VAR");
    let import = gvl(&text);
    assert_eq!(import.tags.len(), 65_535);
    assert!(codes(&import).iter().all(|code| *code == "too-many-tags"));
    assert!(import.skipped.len() < 100);
}

#[test]
fn a_string_larger_than_a_request_is_out_of_reach() {
    let import = gvl("VAR_GLOBAL a AT %MW0 : STRING(255); b AT %MW200 : STRING(238); END_VAR");
    assert_eq!(
        (tags(&import), codes(&import)),
        (vec!["b %MW200 STRING(238)".to_owned()], vec!["out-of-reach"])
    );
}

#[test]
fn a_bool_keeps_the_bit_or_the_byte_of_its_address() {
    let import = gvl("VAR_GLOBAL a AT %MX20.3 : BOOL; b AT %MB21 : BOOL; c AT %MD5 : BOOL;\n\
         d AT %MX30.0 : REAL; e AT %MX31.1 : ARRAY[0..1] OF BOOL; f AT %QX0.0 : ARRAY[0..1] OF \
         BOOL; g AT %MW20 : ARRAY[0..1] OF BOOL; END_VAR");
    let expected = ["a %MX20.3 BOOL", "b %MB21 BOOL", "c %MB20 BOOL", "d %MW15 REAL"];
    assert_eq!(tags(&import)[..4], expected);
    assert_eq!(tags(&import)[4..], ["g %MW20 ARRAY[0..1] OF BOOL"]);
    assert_eq!(codes(&import), ["unsupported-type"; 2]);
}

#[test]
fn names_are_compared_without_case_and_qualified_when_taken() {
    let file =
        |path: &str, text: &str| ImportFile { path: path.into(), bytes: text.as_bytes().to_vec() };
    let files = [
        file("GVL_A.gvl", "VAR_GLOBAL Speed AT %MW0 : INT; datetime AT %MW1 : DT; END_VAR"),
        file("GVL_B.gvl", "VAR_GLOBAL SPEED AT %MW4 : INT; Other AT %MW5 : INT; END_VAR"),
        file("GVL_B2.gvl", ""),
    ];
    let import = import(&files[..2], None).unwrap();
    let names: Vec<_> = import.tags.iter().map(|tag| tag.name.as_str()).collect();
    assert_eq!(names, ["GVL_A.Speed", "GVL_A.datetime", "GVL_B.SPEED", "Other"]);
    assert_eq!(import.notes.iter().filter(|note| note.kind.code() == "qualified").count(), 3);
    assert!(super::import(&files[2..], None).unwrap_err().to_string().contains("empty"));
}

#[test]
fn a_list_written_twice_counts_once() {
    let list = "VAR_GLOBAL a AT %MW0 : INT; END_VAR\n";
    let import = gvl(&format!("{list}{list}VAR_GLOBAL A AT %MW7 : INT; END_VAR"));
    assert_eq!(
        (tags(&import), codes(&import)),
        (vec!["a %MW0 INT".to_owned()], vec!["name-taken"])
    );
}

#[test]
fn the_encodings_give_the_same_tags() {
    let text = "VAR_GLOBAL größe AT %MW0 : INT; // Füllstand\r\nEND_VAR\r\n";
    let western: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let units = text.encode_utf16().flat_map(u16::to_le_bytes);
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(units).collect();
    for bytes in [text.as_bytes().to_vec(), western, utf16] {
        let import = import(&[ImportFile { path: "a.gvl".into(), bytes }], None).unwrap();
        assert_eq!(tags(&import), ["größe %MW0 INT"]);
        assert_eq!(import.tags[0].comment.as_deref(), Some("Füllstand"));
    }
}

#[test]
fn a_declaration_that_cannot_be_read_hides_no_other() {
    let import = gvl("VAR_GLOBAL a AT %MW0 : INT; ) b AT : INT; c AT %MW2 : ARRAY[0..] OF INT;\n\
         d AT %MW3 : INT := (x := 1, y := [2(0)]); END_STRUCT e AT %MW4 : INT END_VAR\n\
         VAR_GLOBAL f AT %MW5 : INT;\nVAR_GLOBAL g AT %MW6 : INT; END_VAR");
    let names: Vec<_> = import.tags.iter().map(|tag| tag.name.as_str()).collect();
    assert_eq!(names, ["a", "d", "f", "g"]);
    assert!(codes(&import).len() >= 4, "{:?}", import.skipped);
}

#[test]
fn lines_that_were_copied_without_their_list_are_read() {
    let import = import_text("notes.txt", "// pump\na AT %MW0 : INT; // level\n  b AT%MW1:INT;");
    assert_eq!(tags(&import), ["a %MW0 INT", "b %MW1 INT"]);
    assert_eq!((import.tags[1].place.line, codes(&import).len()), (3, 0));
    let table = "sep=;\nname;address;type\nType;%MW0;INT\n";
    assert_eq!(tags(&import_text("table.txt", table)), ["Type %MW0 INT"]);
}

#[test]
fn other_files_are_rejected_with_what_to_do() {
    let known = [
        ("<ExportFile/>", "PLCopenXML"),
        ("<VariablesExchangeFile/>", "Control Expert"),
        ("<html/>", "no export that is known"),
        ("<project", "not well-formed"),
        ("<!DOCTYPE a [<!ENTITY b \"c\">]><project>&b;</project>", "not well-formed"),
        ("hello", "no table"),
        ("PK\u{3}\u{4}\0\0", "binary"),
        (" \n", "empty"),
    ];
    for (text, part) in known {
        let file = ImportFile { path: "x".into(), bytes: text.as_bytes().to_vec() };
        let message = import_err(&file);
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn an_enumeration_may_use_its_own_values_and_constants() {
    let import = gvl("VAR_GLOBAL CONSTANT BASE : INT := 100; END_VAR\n\
         TYPE E : (a := BASE, b, c := a + 10, d := E.b, e := unknown, f) SINT; END_TYPE\n\
         VAR_GLOBAL v AT %MW0 : E; w AT %MW1 : ARRAY[0..1] OF E; END_VAR");
    let names: BTreeMap<_, _> = [(100, "a"), (101, "b"), (110, "c")].into();
    let found = import.tags[0].names.as_ref().unwrap();
    assert_eq!(
        found.iter().map(|(number, name)| (*number, name.as_str())).collect::<BTreeMap<_, _>>(),
        names
    );
    assert!(import.to_toml().contains("enum = { 100 = \"a\", 101 = \"b\", 110 = \"c\" }"));
}

#[test]
fn every_code_is_explained_to_the_engineer() {
    let page = include_str!("../../../../docs/plc/import.md");
    let source = [include_str!("skip.rs"), include_str!("note.rs")].concat();
    let codes = source.lines().filter_map(|line| {
        line.trim()
            .strip_suffix("\",")
            .and_then(|line| line.split_once("=> \""))
            .map(|(_, code)| code)
    });
    let missing: Vec<_> = codes.filter(|code| !page.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/plc/import.md does not explain {missing:?}");
}

/// A type of a generated declaration.
fn any_type() -> impl Strategy<Value = String> {
    let elementary = prop::sample::select(IecType::ALL.to_vec()).prop_map(|iec| iec.to_string());
    let text = (1_u16..40).prop_map(|letters| format!("STRING({letters})"));
    let wide = (1_u16..20).prop_map(|letters| format!("WSTRING({letters})"));
    let leaf = prop_oneof![
        4 => elementary,
        1 => text,
        1 => wide,
        2 => Just("BIT".to_owned()),
        1 => Just("POINTER TO INT".to_owned()),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let members = prop::collection::vec(inner.clone(), 1..6);
        let no_bit = inner.prop_filter("BIT is no type for an array", |text| text != "BIT");
        prop_oneof![
            (members, "STRUCT|UNION").prop_map(|(members, kind)| {
                let members = members.iter().enumerate();
                let members: String =
                    members.map(|(number, text)| format!("m{number} : {text}; ")).collect();
                format!("{kind} {members}END_{kind}")
            }),
            (no_bit, -2_i64..2, 0_i64..3).prop_map(|(inner, first, more)| {
                format!("ARRAY[{first}..{}] OF {inner}", first + more)
            }),
        ]
    })
}

/// Adds the first and last bit of each value of a layout that is at `bit`.
fn spans(layout: &Layout, bit: u64, out: &mut Vec<(u64, u64)>) {
    match &layout.content {
        MemberContent::Value(..) | MemberContent::Opaque(_) => {
            out.push((bit, bit + 8 * layout.size));
        }
        MemberContent::Bit => out.push((bit, bit + 1)),
        MemberContent::Members(members) => {
            for member in members {
                let inner = bit + 8 * member.offset + u64::from(member.bit.unwrap_or(0));
                if member.bit.is_none() {
                    assert_eq!(member.offset % member.layout.alignment, 0);
                }
                spans(&member.layout, inner, out);
            }
        }
        MemberContent::Array(dims, element) => {
            let count: i64 = dims.iter().map(|(first, last)| last - first + 1).product();
            for index in 0..u64::try_from(count).unwrap() {
                spans(element, bit + 8 * index * element.size, out);
            }
        }
    }
}

proptest! {
    #[test]
    fn members_do_not_overlap_and_the_size_is_a_multiple_of_the_alignment(text in any_type()) {
        prop_assume!(!text.contains("UNION"));
        let declared = st::parse_type(&text).unwrap();
        let declarations = Declarations::default();
        let layout = Layouts::new(&declarations).layout(&declared).unwrap();
        prop_assert_eq!(layout.size % layout.alignment, 0);
        let mut found = Vec::new();
        spans(&layout, 0, &mut found);
        prop_assert!(found.iter().all(|(_, end)| *end <= 8 * layout.size));
        // Members are in the order of the declaration, so sorting changes nothing.
        for pair in found.windows(2) {
            prop_assert!(pair[0].1 <= pair[1].0, "{:?} in {}", pair, text);
        }
    }

    #[test]
    fn a_generated_declaration_is_read_back(text in any_type(), word in 0_u16..50_000) {
        prop_assume!(text != "BIT" && !text.starts_with("POINTER"));
        let word = u32::from(word) * 4 % 50_000;
        let import = gvl(&format!("VAR_GLOBAL v AT %MW{word} : {text}; END_VAR"));
        prop_assert!(codes(&import).iter().all(|code| *code == "pointer"), "{}", import);
        for tag in &import.tags {
            let read: DataType = tag.data_type.to_string().parse().unwrap();
            prop_assert_eq!(read, tag.data_type);
            let location = import.model.locate(&tag.at, read).unwrap();
            prop_assert_eq!(location, tag.location);
            prop_assert_eq!(location.table, Table::HoldingRegister);
        }
    }
}

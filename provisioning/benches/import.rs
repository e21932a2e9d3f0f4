//! Time to import 20,000 variables from each format. `cargo xtask bench import`
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement stops and prints")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use provisioning::office::import::{ImportFile, TagFile, import};

const VARIABLES: usize = 20_000;
const RUNS: usize = 5;

fn main() {
    let exports = [
        ("symbol configuration", "a.xml", symbol_configuration()),
        ("Structured Text", "a.gvl", structured_text()),
        ("PLCopenXML", "b.xml", plcopen()),
        ("Machine Expert - Basic", "a.smbp", basic()),
        ("CSV", "a.csv", csv()),
    ];
    println!("| {VARIABLES} variables | file | import and write | update |\n|---|---|---|---|");
    for (name, path, text) in exports {
        let size = text.len() / 1_000;
        let files = [ImportFile { path: path.into(), bytes: text.into_bytes() }];
        let tags = import(&files, None).expect("the export is valid").to_toml();
        let imported = median(|| import(&files, None).expect("valid").to_toml());
        let updated = median(|| {
            let import = import(&files, None).expect("valid");
            let mut target = TagFile::parse("tags.toml".as_ref(), &tags, None).expect("valid");
            assert!(target.update(&import).expect("sections").is_empty());
            target.to_string()
        });
        println!("| {name} | {size} kB | {imported:.0?} | {updated:.0?} |");
    }
}

fn median<T>(run: impl Fn() -> T) -> Duration {
    let time = |_| {
        let start = Instant::now();
        black_box(run());
        start.elapsed()
    };
    let mut times: Vec<_> = (0..RUNS).map(time).collect();
    times.sort_unstable();
    times.into_iter().nth(RUNS / 2).expect("there are several")
}

/// Number, name and address of each variable; addresses repeat within the memory.
fn variables() -> impl Iterator<Item = (usize, String, usize)> {
    (0..VARIABLES).map(|number| (number, format!("rVariable{number}"), number * 2 % 50_000))
}

fn symbol_configuration() -> String {
    let mut text = "<Symbolconfiguration><TypeList><TypeSimple name=\"T_REAL\" size=\"4\" \
                    typeclass=\"Real\" iecname=\"REAL\"/></TypeList><NodeList><Node name=\"App\">\
                    <Node name=\"GVL\">\n"
        .to_owned();
    for (number, name, word) in variables() {
        let _ = writeln!(
            text,
            "<Node name=\"{name}\" type=\"T_REAL\" access=\"ReadWrite\" \
             directaddress=\"%MW{word}\"><Comment>number {number}</Comment></Node>"
        );
    }
    text + "</Node></Node></NodeList></Symbolconfiguration>"
}

fn structured_text() -> String {
    let mut text = "VAR_GLOBAL\n".to_owned();
    for (number, name, word) in variables() {
        let _ = writeln!(text, "\t{name} AT %MW{word} : REAL := 1.5; // number {number}");
    }
    text + "END_VAR\n"
}

fn plcopen() -> String {
    let mut text = "<project><globalVars name=\"GVL\">\n".to_owned();
    for (number, name, word) in variables() {
        let _ = writeln!(
            text,
            "<variable name=\"{name}\" address=\"%MW{word}\"><type><REAL/></type><documentation>\
             <xhtml>number {number}</xhtml></documentation></variable>"
        );
    }
    text + "</globalVars></project>"
}

fn basic() -> String {
    let mut text = "<ProjectDescriptor><MemoryFloats>\n".to_owned();
    for (number, name, word) in variables() {
        let _ = writeln!(
            text,
            "<MemoryFloat><Address>%MF{word}</Address><Index>{word}</Index><Symbol>{name}</Symbol>\
             <Comment>number {number}</Comment></MemoryFloat>"
        );
    }
    text + "</MemoryFloats></ProjectDescriptor>"
}

fn csv() -> String {
    let mut text = "name,address,type,comment\n".to_owned();
    for (number, name, word) in variables() {
        let _ = writeln!(text, "{name},%MW{word},REAL,number {number}");
    }
    text
}

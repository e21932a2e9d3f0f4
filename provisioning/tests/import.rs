//! Exports of PLC projects → tags. The files in tests/import have the shapes of real exports, traps
//! included; each snapshot is the preview and the tags.
#![expect(clippy::panic, clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use provisioning::config;
use provisioning::office::import::{Import, ImportFile, TagFile, import};
use provisioning::plc::PlcModel;

/// Exports: name of the snapshot, files, model.
const EXPORTS: [(&str, &[&str], Option<PlcModel>); 7] = [
    ("symbol_configuration", &["pump.Device.Application.xml"], None),
    ("symbol_configuration_of_an_old_compiler", &["old_compiler.xml"], None),
    ("structured_text", &["GVL_Pump.gvl", "types.st"], None),
    ("plcopen", &["plcopen.xml"], None),
    ("machine_expert_basic", &["pump.smbp"], None),
    ("table", &["table.csv"], None),
    ("table_with_other_columns", &["vijeo.csv"], Some(PlcModel::M251)),
];

fn read(name: &str) -> ImportFile {
    let path = Path::new("tests/import").join(name);
    ImportFile { bytes: fs::read(&path).unwrap(), path: PathBuf::from(name) }
}

fn import_all(names: &[&str], model: Option<PlcModel>) -> Import {
    let files: Vec<_> = names.iter().map(|name| read(name)).collect();
    import(&files, model).unwrap()
}

/// Loads a configuration with these tags.
fn load(import: &Import) -> config::Config {
    let model = import.model;
    let text = format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://127.0.0.1\"]\nvia = \"direct\"\n\
         [[plc]]\nname = \"p\"\nmodel = \"{model}\"\naddress = \"127.0.0.1\"\n\n{}",
        import.to_toml()
    );
    let path = std::env::temp_dir().join(format!("edge-import-{:08x}.toml", fastrand::u32(..)));
    fs::write(&path, text).unwrap();
    let loaded = config::load(&path);
    fs::remove_file(&path).unwrap();
    loaded.unwrap_or_else(|rejected| panic!("{rejected}")).config
}

#[test]
fn exports_become_tags_that_the_gateway_loads() {
    for (name, files, model) in EXPORTS {
        let import = import_all(files, model);
        let config = load(&import);
        assert_eq!(config.plcs[0].tags.len(), import.tags.len());
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("import/snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| {
            insta::assert_snapshot!(name, format!("{import}\n{}", import.to_toml()));
        });
    }
}

fn gvl(text: &str) -> Import {
    let file = ImportFile { path: "GVL.gvl".into(), bytes: text.as_bytes().to_vec() };
    import(&[file], None).unwrap()
}

/// Updates a file; returns its new text and the changes.
fn update(text: &str, plc: Option<&str>, import: &Import) -> (String, Vec<String>) {
    let mut file = TagFile::parse("gateway.toml".as_ref(), text, plc).unwrap();
    let changes = file.update(import).unwrap();
    (file.to_string(), changes.iter().map(ToString::to_string).collect())
}

const SITE: &str = "\
# The pump of Amsterdam.
[[plc]]
name = \"pump6\"                # the first one
model = \"M241\"
address = \"192.0.2.10\"

# bearing, seen by the operator
[[plc.tag]]
unit = \"°C\"
name = \"temperature\"          # called rTemp in the program
at = \"%MW10\"
type = \"REAL\"
scale = 0.1                   # tuned on site
deadband = 0.5

[[plc.tag]]
name = \"iLevel\"
at = \"%mw14\"                  # as declared
type = \"INT\"
write = { min = 0, max = 90 }

[[plc.tag]]
name = \"eMode\"
at = \"%MW20\"
type = \"INT\"
enum = { 0 = \"Off\" }          # from the manual

[[plc.tag]]
name = \"own\"
at = \"%MW60012\"
type = \"WORD\"

[plc.publish]
qos = 1
";

#[test]
fn an_update_changes_what_the_program_decides_and_nothing_else() {
    let import = gvl("TYPE E : (Off, On); END_TYPE VAR_GLOBAL rTemp AT %MD5 : REAL;\n\
         iLevel AT %MW15 : UINT; eMode AT %MW20 : E;\n\
         xNew AT %MX100.0 : BOOL; // added in March\nEND_VAR");
    let (text, changes) = update(SITE, None, &import);
    let expected = [
        "~ iLevel: type INT -> UINT",
        "~ iLevel: at %mw14 -> %MW15",
        "~ eMode: enum { 0 = \"Off\" } -> { 0 = \"Off\", 1 = \"On\" }",
        "? own at %MW60012: not in the export; it stays until you remove it",
        "+ xNew: BOOL at %MX100.0",
    ];
    assert_eq!(changes, expected);
    let changed = SITE
        .replace("\"%mw14\"                  # as", "\"%MW15\"                  # as")
        .replace("type = \"INT\"\nwrite", "type = \"UINT\"\nwrite")
        .replace("{ 0 = \"Off\" } ", "{ 0 = \"Off\", 1 = \"On\" } ")
        .replace(
            "\n[plc.publish]",
            "\n# added in March\n[[plc.tag]]\nname = \"xNew\"\nat = \"%MX100.0\"\ntype = \
             \"BOOL\"\n\n[plc.publish]",
        );
    assert_eq!(text, changed);

    let (again, changes) = update(&text, None, &import);
    assert_eq!((again.as_str(), changes.len()), (text.as_str(), 1));
}

#[test]
fn an_update_keeps_line_ends_and_finds_its_plc() {
    let import = gvl("VAR_GLOBAL a AT %MW1 : INT; b AT %MW0 : INT; END_VAR");
    let two = "[[plc]]\r\nname = \"p\"\r\nmodel = \"M251\"\r\n[[plc.tag]]\r\nname = \"a\"\r\n\
               at = \"%MW0\"\r\ntype = \"INT\"\r\n[[plc]]\r\nname = \"q\"\r\n";
    let (text, changes) = update(two, Some("p"), &import);
    assert_eq!(changes, ["~ a: at %MW0 -> %MW1", "+ b: INT at %MW0"]);
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    let (text, changes) = update(two, Some("q"), &import);
    assert_eq!((changes.len(), text.matches("[[plc.tag]]").count()), (2, 3));
    for (plc, part) in [(None, "2 PLCs"), (Some("r"), "no PLC \"r\"")] {
        let error = TagFile::parse("x.toml".as_ref(), two, plc).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    // The output of an import, and a template.
    for header in ["[[plc.tag]]", "[[tag]]"] {
        let text = format!("{header}\nname = \"a\"\nat = \"%MW7\"\ntype = \"INT\"\n");
        let (text, changes) = update(&text, None, &import);
        assert_eq!(changes, ["~ a: at %MW7 -> %MW1", "+ b: INT at %MW0"]);
        assert_eq!(text.matches(header).count(), 2);
    }
    let template = TagFile::parse("pump.toml".as_ref(), "model = \"M221\"\n", None).unwrap();
    assert_eq!(template.model(), Some(PlcModel::M221));
    let site = "[[plc]]\nname = \"p\"\ntemplate = \"pump\"\n";
    let error = TagFile::parse("x.toml".as_ref(), site, None).unwrap_err().to_string();
    assert!(error.contains("update templates/pump.toml"), "{error}");
    for text in ["", "tag = 5", "[[plc]\n", "[gateway]\nid = \"g\"\n"] {
        let file = TagFile::parse("x.toml".as_ref(), text, None);
        assert!(file.and_then(|mut file| file.update(&import)).is_err(), "{text}");
    }
}

/// Runs `edge-provision import` in a directory of its own.
fn run(dir: &Path, arguments: &[&str]) -> Output {
    let fixtures = fs::canonicalize("tests/import").unwrap();
    for name in ["GVL_Pump.gvl", "types.st", "table.csv"] {
        fs::copy(fixtures.join(name), dir.join(name)).unwrap();
    }
    let program = env!("CARGO_BIN_EXE_edge-provision");
    Command::new(program).arg("import").args(arguments).current_dir(dir).output().unwrap()
}

fn temp_dir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("edge-import-{:08x}", fastrand::u32(..)));
    fs::create_dir(&dir).unwrap();
    dir
}

#[test]
fn the_command_prints_tags_and_a_preview_and_writes_files() {
    let dir = temp_dir();
    let printed = run(&dir, &["GVL_Pump.gvl", "types.st"]);
    let tags = String::from_utf8(printed.stdout).unwrap();
    let preview = String::from_utf8(printed.stderr).unwrap();
    assert!(printed.status.success(), "{preview}");
    assert!(tags.starts_with("# temperature of the bearing in °C\n[[plc.tag]]\n"), "{tags}");
    assert!(preview.contains("GVL_Pump.gvl:45: GVL_Pump.plain: not located"), "{preview}");

    let silent = run(&dir, &["GVL_Pump.gvl", "types.st", "--output", "tags.toml"]);
    assert!(silent.stdout.is_empty());
    assert_eq!(fs::read_to_string(dir.join("tags.toml")).unwrap(), tags);

    let json = run(&dir, &["table.csv", "--json", "--update", "tags.toml", "--output", "-"]);
    let found: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&found["tags"][0]["name"], &found["tags"][0]["line"]),
        (&"level".into(), &3.into())
    );
    assert_eq!(found["skipped"][0]["reason"], "invalid-name");
    assert_eq!(found["changes"][0]["change"], "missing");
    assert_eq!(fs::read_to_string(dir.join("tags.toml")).unwrap(), tags);

    let updated = run(&dir, &["table.csv", "--update", "tags.toml"]);
    assert!(updated.stdout.is_empty() && updated.status.success());
    assert!(fs::read_to_string(dir.join("tags.toml")).unwrap().contains("two lines"));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_command_ends_with_the_code_that_the_help_names() {
    let dir = temp_dir();
    fs::write(dir.join("none.gvl"), "VAR_GLOBAL a : INT; END_VAR").unwrap();
    fs::write(dir.join("broken.xml"), "<project").unwrap();
    let code = |arguments: &[&str]| run(&dir, arguments).status.code();
    assert_eq!(code(&["none.gvl"]), Some(1));
    assert_eq!(code(&["broken.xml"]), Some(1));
    assert_eq!(code(&["missing.xml"]), Some(1));
    assert_eq!(code(&["table.csv", "--model", "M580"]), Some(2));
    assert_eq!(code(&["table.csv", "--plc", "p"]), Some(2));
    assert_eq!(code(&[]), Some(2));
    fs::remove_dir_all(&dir).unwrap();
}

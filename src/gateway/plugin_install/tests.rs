//! Installing into and removing from configurations as people write them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jsonc_parser::parse_to_serde_value;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::paths::GatewayPaths;
use super::document::options;
use super::manifest::Manifest;
use super::*;

const DIR: &str = "/s/tideover/plugin";

fn read(text: &str) -> Value {
    parse_to_serde_value::<Option<Value>>(text, &options()).unwrap().unwrap_or(Value::Null)
}

fn installed(text: &str) -> String {
    let plan = plan(text.as_bytes(), DIR).unwrap();
    String::from_utf8(plan.after).unwrap()
}

/// Installs and removes again; the first result and the second.
fn round_trip(text: &str) -> (String, String) {
    let plan = plan(text.as_bytes(), DIR).unwrap();
    let mut manifest = Manifest::new(DIR, false);
    manifest.record(text.as_bytes(), &plan);
    let removed = manifest.remove_from(&plan.after).unwrap();
    (String::from_utf8(plan.after).unwrap(), String::from_utf8(removed).unwrap())
}

fn assert_in_place(text: &str) {
    let value = read(text);
    assert!(value["plugins"]["load"]["paths"].as_array().unwrap().contains(&json!(DIR)), "{text}");
    let entry = &value["plugins"]["entries"]["tideover"];
    assert_eq!(entry["enabled"], json!(true), "{text}");
    assert_eq!(entry["hooks"]["allowConversationAccess"], json!(true), "{text}");
    if let Some(allow) = value["plugins"]["allow"].as_array() {
        assert!(allow.is_empty() || allow.contains(&json!("tideover")), "{text}");
    }
}

#[test]
fn the_result_is_written_in_the_style_of_the_document() {
    let table = [
        (
            "{}",
            r#"{"plugins": {"load": {"paths": ["/s/tideover/plugin"]}, "entries": {"tideover": {"enabled": true, "hooks": {"allowConversationAccess": true}}}}}"#,
        ),
        (
            "{\n    // mine\n    gateway: {mode: 'local'}, // note\n}\n",
            "{\n    // mine\n    gateway: {mode: 'local'}, // note\n    \"plugins\": {\n        \"load\": {\n            \"paths\": [\n                \"/s/tideover/plugin\"\n            ]\n        },\n        \"entries\": {\n            \"tideover\": {\n                \"enabled\": true,\n                \"hooks\": {\n                    \"allowConversationAccess\": true\n                }\n            }\n        }\n    },\n}\n",
        ),
        (
            r#"{"plugins":{"load":{"paths":["/a"]},"entries":{"tideover":{"enabled":false,"hooks":{}}},"allow":["x"]}}"#,
            r#"{"plugins":{"load":{"paths":["/a","/s/tideover/plugin"]},"entries":{"tideover":{"enabled":true,"hooks":{"allowConversationAccess":true}}},"allow":["x","tideover"]}}"#,
        ),
        (
            "{\r\n\t\"plugins\": {\r\n\t\t\"load\": { \"paths\": [] }, // p\r\n\t\t\"entries\": {\r\n\t\t\t\"a\": {} // last\r\n\t\t}\r\n\t}\r\n}",
            "{\r\n\t\"plugins\": {\r\n\t\t\"load\": { \"paths\": [\r\n\t\t\t\"/s/tideover/plugin\"\r\n\t\t] }, // p\r\n\t\t\"entries\": {\r\n\t\t\t\"a\": {}, // last\r\n\t\t\t\"tideover\": {\r\n\t\t\t\t\"enabled\": true,\r\n\t\t\t\t\"hooks\": {\r\n\t\t\t\t\t\"allowConversationAccess\": true\r\n\t\t\t\t}\r\n\t\t\t}\r\n\t\t}\r\n\t}\r\n}",
        ),
    ];
    for (before, want) in table {
        assert_eq!(installed(before), want, "{before}");
    }
}

#[test]
fn every_layout_is_installed_into_and_given_back_to_the_byte() {
    let table = [
        "{}",
        "{ }\n",
        "{\n}\n",
        "{\n  // only a comment\n}\n",
        "{ /* c */ }",
        "{\"a\":1}",
        "{\"a\": 1,}",
        "// head\n{\n  \"a\": 1 /* one */ , // two\n  // three\n}\n// tail\n",
        "{\n  \"a\": 1 /* begins\n ends */\n}",
        "{\"plugins\":{}}",
        "{\n  \"plugins\": {},\n}",
        "{\n  plugins: { entries: { other: {enabled: true} } }\n}",
        "{\n  plugins: {\n    load: {\n      paths: [\n        '/a', // first\n        '/b'  // second\n      ],\n    },\n  },\n}",
        "{\n  plugins: {allow: [\"telegram\",\n    \"irc\"]},\n}",
        "{\"plugins\": {\"allow\": []}}",
        "{\r\n  \"a\": 1 // c\r\n}\r\n",
        "{\n  \"plugins\": {\"entries\": {\"tideover\": {\"enabled\": false}}}\n}",
        "{\"ü\": \"ß // no comment\", 'q': \"/* nor this */\"}",
        "{\"a\": {\"plugins\": {}}, \"n\": 0x1F, \"p\": +1}",
    ];
    for before in table {
        let (after, back) = round_trip(before);
        assert_in_place(&after);
        assert_eq!(back, before, "after: {after}");
        assert!(plan(after.as_bytes(), DIR).unwrap().changes.is_empty(), "{after}");
    }
}

#[test]
fn what_cannot_be_edited_with_safety_is_refused() {
    let table = [
        ("[]", "does not hold an object"),
        ("", "does not hold an object"),
        ("{\n\"a\": 1\n\"b\": 2}", "line 2"),
        ("{\"plugins\": []}", "`plugins` is not an object"),
        ("{\"plugins\": {\"load\": 1}}", "`plugins.load` is not an object"),
        ("{\"plugins\": {\"load\": {\"paths\": \"/a\"}}}", "`plugins.load.paths` is not a list"),
        ("{\"plugins\": {}, \"plugins\": {}}", "more than once"),
        (
            "{\n\"plugins\": {\"$include\": \"./p.json\"}}",
            "line 2: `plugins` includes another file",
        ),
        ("{\"$include\": [\"./base.json\"]}", "includes another file"),
        ("{\"plugins\": {\"enabled\": false}}", "`plugins.enabled` keeps the plugin"),
        ("{\"plugins\": {\"deny\": [\"tideover\"]}}", "`plugins.deny` keeps the plugin"),
        (
            "{\"plugins\": {\"load\": {\"paths\": [\"/s/tideover/plugin\"]}, \"entries\": {\"tideover\": true}}}",
            "is not an object",
        ),
    ];
    for (text, want) in table {
        let message = plan(text.as_bytes(), DIR).unwrap_err().to_string();
        assert!(message.contains(want), "{text}: {message}");
    }
    assert!(plan(b"{\"a\": \"\xff\"}", DIR).is_err());
}

#[test]
fn a_document_edited_since_loses_only_our_keys() {
    let before = "{\n  // mine\n  \"gateway\": {\"mode\": \"local\"},\n  \"plugins\": {\"allow\": [\"telegram\"]}\n}\n";
    let plan = plan(before.as_bytes(), DIR).unwrap();
    let mut manifest = Manifest::new(DIR, false);
    manifest.record(before.as_bytes(), &plan);
    let edited = String::from_utf8(plan.after).unwrap().replace("local", "remote");
    let removed = String::from_utf8(manifest.remove_from(edited.as_bytes()).unwrap()).unwrap();
    assert!(removed.contains("// mine"), "{removed}");
    let want = json!({"gateway": {"mode": "remote"}, "plugins": {"allow": ["telegram"]}});
    assert_eq!(read(&removed), want, "{removed}");
}

#[test]
fn containers_of_others_stay_when_the_record_is_lost() {
    let after = installed("{\n  \"plugins\": {\"load\": {\"paths\": []}}\n}");
    let removed = Manifest::new(DIR, false).remove_from(after.as_bytes()).unwrap();
    let want = json!({"plugins": {"load": {"paths": []}, "entries": {}}});
    assert_eq!(read(std::str::from_utf8(&removed).unwrap()), want);
}

fn lab(config: Option<&str>) -> (tempfile::TempDir, GatewayPaths) {
    let dir = tempfile::tempdir().unwrap();
    let paths = GatewayPaths {
        state_dir: dir.path().to_owned(),
        config_file: dir.path().join("openclaw.json"),
        profile: "default".to_owned(),
    };
    if let Some(text) = config {
        fs::write(&paths.config_file, text).unwrap();
        fs::set_permissions(&paths.config_file, fs::Permissions::from_mode(0o640)).unwrap();
    }
    (dir, paths)
}

fn install(paths: &GatewayPaths) -> Prepared {
    let prepared = prepare_install(paths, InstallOptions::default()).unwrap();
    prepared.apply().unwrap();
    prepared
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn on_disk_twice_and_out_again() {
    let config = "{\n  \"gateway\": {\"auth\": {\"token\": \"s3cret\"}}, // t\n}\n";
    let (dir, paths) = lab(Some(config));
    let planned = prepare_install(&paths, InstallOptions::default()).unwrap();
    assert!(!planned.describe().contains("s3cret"), "{}", planned.describe());
    assert!(planned.describe().contains("+\"plugins\": {"), "{}", planned.describe());
    assert!(!paths.tideover_dir().exists(), "planning writes nothing");

    install(&paths);
    let plugin = paths.tideover_dir().join("plugin");
    assert_eq!((mode(&plugin), mode(&plugin.join("index.js"))), (0o700, 0o600));
    assert_eq!(mode(&paths.config_file), 0o640);
    let record = fs::read_to_string(paths.tideover_dir().join("install.json")).unwrap();
    assert!(!record.contains("s3cret"), "{record}");
    assert_in_place(
        &fs::read_to_string(&paths.config_file).unwrap().replace(plugin.to_str().unwrap(), DIR),
    );

    let again = install(&paths);
    assert!(again.files.is_empty() && again.changes.is_empty());

    prepare_uninstall(&paths).unwrap().apply().unwrap();
    assert_eq!(fs::read_to_string(&paths.config_file).unwrap(), config);
    assert!(!plugin.exists());
    assert!(!paths.tideover_dir().join("install.json").exists());
    assert!(prepare_uninstall(&paths).unwrap().files.is_empty());
    drop(dir);
}

#[test]
fn installing_over_an_edit_by_hand_comes_out_whole() {
    let (_dir, paths) = lab(Some("{\n  \"a\": 1\n}\n"));
    install(&paths);
    let edited = fs::read_to_string(&paths.config_file)
        .unwrap()
        .replace("\"enabled\": true", "\"enabled\": false");
    fs::write(&paths.config_file, edited).unwrap();
    assert_eq!(install(&paths).changes, ["set plugins.entries.tideover.enabled to true"]);
    prepare_uninstall(&paths).unwrap().apply().unwrap();
    assert_eq!(read(&fs::read_to_string(&paths.config_file).unwrap()), json!({"a": 1}));
}

#[test]
fn a_missing_configuration_is_created_only_on_request() {
    let (_dir, paths) = lab(None);
    let error = prepare_install(&paths, InstallOptions::default()).err().unwrap();
    assert!(error.to_string().contains("openclaw onboard"), "{error}");
    prepare_install(&paths, InstallOptions { create_config: true }).unwrap().apply().unwrap();
    assert_eq!(mode(&paths.config_file), 0o600);
    prepare_uninstall(&paths).unwrap().apply().unwrap();
    assert!(!paths.config_file.exists());
}

#[test]
fn links_and_changes_in_between_are_refused() {
    let (dir, paths) = lab(Some("{}"));
    let prepared = prepare_install(&paths, InstallOptions::default()).unwrap();
    fs::write(&paths.config_file, "{\"b\": 2}").unwrap();
    assert!(matches!(prepared.apply(), Err(InstallError::Changed { .. })));
    assert_eq!(fs::read_to_string(&paths.config_file).unwrap(), "{\"b\": 2}");

    let real = dir.path().join("real.json");
    fs::rename(&paths.config_file, &real).unwrap();
    std::os::unix::fs::symlink(&real, &paths.config_file).unwrap();
    let error = prepare_install(&paths, InstallOptions::default()).err().unwrap();
    assert!(matches!(error, InstallError::NotAFile { .. }), "{error}");
}

/// A JSON value of moderate size.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z\"/*{},:\\\\ \\PC]{0,8}".prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z$]{1,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A configuration in one of many layouts.
fn any_config() -> impl Strategy<Value = String> {
    let plugins = prop::option::of((
        prop::option::of(prop::collection::vec("[a-z/]{1,6}", 0..3)),
        prop::option::of(prop::collection::btree_map("[a-z]{1,5}", any_json(), 0..3)),
        prop::option::of(prop::collection::vec("[a-z]{1,5}", 0..3)),
    ));
    let others = prop::collection::btree_map("[a-o]{1,5}", any_json(), 0..4);
    (others, plugins, 0_u8..5, any::<bool>(), any::<bool>()).prop_map(
        |(others, plugins, layout, commas, first)| {
            let mut map = serde_json::Map::new();
            let mut section = serde_json::Map::new();
            let with_plugins = plugins.is_some();
            if let Some((paths, entries, allow)) = plugins {
                section.extend(paths.map(|paths| ("load".to_owned(), json!({ "paths": paths }))));
                section.extend(entries.map(|entries| ("entries".to_owned(), json!(entries))));
                section.extend(allow.map(|allow| ("allow".to_owned(), json!(allow))));
            }
            let section = with_plugins.then(|| ("plugins".to_owned(), Value::Object(section)));
            if first {
                map.extend(section.clone());
            }
            map.extend(others);
            if !first {
                map.extend(section);
            }
            lay_out(&Value::Object(map), layout, commas)
        },
    )
}

fn lay_out(value: &Value, layout: u8, trailing_commas: bool) -> String {
    if layout == 0 {
        return value.to_string();
    }
    let mut text = serde_json::to_string_pretty(value).unwrap();
    if trailing_commas {
        let lines: Vec<&str> = text.lines().collect();
        let closes = |line: Option<&&str>| {
            line.is_some_and(|line| line.trim_start().starts_with(['}', ']']))
        };
        let ends = |line: &str| line.ends_with(['{', '[', ',']);
        let lines = lines.iter().enumerate().map(|(at, line)| {
            if closes(lines.get(at + 1)) && !ends(line) {
                format!("{line},")
            } else {
                (*line).to_owned()
            }
        });
        text = lines.collect::<Vec<_>>().join("\n");
    }
    match layout {
        1 => text,
        2 => text.replace('\n', "\r\n") + "\r\n",
        3 => text.replace('\n', " // c, {\n") + "\n// tail",
        _ => text.replace("  ", "\t").replace('\n', " /* } */\n"),
    }
}

proptest! {
    #[test]
    fn removing_gives_back_every_byte(config in any_config()) {
        let (after, back) = round_trip(&config);
        prop_assert_eq!(&back, &config);
        assert_in_place(&after);
        prop_assert!(plan(after.as_bytes(), DIR).unwrap().changes.is_empty());
    }

    #[test]
    fn removing_from_an_edited_document_leaves_the_rest(config in any_config()) {
        let plan = plan(config.as_bytes(), DIR).unwrap();
        let mut manifest = Manifest::new(DIR, false);
        manifest.record(config.as_bytes(), &plan);
        let edited = format!("{}\n", String::from_utf8(plan.after).unwrap());
        let removed = String::from_utf8(manifest.remove_from(edited.as_bytes()).unwrap()).unwrap();
        prop_assert_eq!(read(&removed), read(&config));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        plan(&bytes, DIR).ok();
        Manifest::new(DIR, false).remove_from(&bytes).ok();
    }
}

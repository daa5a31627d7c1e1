use serde_json::{Value, json};

use super::*;

fn round_trip(note: &Note) -> Value {
    let value = serde_json::to_value(note).unwrap();
    let back: Note = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(&back, note);
    value
}

#[test]
fn a_note_carries_code_fields_and_text() {
    let note = Note::StageDisabled { after_s: 2.4, share: 0.031, limit: 0.01 };
    let expected = json!({
        "code": "stage-disabled", "after_s": 2.4, "share": 0.031, "limit": 0.01,
        "text": "disabled after 2.4 s: overhead 3.1% of the busiest CPU > 1.0%",
    });
    assert_eq!(round_trip(&note), expected);
    let obstacle = Obstacle::NoFunction { function: "__napi_poll".into() };
    let value = round_trip(&Note::ProbeFallback { method: Method::Fentry, obstacle });
    assert_eq!(value["obstacle"]["reason"], "no-function");
    assert_eq!(
        value["text"],
        "no fentry: the kernel has no function __napi_poll to probe: inlined, or renamed"
    );
}

#[test]
fn a_note_of_a_newer_version_keeps_its_text() {
    let newer = json!({"code": "moon-phase", "phase": 3, "text": "the moon is full"});
    let note: Note = serde_json::from_value(newer).unwrap();
    assert_eq!((&*note.code(), &*note.to_string()), ("moon-phase", "the moon is full"));
    let changed = json!({"code": "link-lost", "interface": "eth0", "text": "eth0 lost its link"});
    let note: Note = serde_json::from_value(changed).unwrap();
    assert_eq!((&*note.code(), &*note.to_string()), ("link-lost", "eth0 lost its link"));
    round_trip(&note);
    assert!(serde_json::from_value::<Note>(json!({"text": "without a code"})).is_err());
}

#[test]
fn sentences_of_schema_1_read_as_notes() {
    let note: Note = serde_json::from_value(json!("approximate: so so")).unwrap();
    assert_eq!((&*note.code(), &*note.to_string()), (Note::TEXT, "approximate: so so"));
    round_trip(&note);
}

#[test]
fn many_differences_are_counted() {
    let absent = Difference { name: "a".into(), before: None, after: Some("1".into()) };
    let note = Note::SettingsDiffer { differences: vec![absent], more: 3 };
    let text = note.to_string();
    assert_eq!(text, "different settings: a is absent before, 1 after; and 3 more");
    round_trip(&note);
}

/// serde's own error lists all codes.
#[test]
fn every_code_is_documented() {
    let error = Note::deserialize(json!({"code": "?"})).unwrap_err().to_string();
    let codes: Vec<&str> =
        error.split('`').skip(1).step_by(2).filter(|code| *code != "?").collect();
    assert!(codes.len() > 30, "{error}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md");
    let documents = std::fs::read_to_string(path).unwrap();
    for code in codes {
        assert!(documents.contains(&format!("\n| `{code}` | ")), "{code} is not in docs/json.md");
    }
}

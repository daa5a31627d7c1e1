//! Notes in JSON: an object with `code`, the note's fields and `text`. A plain string, as in
//! schema 1, is read as a note of code `text`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};

use super::Note;

/// Serializes a note in its derived form, without its text.
struct Fields<'a>(&'a Note);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Note::serialize(self.0, serializer)
    }
}

impl Note {
    /// The code and the fields.
    fn fields(&self) -> Map<String, Value> {
        if let Self::Other { code, .. } = self {
            return [("code".to_owned(), Value::from(code.as_str()))].into_iter().collect();
        }
        match serde_json::to_value(Fields(self)) {
            Ok(Value::Object(fields)) => fields,
            _ => unreachable!("every variant but `Other` is a map of plain values"),
        }
    }

    /// The stable code.
    pub fn code(&self) -> String {
        self.fields().get("code").and_then(Value::as_str).unwrap_or(Self::TEXT).to_owned()
    }
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = self.fields();
        object.insert("text".to_owned(), self.to_string().into());
        object.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Value::String(text) = value {
            return Ok(Self::Other { code: Self::TEXT.to_owned(), text });
        }
        let word = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let (code, text) = (word("code"), word("text"));
        match (Note::deserialize(value), code, text) {
            (Ok(note), ..) => Ok(note),
            // Written by a newer version.
            (Err(_), Some(code), Some(text)) => Ok(Self::Other { code, text }),
            (Err(error), ..) => Err(D::Error::custom(error)),
        }
    }
}

/// The notes of a field that in schema 1 is a single sentence, or absent.
///
/// # Errors
///
/// When the value is neither notes nor a sentence.
pub(in crate::model) fn notes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Note>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Notes {
        Many(Vec<Note>),
        One(Note),
    }
    Ok(match Option::<Notes>::deserialize(deserializer)? {
        Some(Notes::Many(notes)) => notes,
        Some(Notes::One(note)) => vec![note],
        None => Vec::new(),
    })
}

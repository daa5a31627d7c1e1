//! The envelope of every JSON object that leaves this program: its kind and the schema's version.

use serde::Serialize;

use super::summary::SCHEMA_VERSION;

/// An object with its kind and version in front of its own fields.
#[derive(Debug, Serialize)]
pub struct Envelope<'a, T> {
    kind: &'static str,
    schema_version: u32,
    #[serde(flatten)]
    body: &'a T,
}

impl<'a, T: Serialize> Envelope<'a, T> {
    /// Puts `body`, which must serialize as a map, into an envelope.
    pub fn new(kind: &'static str, body: &'a T) -> Self {
        Self { kind, schema_version: SCHEMA_VERSION, body }
    }
}

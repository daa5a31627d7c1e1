//! The schema of JSON objects that leave this program: its version, and the kind in front of each.

use serde::Serialize;

/// Version of the JSON that is made from the structures of this module. It rises when a reader of
/// the old one would misunderstand; version 1 is still read.
pub const SCHEMA_VERSION: u32 = 2;

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

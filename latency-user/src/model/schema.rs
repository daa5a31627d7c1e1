//! The schema of the JSON that this program writes: its version, and the kind of each object.

use serde::Serialize;

/// Version of the JSON built from the structures of this module. It is raised when a reader of the
/// old version would misinterpret the new one; version 1 is still read.
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

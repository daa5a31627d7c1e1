//! Stages in JSON: by their names.

use latency_common::stage::Stage;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Writes the name.
///
/// # Errors
///
/// What the serializer fails with.
pub fn serialize<S: Serializer>(stage: &Stage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(stage.name())
}

/// Reads a name.
///
/// # Errors
///
/// When no stage is called so.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Stage, D::Error> {
    let name = String::deserialize(deserializer)?;
    Stage::ALL
        .into_iter()
        .find(|stage| stage.name() == name)
        .ok_or_else(|| D::Error::custom(format!("unknown stage {name:?}")))
}

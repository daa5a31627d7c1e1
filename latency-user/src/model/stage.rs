//! Stages in JSON: by their names.

use std::{cmp::Ordering, fmt};

use latency_common::stage::Stage;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The name of a stage, possibly one that only a newer version knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StageName {
    /// A stage of this version.
    Known(Stage),
    /// Another name.
    Other(String),
}

impl StageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(stage) => stage.name(),
            Self::Other(name) => name,
        }
    }

    /// The stage; `None`: this version does not know it.
    pub fn known(&self) -> Option<Stage> {
        match self {
            Self::Known(stage) => Some(*stage),
            Self::Other(_) => None,
        }
    }
}

impl From<Stage> for StageName {
    fn from(stage: Stage) -> Self {
        Self::Known(stage)
    }
}

impl PartialEq<Stage> for StageName {
    fn eq(&self, stage: &Stage) -> bool {
        self.known() == Some(*stage)
    }
}

/// By name.
impl Ord for StageName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for StageName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for StageName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for StageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(match Stage::from_name(&name) {
            Some(stage) => Self::Known(stage),
            None => Self::Other(name),
        })
    }
}

/// Writes the name of a stage, for `#[serde(with = "stage")]`.
///
/// # Errors
///
/// When the serializer fails.
pub fn serialize<S: Serializer>(stage: &Stage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(stage.name())
}

/// Reads the name of a stage that this version knows.
///
/// # Errors
///
/// When no stage has that name.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Stage, D::Error> {
    match StageName::deserialize(deserializer)? {
        StageName::Known(stage) => Ok(stage),
        StageName::Other(name) => Err(D::Error::custom(format!("unknown stage {name:?}"))),
    }
}

//! Host settings of one recording, or of two side by side.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Recording;

/// A setting for the template.
#[derive(Serialize)]
pub(super) struct HtmlSetting {
    name: String,
    /// Its value in each recording.
    values: Vec<String>,
    differs: bool,
}

/// All settings by name; empty when no recording has any. Settings differ only if all have some.
pub(super) fn rows(recordings: &[Recording<'_>]) -> Vec<HtmlSetting> {
    let sides: Vec<Option<BTreeMap<String, String>>> = recordings
        .iter()
        .map(|recording| recording.settings.map(|settings| settings.by_name()))
        .collect();
    let names: BTreeSet<&String> = sides.iter().flatten().flat_map(BTreeMap::keys).collect();
    let all_known = sides.iter().all(Option::is_some);
    let show = |name: &String| {
        let values: Vec<String> = sides
            .iter()
            .map(|side| match side {
                Some(side) => side.get(name).cloned().unwrap_or_else(|| "absent".into()),
                None => "not recorded".into(),
            })
            .collect();
        let differs = all_known && values.windows(2).any(|pair| pair[0] != pair[1]);
        HtmlSetting { name: name.clone(), values, differs }
    };
    names.into_iter().map(show).collect()
}

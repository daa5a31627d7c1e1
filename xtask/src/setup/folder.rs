//! Folders of downloads that are complete if they exist: they are filled under another name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Between the name of a folder and the number of the process that fills it.
const PARTIAL: &str = ".partial-";

/// Creates `folder` by `fill`, unless it exists. Two processes may race: either result will do.
pub(crate) fn complete(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        sweep(parent, |name| name.contains(PARTIAL));
    }
    let mut partial = folder.as_os_str().to_owned();
    partial.push(format!("{PARTIAL}{}", std::process::id()));
    let partial = PathBuf::from(partial);
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let filled = fill(&partial);
    if filled.is_err() || fs::rename(&partial, folder).is_err() {
        // If it stays, the next process removes it.
        let _ = fs::remove_dir_all(&partial);
    }
    filled?;
    if !folder.is_dir() {
        bail!("cannot move {} to {}", partial.display(), folder.display());
    }
    Ok(())
}

/// Removes the folders in `parent` that match and end in `-` and the number of a process that is
/// gone: it was killed, or kept them for the person who looks for a failure.
pub(crate) fn sweep(parent: &Path, matches: impl Fn(&str) -> bool) {
    let Ok(entries) = parent.read_dir() else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let process = name.rsplit_once('-').filter(|_| matches(&name));
        if process.is_some_and(|(_, id)| !Path::new("/proc").join(id).exists()) {
            // It does no harm if it stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_half_filled_is_removed_and_not_taken_for_complete() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("tool_1.2");
        // No process has this number.
        let left = root.path().join("tool_1.2.partial-4194999");
        fs::create_dir(&left).unwrap();

        let failed = complete(&folder, |_| bail!("no network"));
        assert_eq!(failed.unwrap_err().to_string(), "no network");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing stays");

        complete(&folder, |partial| Ok(fs::write(partial.join("file"), "whole")?)).unwrap();
        complete(&folder, |_| bail!("it is there")).unwrap();
        assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "whole");
    }
}

//! To be filled.

use libtest_mimic::Trial;

/// The trials of this file.
pub(crate) fn trials() -> Vec<Trial> {
    Vec::new()
}

//! The directory for downloaded kernels, files of boots, and hints kept between boots.

use std::path::PathBuf;

use crate::workspace;

pub(super) fn directory() -> PathBuf {
    workspace::root().join("target/vm")
}

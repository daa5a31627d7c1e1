//! Arguments of `doctor`.

use clap::Args;

use super::values::Format;

/// What to tell.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  What would be used here, and why the rest would not:
      sudo latency-user doctor
  Without root: what can be known without loading anything:
      latency-user doctor")]
pub struct DoctorArgs {
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
}

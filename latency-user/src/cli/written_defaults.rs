//! Defaults that help texts state in words, for tests which compare them with the code.

/// The options of `command` whose help contains `[default: VALUE]`, as `--NAME=VALUE`.
pub fn written_defaults(command: &clap::Command) -> Vec<String> {
    let written = |argument: &clap::Arg| {
        let help = argument.get_help()?.to_string();
        let (value, _) = help.split_once("[default: ")?.1.split_once(']')?;
        Some(format!("--{}={value}", argument.get_long()?))
    };
    command.get_arguments().filter_map(written).collect()
}

//! `funclatency net_rx_action` of libbpf-tools: times one function by fentry or kprobes, log2.

use super::tool::{Tool, installed, sum_of_rows, words};

pub(crate) fn tool() -> Tool {
    Tool {
        name: "funclatency",
        program: installed("funclatency"),
        arguments: words("-u net_rx_action"),
        package: "libbpf-tools",
        count: |output| Some(sum_of_rows(output.stdout.lines())).filter(|sum| *sum > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tracer::Output;

    #[test]
    fn rows_add_up() {
        let stdout = "Tracing net_rx_action.  Hit Ctrl-C to exit\n\
            \x20    usecs               : count    distribution\n\
            \x20        0 -> 1          : 11       |****************************************|\n\
            \x20        2 -> 3          : 2        |*******                                 |\n\
            Exiting trace of net_rx_action\n"
            .into();
        assert_eq!(tool().counted(&Output { stdout, ..Output::default() }), Some(13));
    }
}

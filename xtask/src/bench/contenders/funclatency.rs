//! `funclatency net_rx_action` of libbpf-tools: one function by fentry or kprobes, log2.

use super::{Contender, installed, sum_of_rows, words};

pub(crate) fn contender() -> Contender {
    Contender {
        name: "funclatency",
        program: installed("funclatency"),
        arguments: words("-u net_rx_action"),
        package: "libbpf-tools",
        count: |said| Some(sum_of_rows(said.stdout.lines())).filter(|sum| *sum > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tracer::Said;

    #[test]
    fn rows_add_up() {
        let stdout = "Tracing net_rx_action.  Hit Ctrl-C to exit\n\
            \x20    usecs               : count    distribution\n\
            \x20        0 -> 1          : 11       |****************************************|\n\
            \x20        2 -> 3          : 2        |*******                                 |\n\
            Exiting trace of net_rx_action\n"
            .into();
        assert_eq!(contender().seen(&Said { stdout, ..Said::default() }), Some(13));
    }
}

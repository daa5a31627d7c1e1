//! `softirqs -d` of libbpf-tools: run time of every vector, one log2 histogram each for all CPUs.

use super::tool::{Tool, installed, sum_of_rows, words};

pub(crate) const NAME: &str = "softirqs -d";

pub(crate) fn tool() -> Tool {
    Tool {
        name: NAME,
        program: installed("softirqs"),
        arguments: words("-d"),
        package: "libbpf-tools",
        count: |output| net_rx(&output.stdout),
    }
}

fn net_rx(text: &str) -> Option<u64> {
    let rows = text.lines().skip_while(|line| line.trim() != "softirq = net_rx").skip(1);
    let sum = sum_of_rows(rows.take_while(|line| !line.trim().is_empty()));
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_net_rx_is_counted() {
        let text = "Tracing soft irq event time... Hit Ctrl-C to end.\n\nsoftirq = timer\n\
            \x20    usecs               : count    distribution\n\
            \x20        0 -> 1          : 24       |*************************      |\n\n\
            softirq = net_rx\n\
            \x20    usecs               : count    distribution\n\
            \x20        0 -> 1          : 1001     |*******************************|\n\
            \x20        2 -> 3          : 12       |                               |\n\n\
            softirq = rcu\n\
            \x20    usecs               : count    distribution\n\
            \x20        0 -> 1          : 7        |***                            |\n";
        assert_eq!(net_rx(text), Some(1013));
        assert_eq!(net_rx("Tracing soft irq event time...\n"), None);
    }
}

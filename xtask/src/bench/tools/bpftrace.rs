//! A bpftrace script that takes the same stamps as latency-user: raise, entry, polls, exit.

use super::tool::{Tool, installed, sum_of_rows};

pub(crate) const NAME: &str = "bpftrace script";

/// The same three stages, split by CPU and by NAPI instance, into log2 histograms.
const SCRIPT: &str = "\
tracepoint:irq:softirq_raise /args->vec == 3 && @raised[cpu] == 0/ { @raised[cpu] = nsecs; }
tracepoint:irq:softirq_entry /args->vec == 3/ {
  $now = nsecs;
  if (@raised[cpu] != 0) { @rx_wait[cpu] = hist($now - @raised[cpu]); @raised[cpu] = 0; }
  @started[cpu] = $now;
  @polled[cpu] = $now;
}
tracepoint:napi:napi_poll /@polled[cpu] != 0/ {
  $now = nsecs;
  @napi_poll[args->napi] = hist($now - @polled[cpu]);
  @polled[cpu] = $now;
}
tracepoint:irq:softirq_exit /args->vec == 3 && @started[cpu] != 0/ {
  @net_rx[cpu] = hist(nsecs - @started[cpu]);
  @started[cpu] = 0;
  @polled[cpu] = 0;
}";

pub(crate) fn tool() -> Tool {
    Tool {
        name: NAME,
        program: installed("bpftrace"),
        arguments: vec!["-e".into(), SCRIPT.into()],
        package: "bpftrace",
        count: |output| net_rx(&output.stdout),
    }
}

fn net_rx(text: &str) -> Option<u64> {
    let mut inside = false;
    let rows = text.lines().filter(|line| {
        if line.starts_with('@') {
            inside = line.starts_with("@net_rx[");
        }
        inside
    });
    let sum = sum_of_rows(rows);
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_net_rx_is_counted_and_on_every_cpu() {
        let text = "Attaching 4 probes...\n\n\n@started[0]: 0\n@napi_poll[-120]: \n\
            [512, 1K)             77 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n\n\
            @net_rx[1]: \n\
            [1K, 2K)            1000 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n\
            [2K, 4K)               9 |                                                    |\n\n\
            @net_rx[0]: \n\
            [1K, 2K)               4 |@                                                   |\n\n\
            @rx_wait[0]: \n\
            [256, 512)            31 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n";
        assert_eq!(net_rx(text), Some(1013));
        assert_eq!(net_rx("Attaching 4 probes...\n"), None);
    }
}

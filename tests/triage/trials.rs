//! Hosts made up after public reports of problems: what is right was written down before anything
//! was tried.

use std::{fs, path::Path};

use latency_user::model::finding::{Outcome, Triage};

use crate::captured::{self, Captured};

/// What a rule must answer.
enum Right {
    /// It finds something; the text and the command contain these words.
    Found(&'static str, &'static str),
    /// It finds nothing wrong, and says these words.
    Ok(&'static str),
    /// It does not know, and says these words.
    Open(&'static str),
    /// It has no finding, whatever else it says.
    NotFound,
    /// No command of any finding contains these words.
    NoCommand(&'static str),
}
use Right::{Found, NoCommand, NotFound, Open};

/// Host, rule, right answer.
const TRIALS: &[(&str, &str, Right)] = &[
    ("vmxnet3-oob", "nic_drops", Found("pkts rx OOB +700", "")),
    ("vmxnet3-tx", "nic_drops", NotFound),
    ("vmxnet3-tx", "nic_tx_drops", Found("dropped sent packets, not received ones", "")),
    ("bnxt-tx-discards", "nic_drops", NotFound),
    ("bnxt-tx-discards", "", NoCommand("-G")),
    ("ixgbe-no-dma", "nic_drops", Found("rx_no_dma_resources +900", "")),
    ("stmmac-overflow", "nic_drops", Found("mmc_rx_fifo_overflow", "")),
    ("mlx5-steer-missed", "nic_drops", NotFound),
    ("mlx5-steer-missed", "", NoCommand("ethtool -G")),
    ("drop-only-in-dev", "nic_drops", Found("drop column grew by 5000", "ethtool -S")),
    ("ixgbe-64-counters", "queue_imbalance", Right::Ok("80.0 %")),
    ("bnxt-imbalance", "queue_imbalance", Found("queue 2 got 98", "")),
    ("imb-be2net", "queue_imbalance", Found("queue 2 got 98", "")),
    ("sfc-imbalance", "queue_imbalance", Found("queue 2 got 98", "")),
    ("mana-imbalance", "queue_imbalance", Found("queue 2 got 98", "")),
    ("imb-stmmac", "queue_imbalance", Found("queue 2 got 98", "")),
    ("imb-aquantia", "queue_imbalance", Found("queue 2 got 98", "")),
    ("imb-ena", "queue_imbalance", Found("queue 2 got 98", "")),
    ("imb-mlx5", "queue_imbalance", Found("queue 2 got 98", "")),
    ("imb-i40e", "queue_imbalance", Found("queue 2 got 98", "")),
    ("ena-allowance", "cloud_limits", Found("pps_allowance_exceeded grew by 390", "")),
    ("rps-bond", "net_rx_on_one_cpu", Found("", "net/eth0/queues/rx-0/rps_cpus")),
    ("rps-bond", "", NoCommand("bond0/queues")),
    ("rps-bond-two", "net_rx_on_one_cpu", Found("", "net/eth0/queues/rx-0/rps_cpus")),
    ("rps-bond-two", "net_rx_on_one_cpu", Found("", "net/eth1/queues/rx-0/rps_cpus")),
    ("rps-bond-two", "", NoCommand("bond0/queues")),
    ("rps-vlan", "net_rx_on_one_cpu", Found("", "net/eth0/queues/rx-0/rps_cpus")),
    ("rps-vlan", "", NoCommand("eth0.100/queues")),
    ("isolcpus", "net_rx_on_one_cpu", Found("", "echo 00000003 >")),
    ("xps-order", "xps", Found("", "echo 00000004 > /sys/class/net/eth0/queues/tx-2/xps_cpus")),
    ("xps-order", "xps", Found("", "echo 00000400 > /sys/class/net/eth0/queues/tx-10/xps_cpus")),
    ("xps-more-queues-than-cpus", "xps", Found("", "tx-3/xps_cpus")),
    ("xps-more-queues-than-cpus", "", NoCommand("tx-4/xps_cpus")),
    ("xps-64", "xps", Found("", "echo 80000000,00000000 > /sys/class/net/eth0/queues/tx-63/")),
    ("qdisc-htb", "qdisc", Right::Ok("left alone")),
    ("qdisc-tbf", "qdisc", Right::Ok("left alone")),
    ("qdisc-netem", "qdisc", Right::Ok("left alone")),
    ("qdisc-drops-shaper", "qdisc", Right::Ok("as its configuration has it")),
    (
        "squeeze-time-limit",
        "time_squeeze",
        Found("time limit of 2000 us", "netdev_budget_usecs=4000"),
    ),
    ("squeeze-time-limit", "", NoCommand("netdev_budget=")),
    ("budget-contradiction", "time_squeeze", Found("", "mpstat")),
    ("budget-contradiction", "softirq_budget", Found("", "netdev_budget=300")),
    ("hot-irq-adaptive-already-on", "hot_irq", Found("adapts the rate", "ethtool -c")),
    ("hot-irq-adaptive-already-on", "", NoCommand("adaptive-rx off")),
    ("hot-irq-no-adaptive", "", NoCommand("adaptive-rx")),
    ("governor-mixed", "cpu_governor", Found("2 of 4", "for cpu in 2 3; do echo performance")),
    ("epp-mixed", "cpu_governor", Found("2 of 4", "for cpu in 2 3; do echo performance")),
    ("channels-256", "nic_queues", NotFound),
    ("veth-channels", "nic_queues", Right::Ok("however many queues")),
    ("hyperv-pcie-msi", "hot_irq", Found("(mlx5_comp0@pci:", "")),
    ("chip-opal", "hot_irq", Found("(eth1-0)", "")),
    ("interrupts-rpi-fiq", "hot_irq", Found("", "")),
    ("interrupts-s390", "hot_irq", Found("", "")),
    ("cpu-went", "hot_irq", Found("on CPU 2", "")),
    ("chip-old-kernel", "hot_irq", Found("(1gb0", "")),
    ("chip-old-number-name", "hot_irq", Found("(10-TxRx-0)", "")),
    ("ppc-smt-offline", "net_rx_on_one_cpu", Found("CPU 8", "00000303")),
    ("softirqs-256", "net_rx_on_one_cpu", Found("CPU 287", "ffffffff,ffffffff")),
    ("softnet-cpu-came", "softnet_drops", Found("500 packets", "")),
    ("snmp-currestab", "tcp_retransmits", Found("10.0 %", "")),
    ("snmp-maxconn", "tcp_retransmits", Found("10.0 %", "")),
    ("snmp-wrap", "tcp_collapse", Found("PruneCalled +500", "")),
    ("netstat-mptcp", "tcp_collapse", Found("PruneCalled +500", "")),
    ("netstat-gvisor", "tcp_collapse", Open("expected a line of values")),
    ("speed-65535", "link", Open("does not report the speed")),
    ("speed-4294967295", "link", Open("does not report the speed")),
    ("half-duplex-usb", "link", NotFound),
    ("virtio-rotational", "io_scheduler", NotFound),
    ("zvol-nbd-drbd", "io_scheduler", NotFound),
    ("nvme-multipath-old", "disk_latency", Found("nvme0c0n1", "")),
    ("nvme-multipath-new", "disk_latency", NotFound),
    ("cciss", "disk_latency", Found("60.00 ms", "")),
    ("diskstats-7-fields", "disk_latency", Found("60.00 ms", "")),
    ("numa-node-without-cpus", "irq_numa_node", NotFound),
    ("numa-management-irq", "irq_numa_node", NotFound),
    ("one-stray-irq", "irqs_on_one_cpu", Found("on CPU 0", "proc/irq/31/smp_affinity_list")),
    ("irq-affinity-managed", "", NoCommand("stop irqbalance")),
    ("name-utf8", "nic_drops", Found("é0", "é0")),
    ("name-leading-minus", "nic_drops", Found("-x", "")),
    ("rhel-kernel", "kernel_version", Found("4.18", "")),
    ("azure-vf-pair", "queue_imbalance", NotFound),
    ("flow-limit-drops", "softnet_drops", Right::Ok("the flow limit dropped 400")),
    ("squeeze-gro", "time_squeeze", Found("perhaps at the budget", "netdev_budget=600")),
    ("idle-stp", "nic_drops", NotFound),
    ("tap-drop", "nic_drops", NotFound),
    ("macb-resource", "nic_drops", Open("rx_resource_errors")),
    ("fec-macerr", "nic_drops", Open("IEEE_rx_macerr")),
    ("xgbe-unavail", "nic_drops", Open("unavailable")),
    ("octeontx2", "nic_drops", Open("rx_drops")),
    ("tx-ibmvnic", "nic_tx_drops", Open("not known: tx_dropped_packets")),
    ("far-spread", "", NoCommand("echo 1 >")),
    ("sixteen-rps", "", NoCommand("rx-0/rps_cpus")),
    ("one-housekeeping", "net_rx_on_one_cpu", NotFound),
    ("dpdk-isolated", "cpu_saturated", NotFound),
    ("virtio-one", "irqs_on_one_cpu", NotFound),
    ("mlx4-dual", "", NoCommand("eth0")),
    ("moved-offline", "", NoCommand("echo 3")),
    ("moved-empty", "", NoCommand("echo  >")),
    ("xps-mana", "xps", NotFound),
    ("xps-netvsc", "xps", NotFound),
    ("xps-xen", "xps", NotFound),
    ("queues-hv", "nic_queues", NotFound),
    ("coal-two", "", NoCommand("rx-usecs")),
    ("rmem-min", "", NoCommand("8388608 1048576")),
    ("tso-no-sg", "tso_off", NotFound),
    ("san", "io_scheduler", NotFound),
    ("qdisc-pfifo", "qdisc", NotFound),
    ("squeeze-zero", "", NoCommand("usecs=0")),
    ("squeeze-hz100", "softirq_budget", NotFound),
    ("epp-number", "cpu_governor", Found("preference 224", "performance")),
    ("epp-179", "cpu_governor", Right::Ok("powersave")),
    ("epp-192", "cpu_governor", Found("preference 192", "performance")),
    ("e1000e-missed", "nic_drops", Found("rx_missed_errors +4954", "")),
    ("be2net-no-frags", "nic_drops", Found("rxq0: rx_drops_no_frags +38856", "rx 1024")),
    ("idle-hybrid", "cpu_idle_states", Open("other CPUs may")),
    ("bmc-100", "link", Right::Ok("100 Mbit/s")),
    ("gro-idle", "gro_off", Right::Ok("gro is off")),
    ("squeeze-b0", "", NoCommand("budget=0")),
    ("backlog-int", "", NoCommand("4000000000")),
    ("offline-affinity", "", NoCommand("echo 7 >")),
    ("snmp-odd", "tcp_retransmits", Found("9.9 %", "")),
    ("coal-frames1", "nic_coalescing", NotFound),
    ("lro-fixed", "lro_forwarding", NotFound),
    ("qdisc-cake-mq", "qdisc", NotFound),
    ("bond-missed", "", NoCommand("-S bond0")),
    ("igb-missed", "nic_drops", Found("rx_missed_errors +300;", "")),
];

fn trial(name: &str) -> Captured {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/trials");
    let text = fs::read_to_string(path.join(format!("{name}.host"))).unwrap();
    captured::unpack("trials", &format!("{name}.host"), &text)
}

fn check(triage: &Triage, rule: &str, right: &Right) -> Result<(), String> {
    let answers: Vec<_> = triage
        .path
        .iter()
        .flat_map(|step| &step.rules)
        .filter(|answer| answer.rule == rule)
        .collect();
    let findings: Vec<_> = triage.findings.iter().filter(|finding| finding.rule == rule).collect();
    let is = |outcome, words: &str| {
        answers.iter().any(|answer| answer.outcome == outcome && answer.text.contains(words))
    };
    let is_right = match right {
        Found(seen, command) => findings.iter().any(|finding| {
            finding.detail.seen.contains(seen) && finding.detail.next().contains(command)
        }),
        Right::Ok(words) => is(Outcome::Ok, words) && findings.is_empty(),
        Open(words) => is(Outcome::Unknown, words) && findings.is_empty(),
        NotFound => findings.is_empty(),
        NoCommand(words) => triage.findings.iter().all(|finding| {
            let detail = &finding.detail;
            !detail.next().contains(words) && !detail.undo().unwrap_or_default().contains(words)
        }),
    };
    if is_right {
        return Ok(());
    }
    let commands: Vec<String> = findings.iter().map(|f| f.detail.next()).collect();
    let texts: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
    Err(format!("{texts:?} {commands:?}"))
}

#[test]
fn public_problems_get_the_right_answers() {
    let failures: Vec<String> = TRIALS
        .iter()
        .filter_map(|(name, rule, right)| {
            let error = check(&trial(name).judge(), rule, right).err()?;
            Some(format!("{name} {rule}: {error}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

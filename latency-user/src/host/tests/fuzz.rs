//! Parsers against arbitrary file contents: random bytes, and tables as kernels from 5.10 to 6.18
//! write them and later ones may.

use std::{fmt::Write as _, path::Path};

use proptest::prelude::*;

use crate::host::{
    cpu::{cpus, interrupts::Interrupts, softirqs::Softirqs, stat::Stat},
    diskstats,
    net::{interface_counters, protocol_counters::ProtocolCounters, softnet},
    pressure::Pressure,
};

/// Passes `text` to every parser; the results do not matter.
fn parse_as_anything(text: &str) {
    let path = Path::new("/x");
    let _ = Stat::parse(path, text);
    let _ = diskstats::parse(path, text);
    let _ = Pressure::parse(path, text);
    let _ = softnet::parse(path, text);
    let _ = ProtocolCounters::parse(path, text);
    let _ = interface_counters::parse(path, text);
    let _ = Interrupts::parse(path, text);
    let _ = Softirqs::parse(path, text);
    let _ = cpus::parse_list(text);
    let _ = cpus::parse_mask(text);
}

/// Texts made of the words and separators of such tables.
fn table_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("cpu".to_owned()),
        Just("CPU0".to_owned()),
        Just("some total=".to_owned()),
        Just("TcpExt:".to_owned()),
        Just("eth0:".to_owned()),
        Just(" ".to_owned()),
        Just("\n".to_owned()),
        Just("-".to_owned()),
        Just(",".to_owned()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        "\\PC{0,4}",
    ];
    prop::collection::vec((word, " |\n|\t|"), 0..64)
        .prop_map(|words| words.into_iter().map(|(word, space)| word + &space).collect())
}

/// Online CPUs: any of 256, at least one.
fn online() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::btree_set(0_u32..256, 1..=256).prop_map(|cpus| cpus.into_iter().collect())
}

/// Names that the kernel accepts for an interface.
fn interface_name() -> impl Strategy<Value = String> {
    "[^\\s/\\x00]{1,15}".prop_filter("dots are no names", |name| name != "." && name != "..")
}

/// Names of IRQs. A word that starts with `-`, or is `Level` or `Edge`, may be another column.
fn irq_name() -> impl Strategy<Value = String> {
    "[!-,.-~][!-~]{0,19}".prop_filter("columns", |name| !["Level", "Edge"].contains(&&**name))
}

fn header(cpus: &[u32]) -> String {
    cpus.iter().map(|cpu| format!("       CPU{cpu}")).collect()
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        parse_as_anything(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_tables_never_panic(text in table_like()) {
        parse_as_anything(&text);
    }

    #[test]
    fn stat_has_the_cpus_that_are_online(cpus in online(), more in 0_usize..4, tick in 0_u64..1 << 40) {
        let columns = " 0".repeat(more);
        let mut text = format!("cpu  1 2 3 4 5 6 7 8 9 10{columns}\n");
        for cpu in &cpus {
            let _ = writeln!(text, "cpu{cpu} {tick} 2 3 4 5 6 7 8 9 10{columns}");
        }
        text.push_str("intr 1 2 3\nctxt 5\n");
        let stat = Stat::parse(Path::new("/x"), &text).unwrap();
        prop_assert_eq!(stat.cpus.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>(), cpus);
        prop_assert!(stat.cpus.iter().all(|(_, ticks)| ticks.user == tick + 2 && ticks.steal == 8));
    }

    #[test]
    fn softnet_grew_from_11_to_13_and_15_columns(cpus in online(), era in 0_usize..4) {
        let mut text = String::new();
        for cpu in &cpus {
            let columns = [11, 13, 15, 17][era];
            let mut line: Vec<String> = (1..=columns).map(|n| format!("{n:08x}")).collect();
            if columns > 12 {
                line[12] = format!("{cpu:08x}");
            }
            let _ = writeln!(text, "{}", line.join(" "));
        }
        let softnet = softnet::parse(Path::new("/x"), &text).unwrap();
        prop_assert_eq!(softnet.len(), cpus.len());
        for (line, cpu) in softnet.iter().zip(&cpus) {
            prop_assert_eq!(line.cpu, (era > 0).then_some(*cpu));
            prop_assert_eq!((line.dropped, line.received_rps, line.flow_limit), (2, Some(10), Some(11)));
        }
    }

    #[test]
    fn diskstats_grew_from_11_to_15_and_17_counters(
        era in 0_usize..4,
        name in "[a-z!][a-z0-9!_-]{0,30}",
        busy in any::<u32>(),
    ) {
        let counters = [11, 15, 17, 19][era];
        let mut line: Vec<String> = (1..=counters).map(|n| n.to_string()).collect();
        line[9] = busy.to_string();
        let text = format!(" 259       0 {name} {}\n", line.join(" "));
        let disks = diskstats::parse(Path::new("/x"), &text).unwrap();
        let disk = disks[&name].as_ref().unwrap();
        prop_assert_eq!(disk.busy_ms, u64::from(busy));
        prop_assert_eq!((disk.read_ms, disk.weighted_ms), (4, 11));
    }

    #[test]
    fn interrupts_and_softirqs_have_a_column_for_each_cpu(cpus in online(), name in irq_name()) {
        let counts: String = cpus.iter().map(|cpu| format!(" {:10}", cpu * 7)).collect();
        let text = format!(
            "{}\n  30:{counts}  PCI-MSIX-0000:00:03.0  1-edge      {name}\n NMI:{counts}  x\n",
            header(&cpus)
        );
        let interrupts = Interrupts::parse(Path::new("/x"), &text).unwrap();
        prop_assert_eq!(&interrupts.cpus, &cpus);
        prop_assert_eq!(interrupts.name(30), Some(name.as_str()));
        let expected: Vec<u64> = cpus.iter().map(|cpu| u64::from(*cpu) * 7).collect();
        prop_assert_eq!(&interrupts.lines[0].counts, &expected);
        let text = format!("{}\n      NET_RX:{counts}\n", header(&cpus));
        let softirqs = Softirqs::parse(Path::new("/x"), &text).unwrap();
        prop_assert_eq!(softirqs.counts("NET_RX").unwrap().len(), cpus.len());
    }

    #[test]
    fn interfaces_may_have_any_name(name in interface_name(), packets in any::<u64>()) {
        let text = format!("a\nb\n{name}: 0 {packets} 0 0 0 0 0 0 0 7 0 0 0 0 0 0\n");
        let found = interface_counters::parse(Path::new("/x"), &text).unwrap().found;
        prop_assert_eq!(found[name.as_str()].rx_packets, packets);
    }

    #[test]
    fn counters_are_found_wherever_a_kernel_puts_them(
        names in prop::collection::btree_set("[A-Z][A-Za-z]{1,20}", 1..150),
        value in any::<i64>(),
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let values: Vec<String> = names.iter().map(|_| value.to_string()).collect();
        let text = format!("TcpExt: {}\nTcpExt: {}\n", names.join(" "), values.join(" "));
        let counters = ProtocolCounters::parse(Path::new("/x"), &text).unwrap();
        for name in &names {
            prop_assert_eq!(counters.get("TcpExt", name), Some(value));
        }
    }
}

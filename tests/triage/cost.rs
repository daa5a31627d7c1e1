//! CPU time that judging a large host takes.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use latency_tests::cpu_time;
use latency_user::{
    host::nic::directory::{Nic, NicDirectory},
    triage::{self, SampleConfig},
};

/// Processes of the host.
const PROCESSES: usize = 2000;

/// Creates the files of a host with `cpus` CPUs and one NIC with `queues` queues.
fn host(root: &Path, cpus: usize, queues: usize) {
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let mut stat = format!("cpu  {} 0 0 {} 0 0 0 0 0 0\n", cpus * 100, cpus * 900);
    let mut softnet = String::new();
    for cpu in 0..cpus {
        let _ = writeln!(stat, "cpu{cpu} 100 0 0 900 0 0 0 0 0 0");
        let _ = writeln!(softnet, "1000 0 0 0 0 0 0 0 0 0 0 0 {cpu:x} 0 0");
        let directory = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq");
        put(&format!("{directory}/scaling_governor"), "performance\n");
        put(&format!("{directory}/scaling_driver"), "acpi-cpufreq\n");
    }
    put("proc/stat", &stat);
    put("proc/net/softnet_stat", &softnet);
    put("sys/devices/system/cpu/online", &format!("0-{}\n", cpus - 1));
    let header: String = (0..cpus).map(|cpu| format!("CPU{cpu} ")).collect();
    let counts: String = (0..cpus).map(|cpu| format!("{} ", cpu * 1000)).collect();
    put("proc/softirqs", &format!("{header}\nNET_RX: {counts}\n"));
    let mut interrupts = format!("{header}\n");
    put("sys/class/net/eth0/ifindex", "2\n");
    for queue in 0..queues {
        let number = 100 + queue;
        let _ = writeln!(
            interrupts,
            "{number}: {counts} PCI-MSIX-0000:01:00.0 {queue}-edge eth0-TxRx-{queue}"
        );
        put(&format!("proc/irq/{number}/smp_affinity_list"), &format!("{queue}\n"));
        put(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0\n");
        put(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_flow_cnt"), "0\n");
        put(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "1\n");
        put(&format!("sys/class/net/eth0/device/msi_irqs/{number}"), "msix\n");
    }
    put("proc/interrupts", &interrupts);
    put("proc/thread-self/ns/net", "");
    put("proc/thread-self/net/dev", "a\nb\neth0: 0 100000 0 0 0 0 0 0 0 0\n");
    put("sys/class/net/eth0/operstate", "up\n");
    for process in 0..PROCESSES {
        put(&format!("proc/{}/comm", process + 1), "nginx\n");
    }
}

/// A NIC driver that reports 64 counters and nothing else.
struct Driver;

impl NicDirectory for Driver {
    fn nic(&mut self, name: &str) -> Nic {
        let counters: Vec<_> =
            (0..64).map(|queue| (format!("rx_queue_{queue}_packets"), queue)).collect();
        let nic = serde_json::json!({ "name": name, "counters": { "Ok": counters } });
        serde_json::from_value(nic).unwrap()
    }
}

/// CPU time of both samples and the judgement: the minimum of three.
fn cost(cpus: usize, queues: usize) -> Duration {
    let root = tempfile::tempdir().unwrap();
    host(root.path(), cpus, queues);
    let config = SampleConfig {
        duration: Duration::from_millis(1),
        trace: false,
        max_overhead: None,
        daemon: None,
    };
    let run = || {
        let before = cpu_time::of_this_thread();
        let host = triage::sample(root.path(), &mut Driver, &config);
        let judged = triage::judge(&host, &host.busy_interfaces());
        assert_eq!(judged.ifaces, ["eth0"]);
        cpu_time::of_this_thread() - before
    };
    (0..3).map(|_| run()).min().unwrap()
}

/// The table of IRQs grows with CPUs times queues; the cost must not grow faster.
#[test]
fn cost_grows_no_faster_than_the_tables() {
    let (small, large) = (cost(64, 16), cost(256, 64));
    println!("64 CPUs, 16 queues: {small:?}; 256 CPUs, 64 queues: {large:?} of CPU time");
    let ratio = large.as_secs_f64() / small.as_secs_f64();
    assert!(ratio < 32.0, "16 times the table costs {ratio} times as much");
}

//! Describes the machine: figures mean nothing without it.

use std::{fs, process::Command, sync::LazyLock, thread};

use serde_json::{Value, json};

use crate::process;

/// Whether the kernel takes the time of softirqs out of that of the task which they interrupt
/// (`CONFIG_IRQ_TIME_ACCOUNTING`). If its configuration is nowhere, it may.
pub(crate) fn has_irq_time() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let unpacked = process::capture(Command::new("zcat").arg("/proc/config.gz"));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let text = unpacked
            .or_else(|_| fs::read_to_string(format!("/boot/config-{}", release.trim())))
            .unwrap_or_default();
        text.is_empty() || text.lines().any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y")
    });
    *HAS
}

/// What a reader of the figures must know about the machine.
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    date: String,
    load: String,
}

impl Machine {
    pub(crate) fn detect() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        // Without GNU date the table has no date; nothing else depends on it.
        let date = process::capture(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: cpu.map_or("unknown CPU", |(_, name)| name.trim()).to_owned(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            date: date.unwrap_or_default().trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// Two lines of text.
    pub(crate) fn text(&self) -> String {
        let Self { kernel, cpu, cpus, date, load } = self;
        format!("Linux {kernel}, {cpus} CPUs, {date}\n{cpu}; load average {load} before\n")
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "kernel": self.kernel, "cpu": self.cpu, "cpus": self.cpus, "date": self.date,
                "load_average_before": self.load })
    }
}

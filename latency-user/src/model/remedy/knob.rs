//! Settings that a remedy changes: where each is stored, and the command that sets it.

use super::{shell::quoted, value::Value};

/// A setting of the machine, one for each device, queue and CPU.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knob {
    /// A sysctl, with dots.
    Sysctl(&'static str),
    /// The CPUs of a hard IRQ.
    IrqAffinity {
        /// Its number.
        irq: u32,
    },
    /// The CPUs that process the packets of an RX queue (RPS).
    Rps {
        /// Name of the interface.
        iface: String,
        /// Number of the queue.
        queue: u32,
    },
    /// The CPUs that send through a TX queue (XPS).
    Xps {
        /// Name of the interface.
        iface: String,
        /// Number of the queue.
        queue: u32,
    },
    /// A file of an interface.
    Interface {
        /// Name of the interface.
        iface: String,
        /// Name of the file.
        file: &'static str,
    },
    /// A ring (`rx`), a number of queues (`combined`), coalescing (`rx-usecs`) or an offload
    /// (`gro`), as `ethtool` sets them.
    Ethtool {
        /// Name of the interface.
        iface: String,
        /// Which of them.
        kind: EthtoolKind,
        /// Its name.
        name: &'static str,
    },
    /// The scheduler of a disk.
    IoScheduler {
        /// Its name in `/sys/block`.
        disk: String,
    },
    /// The frequency governor of a CPU.
    Governor {
        /// The CPU.
        cpu: u32,
    },
    /// What a CPU prefers, performance or energy.
    EnergyPreference {
        /// The CPU.
        cpu: u32,
    },
    /// Whether an idle state of a CPU is disabled: 0 or 1.
    IdleState {
        /// The CPU.
        cpu: u32,
        /// Number of the state.
        state: u32,
    },
    /// The root qdisc of an interface, one without parameters.
    RootQdisc {
        /// Name of the interface.
        iface: String,
    },
}

/// What `ethtool` calls a group of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EthtoolKind {
    /// Descriptors of a ring (`-G`).
    Ring,
    /// Numbers of queues (`-L`).
    Channels,
    /// Interrupt coalescing (`-C`).
    Coalesce,
    /// Offloads (`-K`).
    Offload,
}

impl EthtoolKind {
    const fn option(self) -> &'static str {
        match self {
            Self::Ring => "-G",
            Self::Channels => "-L",
            Self::Coalesce => "-C",
            Self::Offload => "-K",
        }
    }

    const fn tunable(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Channels => "channels",
            Self::Coalesce => "coalesce",
            Self::Offload => "offload",
        }
    }
}

impl Knob {
    /// The file that holds it, without a leading slash; `None`: no file does.
    pub fn path(&self) -> Option<String> {
        const CPU: &str = "sys/devices/system/cpu/cpu";
        Some(match self {
            Self::Sysctl(name) => format!("proc/sys/{}", name.replace('.', "/")),
            Self::IrqAffinity { irq } => format!("proc/irq/{irq}/smp_affinity_list"),
            Self::Rps { iface, queue } => {
                format!("sys/class/net/{iface}/queues/rx-{queue}/rps_cpus")
            }
            Self::Xps { iface, queue } => {
                format!("sys/class/net/{iface}/queues/tx-{queue}/xps_cpus")
            }
            Self::Interface { iface, file } => format!("sys/class/net/{iface}/{file}"),
            Self::IoScheduler { disk } => format!("sys/block/{disk}/queue/scheduler"),
            Self::Governor { cpu } => format!("{CPU}{cpu}/cpufreq/scaling_governor"),
            Self::EnergyPreference { cpu } => {
                format!("{CPU}{cpu}/cpufreq/energy_performance_preference")
            }
            Self::IdleState { cpu, state } => format!("{CPU}{cpu}/cpuidle/state{state}/disable"),
            Self::Ethtool { .. } | Self::RootQdisc { .. } => return None,
        })
    }

    /// The command that sets it.
    pub fn set(&self, value: &Value) -> String {
        match self {
            Self::Sysctl(name) if value.as_str().contains(' ') => {
                format!("sysctl -w {name}=\"{value}\"")
            }
            Self::Sysctl(name) => format!("sysctl -w {name}={value}"),
            Self::Ethtool { iface, kind, name } => {
                format!("ethtool {} {} {name} {value}", kind.option(), quoted(iface))
            }
            Self::RootQdisc { iface } => {
                format!("tc qdisc replace dev {} root {value}", quoted(iface))
            }
            _ => {
                let path = self.path().unwrap_or_default();
                format!("echo {value} > {}", quoted(&format!("/{path}")))
            }
        }
    }

    /// The settings of `experiment` that sets it; `None`: experiments do not change it.
    pub fn tunable(&self, value: &Value) -> Option<String> {
        Some(match self {
            Self::Sysctl(name) => format!("sysctl:{name}={value}"),
            Self::Ethtool { iface, kind, name } => {
                format!("{}:{iface}/{name}={value}", kind.tunable())
            }
            Self::Interface { iface, file: "threaded" } => format!("threaded:{iface}={value}"),
            Self::Interface { iface, file: "gro_flush_timeout" } => {
                format!("gro_flush_timeout:{iface}={value}")
            }
            Self::Interface { iface, file: "napi_defer_hard_irqs" } => {
                format!("napi_defer_hard_irqs:{iface}={value}")
            }
            Self::IoScheduler { disk } => format!("scheduler:{disk}={value}"),
            Self::Rps { iface, queue } => format!("rps:{iface}/{queue}={}", value.mask_as_list()?),
            Self::Xps { iface, queue } => format!("xps:{iface}/{queue}={}", value.mask_as_list()?),
            _ => return None,
        })
    }

    /// How to keep the value over a reboot; `None`: it depends on the distribution.
    pub fn persist(&self, value: &Value) -> Option<String> {
        Some(match self {
            Self::Sysctl(name) => {
                format!("echo '{name} = {value}' > /etc/sysctl.d/90-{name}.conf")
            }
            Self::Ethtool { kind, name, .. } => {
                let key = match (kind, *name) {
                    (EthtoolKind::Ring, "rx") => "RxBufferSize",
                    (EthtoolKind::Ring, _) => "TxBufferSize",
                    (EthtoolKind::Channels, "rx") => "RxChannels",
                    (EthtoolKind::Channels, "tx") => "TxChannels",
                    (EthtoolKind::Channels, _) => "CombinedChannels",
                    (EthtoolKind::Coalesce, "rx-usecs") => {
                        return Some(link_file(&format!("RxCoalesceSec={value}us")));
                    }
                    (EthtoolKind::Coalesce, "adaptive-rx") => "UseAdaptiveRxCoalesce",
                    (EthtoolKind::Offload, "gro") => "GenericReceiveOffload",
                    (EthtoolKind::Offload, "tso") => "TCPSegmentationOffload",
                    (EthtoolKind::Offload, "lro") => "LargeReceiveOffload",
                    (EthtoolKind::Offload, "rx") => "ReceiveChecksumOffload",
                    (EthtoolKind::Offload, "tx") => "TransmitChecksumOffload",
                    _ => return None,
                };
                link_file(&format!("{key}={value}"))
            }
            Self::Interface { file, .. } => udev_rule(file, value),
            Self::Rps { queue, .. } => udev_rule(&format!("queues/rx-{queue}/rps_cpus"), value),
            Self::Xps { queue, .. } => udev_rule(&format!("queues/tx-{queue}/xps_cpus"), value),
            Self::IrqAffinity { .. } => {
                "a systemd unit that looks the IRQ up by its name at each start, because numbers \
                 change; irqbalance must leave it (--banirq)"
                    .to_owned()
            }
            _ => return None,
        })
    }

    /// The setting that stands for all of which one makes the others without effect: coalescing that
    /// the driver adapts ignores fixed delays.
    pub fn rival(&self) -> Self {
        match self {
            Self::Ethtool { iface, kind: EthtoolKind::Coalesce, name }
                if matches!(*name, "rx-usecs" | "rx-frames") =>
            {
                Self::Ethtool {
                    iface: iface.clone(),
                    kind: EthtoolKind::Coalesce,
                    name: "adaptive-rx",
                }
            }
            other => other.clone(),
        }
    }

    /// What happens while it is set, beside its effect.
    pub fn side_effect(&self) -> Option<&'static str> {
        match self {
            Self::Ethtool { kind: EthtoolKind::Ring, .. } => Some(
                "most drivers take the link down for a moment, and some switches then wait for \
                 seconds (spanning tree); packets in the rings are lost",
            ),
            Self::Ethtool { kind: EthtoolKind::Channels, .. } => Some(
                "most drivers take the link down for a moment; queues get new IRQs, and lose \
                 their CPUs, RPS and XPS",
            ),
            Self::Ethtool { kind: EthtoolKind::Offload, name: "lro" | "rx", .. } => {
                Some("some drivers take the link down for a moment")
            }
            Self::RootQdisc { .. } => Some("packets that wait in the old qdisc are dropped"),
            _ => None,
        }
    }
}

fn link_file(line: &str) -> String {
    format!("systemd .link file of the interface, section [Link]: {line}")
}

fn udev_rule(attribute: &str, value: &Value) -> String {
    format!("udev rule of the interface: ATTR{{{attribute}}}=\"{value}\"")
}

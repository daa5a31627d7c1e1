//! `/proc/interrupts`: hard IRQs, how often each CPU handled them, and their names.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail};

use super::cpus::parse_header;

/// The complete table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// The columns: CPUs that are online.
    pub cpus: Vec<u32>,
    /// The lines, in the kernel's order.
    pub lines: Vec<Interrupt>,
    /// What is wrong with lines that cannot be parsed, with file and line, and the number before the
    /// colon, if there is one.
    pub damaged: Vec<(Option<u32>, String)>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The IRQ's number; `None` for the architecture's own, such as `LOC`.
    pub number: Option<u32>,
    /// The text before the colon: the number, `LOC`, `IPI0`.
    pub label: String,
    /// How often each CPU of [`Interrupts::cpus`] handled it. `ERR` and `MIS` have one count only.
    pub counts: Vec<u64>,
    /// Names of its actions, joined by `, `; for the architecture's own, a description. May be
    /// empty.
    pub name: String,
}

impl Interrupts {
    /// Reads the table.
    ///
    /// # Errors
    ///
    /// When the file cannot be read; when a line cannot be parsed, with its number.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join("proc/interrupts");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&path, &text)
    }

    /// The name of IRQ `number`, when it has one.
    pub fn name(&self, number: u32) -> Option<&str> {
        let line = self.lines.iter().find(|line| line.number == Some(number))?;
        (!line.name.is_empty()).then_some(line.name.as_str())
    }

    /// What is wrong with the line of one of these IRQs, or with a line of an unknown one.
    pub fn damage(&self, irqs: &BTreeSet<u32>) -> Option<&str> {
        let concerns = |number: &Option<u32>| number.is_none_or(|number| irqs.contains(&number));
        self.damaged.iter().find(|(number, _)| concerns(number)).map(|(_, error)| error.as_str())
    }

    /// Parses the table; `path` is named in errors. A damaged line does not hide the others.
    ///
    /// # Errors
    ///
    /// When the header or every line cannot be parsed, with the number of the first.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let cpus = match lines.next() {
            Some((_, header)) => parse_header(path, header)?,
            None => bail!("{}:1: expected a line of CPUs, found an empty file", path.display()),
        };
        let mut table = Self { cpus, ..Self::default() };
        let mut first = None;
        for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let parsed = parse_line(line, table.cpus.len())
                .with_context(|| format!("{}:{}", path.display(), index + 1));
            match parsed {
                Ok(line) => table.lines.push(line),
                Err(error) => {
                    let label = line.split_once(':').map(|(label, _)| label.trim());
                    let number = label.and_then(|label| label.parse().ok());
                    table.damaged.push((number, format!("{error:#}")));
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            Some(error) if table.lines.is_empty() => Err(error),
            _ => Ok(table),
        }
    }
}

fn parse_line(line: &str, cpus: usize) -> Result<Interrupt> {
    let Some((label, mut rest)) = line.split_once(':') else {
        bail!("expected an IRQ and a colon, found {line:?}");
    };
    let label = label.trim();
    let mut counts = Vec::with_capacity(cpus);
    while counts.len() < cpus {
        let (word, after) = split_word(rest);
        let Ok(count) = word.parse() else { break };
        counts.push(count);
        rest = after;
    }
    let number = label.parse().ok();
    let name = if number.is_some() {
        if counts.len() < cpus {
            bail!("expected {cpus} counts of IRQ {label}, found {}", counts.len());
        }
        action_names(rest)
    } else {
        rest.trim()
    };
    Ok(Interrupt { number, label: label.to_owned(), counts, name: name.to_owned() })
}

/// How the kernel calls what it does with an interrupt (`desc->name`), by architecture.
const FLOWS: [&str; 12] = [
    "edge",
    "level",
    "fasteoi",
    "fasteoi_ack",
    "percpu",
    "simple",
    "event",
    "virq",
    "ipi",
    "pirq",
    "pirq-ioapic-edge",
    "pirq-ioapic-level",
];

/// The rest of a numbered line after its counts and the columns chip, hardware number and flow.
/// The name of a chip may contain spaces, and the others may be missing:
/// `IO-APIC   5-edge      ACPI:Ged`, `GICv3  27 Level     arch_timer`, `xen-dyn    -event     eth0`,
/// `Hyper-V PCIe MSI 1-edge      mlx5`, before Linux 3.19 `PCI-MSI-edge      eth0`.
///
/// `show_interrupts` in <https://elixir.bootlin.com/linux/v6.12/source/kernel/irq/proc.c>
fn action_names(columns: &str) -> &str {
    let columns = columns.trim();
    let words: Vec<&str> = columns.split_whitespace().collect();
    let has_flow = |word: &&str| {
        FLOWS.iter().any(|flow| {
            word.strip_suffix(flow).is_some_and(|chip_or_number| chip_or_number.ends_with('-'))
        })
    };
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    // In this order: an action may be called 44, `my-edge` or `Level` as well.
    let flow = words.iter().position(has_flow);
    let trigger = words.iter().skip(1).position(|word| matches!(*word, "Level" | "Edge"));
    let number = words.iter().skip(1).position(|word| is_number(word)).map(|at| at + 1);
    let last = match (flow, trigger.map(|at| at + 1), number) {
        (Some(flow), _, Some(number)) if number < flow => number,
        (Some(flow), ..) => flow,
        (None, Some(trigger), _) => trigger,
        (None, None, Some(number)) => number,
        (None, None, None) => 0,
    };
    let mut rest = columns;
    for _ in 0..=last.min(words.len().saturating_sub(1)) {
        rest = split_word(rest).1;
    }
    rest.trim()
}

/// The first word and the rest.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/proc/interrupts";

    const TEXT: &str = "           CPU0       CPU2       \n\
         \u{20} 0:        123          0   IO-APIC   2-edge      timer\n\
         \u{20} 9:          1          0   IO-APIC   9-fasteoi   acpi, i801_smbus, my dev\n\
         \u{20}25:          0         12 PCI-MSIX-0000:00:03.0   1-edge      virtio1-input.0\n\
         \u{20}26:          0          7 IR-PCI-MSI 524289-edge      mlx5_comp3@pci:0000:01:00.0\n\
         \u{20}27:       9000       8000     GICv3  27 Level     arch_timer\n\
         \u{20}28:          5          6   xen-dyn    -event     eth0-q0-tx\n\
         \u{20}29:          1          1      None               \n\
         \u{20}30:          1          1   IO-APIC   3-edge    \n\
         \u{20}31:          1          1  dummy     44          rtc 0\n\
         \u{20}32:          1          1  Hyper-V PCIe MSI 4026531841-edge      mlx5_comp0@pci:1\n\
         \u{20}33:          1          1  BRCM STB PCIe MSI 524288 Edge      eth1-TxRx-0\n\
         \u{20}34:          1          1  OPAL EVT   5 Level     eth1-0\n\
         \u{20}35:          1          1   PCI-MSI-edge      10-TxRx-0\n\
         \u{20}36:          1          1  IR-PCI-MSI-0000:04:00.0    0-edge      nvme0q0\n\
         \u{20}37:          1          1  pinctrl 7  my-edge\n\
         NMI:          0          3   Non-maskable interrupts\n\
         IPI0:       17         19       Rescheduling interrupts\n\
         ERR:          4\n";

    fn parse(text: &str) -> Result<Interrupts> {
        Interrupts::parse(Path::new(PATH), text)
    }

    #[test]
    fn columns_before_the_name_come_in_many_shapes() {
        let interrupts = parse(TEXT).unwrap();
        let expected = [
            (0, Some("timer")),
            (9, Some("acpi, i801_smbus, my dev")),
            (25, Some("virtio1-input.0")),
            (26, Some("mlx5_comp3@pci:0000:01:00.0")),
            (27, Some("arch_timer")),
            (28, Some("eth0-q0-tx")),
            (29, None),
            (30, None),
            (31, Some("rtc 0")),
            (32, Some("mlx5_comp0@pci:1")),
            (33, Some("eth1-TxRx-0")),
            (34, Some("eth1-0")),
            (35, Some("10-TxRx-0")),
            (36, Some("nvme0q0")),
            (37, Some("my-edge")),
            (38, None),
        ];
        for (number, name) in expected {
            assert_eq!(interrupts.name(number), name, "IRQ {number}");
        }
    }

    #[test]
    fn counts_belong_to_the_cpus_of_the_header() {
        let interrupts = parse(TEXT).unwrap();
        assert_eq!(interrupts.cpus, [0, 2]);
        assert_eq!(interrupts.lines[2].counts, [0, 12]);
        let own = &interrupts.lines[15..];
        assert_eq!(own[0].label, "NMI");
        assert_eq!(own[0].number, None);
        assert_eq!(own[0].name, "Non-maskable interrupts");
        assert_eq!(own[1].counts, [17, 19]);
        assert_eq!((own[2].counts.as_slice(), own[2].name.as_str()), (&[4][..], ""));
    }

    #[test]
    fn errors_name_file_and_line() {
        let cases = [
            ("", "/proc/interrupts:1: expected a line of CPUs"),
            ("CPU0 CPUx\n", "/proc/interrupts:1: expected a column CPU<number>, found \"CPUx\""),
            ("CPU0\n 3 4\n", "/proc/interrupts:2: expected an IRQ and a colon"),
            ("CPU0 CPU1\n 1: 2 chip\n", "/proc/interrupts:2: expected 2 counts of IRQ 1, found 1"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_damaged_line_hides_no_other() {
        let table = parse("CPU0\n 1: 2 chip\n 7: x\nNMI: 1\n").unwrap();
        assert_eq!(table.lines.len(), 2);
        let error = table.damage(&[7].into()).unwrap();
        assert!(error.starts_with("/proc/interrupts:3: expected 1 counts of IRQ 7"), "{error}");
        assert_eq!(table.damage(&[1].into()), None);
        assert!(parse("CPU0\n 1: 2 chip\n 3 4\n").unwrap().damage(&[1].into()).is_some());
    }

    #[test]
    fn the_live_table_has_what_proc_irq_has() {
        let interrupts = Interrupts::read(Path::new("/")).unwrap();
        for line in &interrupts.lines {
            let Some(number) = line.number else { continue };
            // The kernel creates a directory named after each action.
            let Ok(directory) = fs::read_dir(format!("/proc/irq/{number}")) else { continue };
            for entry in directory {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    let action = entry.file_name().into_string().unwrap();
                    assert!(line.name.split(", ").any(|name| name == action), "{line:?}: {action}");
                }
            }
        }
    }
}

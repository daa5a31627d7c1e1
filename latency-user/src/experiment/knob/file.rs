//! Knobs that are kernel files, and how their contents are compared.

use std::{fs, io, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{experiment::netns, host::cpu::cpus};

/// Where the kernel keeps the files of IRQs.
const IRQS: &str = "/proc/irq";

/// A file that holds a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileKnob {
    /// The file.
    pub path: PathBuf,
    /// Inode of the network namespace that the file belongs to; absent for shared files.
    pub netns: Option<u32>,
    /// The form of its content.
    pub form: Form,
}

/// The form of a knob's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Words: the amount of white space between them is ignored.
    Words,
    /// A list of CPUs such as `0-3,6`, in any order.
    Cpus,
    /// A mask of CPUs: hexadecimal, commas between 32-bit words, leading zeros ignored.
    Mask,
    /// All choices, the current one in brackets.
    Choice,
}

impl FileKnob {
    /// As [`super::Knob::read`].
    pub(super) fn read(&self) -> Result<String> {
        let text = self.visit(|| {
            fs::read_to_string(&self.path).with_context(|| format!("read {}", self.path.display()))
        })?;
        Ok(self.form.normal(&text))
    }

    /// As [`super::Knob::write`].
    pub(super) fn write(&self, value: &str) -> Result<()> {
        self.visit(|| {
            fs::write(&self.path, value)
                .map_err(|error| self.explain(error))
                .with_context(|| format!("write {value:?} to {}", self.path.display()))
        })
    }

    /// As [`super::Knob::is_setting`].
    pub(super) fn is_setting(&self) -> bool {
        let Some(path) = self.path.to_str() else { return false };
        let parts: Vec<&str> = path.split('/').collect();
        if parts.iter().skip(1).any(|part| matches!(*part, "" | "." | "..")) {
            return false;
        }
        match parts[..] {
            ["", "proc", "sys", _, ..] => true,
            ["", "proc", "irq", irq, "smp_affinity_list"] => irq.parse::<u32>().is_ok(),
            [
                "",
                "sys",
                "class",
                "net",
                _,
                "queues",
                _,
                "rps_cpus" | "rps_flow_cnt" | "xps_cpus",
            ]
            | ["", "sys", "class", "net", _, _]
            | ["", "sys", "block", _, "queue", "scheduler"] => true,
            _ => false,
        }
    }

    /// As [`super::Knob::is_gone`].
    pub(super) fn is_gone(&self) -> bool {
        if self.netns.is_some_and(|netns| !netns::exists(netns)) {
            return true;
        }
        self.visit(|| Ok(!self.path.exists())).unwrap_or(false)
    }

    /// Explains the errno of writes to kernel-managed IRQs: `EIO`, on newer kernels `EPERM`.
    fn explain(&self, error: io::Error) -> anyhow::Error {
        let is_managed = self.path.starts_with(IRQS)
            && matches!(error.raw_os_error(), Some(libc::EIO | libc::EPERM));
        let error = anyhow::Error::from(error);
        if is_managed {
            return error.context("the kernel manages the CPUs of this IRQ: they cannot be set");
        }
        error
    }

    fn visit<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        netns::within(self.netns, self.path.starts_with("/sys"), body)
    }
}

impl Form {
    /// The normalized form of a content.
    pub fn normal(self, text: &str) -> String {
        match self {
            Self::Words => text.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
            Self::Cpus => {
                let Ok(mut cpus) = cpus::parse_list(text.trim()) else {
                    return text.trim().to_owned();
                };
                cpus.sort_unstable();
                cpus.dedup();
                cpus::list(&cpus)
            }
            Self::Mask => {
                let digits: String = text.trim().split(',').map(padded).collect();
                let digits = digits.trim_start_matches('0');
                let rest = digits.len() % 8;
                let (head, tail) = digits.split_at(rest);
                let words = tail.as_bytes().chunks(8).map(String::from_utf8_lossy);
                let head = (!head.is_empty()).then(|| head.into());
                let words: Vec<_> = head.into_iter().chain(words).collect();
                if words.is_empty() { "0".into() } else { words.join(",").to_lowercase() }
            }
            Self::Choice => {
                let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
                chosen.map_or(text.trim(), |(chosen, _)| chosen).to_owned()
            }
        }
    }
}

fn padded(word: &str) -> String {
    format!("{word:0>8}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_mean_the_same_are_the_same() {
        for (form, left, right, same) in [
            (Form::Words, "4096\t131072\t6291456\n", "4096 131072 6291456", true),
            (Form::Words, "1 2", "12", false),
            (Form::Mask, "00000000,00000003\n", "3", true),
            (Form::Mask, "1,00000003", "00000001,00000003", true),
            (Form::Mask, "F", "f", true),
            (Form::Mask, "0\n", "00000000", true),
            (Form::Mask, "1,00000000", "1", false),
            (Form::Cpus, "0,1,2,5\n", "5,0-2", true),
            (Form::Cpus, "0-1", "0,2", false),
            (Form::Choice, "none [mq-deadline] bfq\n", "mq-deadline", true),
            (Form::Choice, "[none]", "mq-deadline", false),
        ] {
            assert_eq!(form.normal(left) == form.normal(right), same, "{left:?} {right:?}");
        }
        assert_eq!(Form::Mask.normal("100000002"), "1,00000002");
    }

    #[test]
    fn only_settings_are_settings() {
        let is_setting = |path: &str| {
            FileKnob { path: path.into(), netns: None, form: Form::Words }.is_setting()
        };
        for path in [
            "/proc/sys/net/ipv4/tcp_rmem",
            "/proc/sys/net/ipv4/conf/eth0.7/rp_filter",
            "/proc/irq/30/smp_affinity_list",
            "/sys/class/net/eth0/queues/rx-0/rps_cpus",
            "/sys/class/net/eth0/queues/tx-0/xps_cpus",
            "/sys/class/net/eth0/gro_flush_timeout",
            "/sys/block/sda/queue/scheduler",
        ] {
            assert!(is_setting(path), "{path}");
        }
        for path in [
            "/etc/passwd",
            "/proc/sys",
            "/proc/sys/../sysrq-trigger",
            "/proc/sys//x",
            "/proc/sysrq-trigger",
            "/proc/irq/30/../../sysrq-trigger",
            "/proc/irq/x/smp_affinity_list",
            "/sys/class/net/eth0/device/reset",
            "/sys/class/net/eth0/queues/rx-0/../../device/reset",
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "proc/sys/net/core/busy_poll",
            "",
        ] {
            assert!(!is_setting(path), "{path}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let path = PathBuf::from("/no/such/file");
        let knob = FileKnob { path, netns: None, form: Form::Words };
        assert!(format!("{:#}", knob.read().unwrap_err()).contains("read /no/such/file"));
        assert!(format!("{:#}", knob.write("1").unwrap_err()).contains("write \"1\" to /no"));
        assert!(knob.is_gone());
    }

    #[test]
    fn an_irq_that_the_kernel_manages_says_so() {
        let path = PathBuf::from("/proc/irq/30/smp_affinity_list");
        let irq = FileKnob { path, netns: None, form: Form::Cpus };
        let message = |errno| format!("{:#}", irq.explain(io::Error::from_raw_os_error(errno)));
        assert!(message(libc::EIO).contains("manages") && message(libc::EPERM).contains("manages"));
        assert!(!message(libc::EINVAL).contains("manages"));
    }
}

//! Stalls of known duration: packets to one port are delayed inside NET_RX.

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ProgramArray},
    programs::{RawTracePoint, SchedClassifier, TcAttachType, Xdp, XdpMode, tc},
};

use crate::{frames::Sender, release, veth};

/// Packets to this UDP port are delayed.
pub const MARKED_PORT: u16 = 9797;

/// Whether a culprit is the program that delays packets.
pub fn is_its_program(function: &str) -> bool {
    matches!(function, "bpf:stall_injector" | "bpf:short_stall_injector")
}

/// Longest wait for a packet to get through.
const PATIENCE: Duration = Duration::from_secs(20);

/// The tc program, attached to a device of the veth pair.
pub struct Injector {
    ebpf: Ebpf,
    held: u64,
}

impl Injector {
    /// Delays marked packets at the receiver for `spin`, inside NET_RX. The program is detached
    /// when the device is removed.
    ///
    /// # Errors
    ///
    /// When there is no device, `STALL_INJECTOR` names no object, or the kernel refuses.
    pub fn attach(spin: Duration) -> Result<Self> {
        Self::attach_to(Self::load(spin)?, veth::RECEIVER, TcAttachType::Ingress)
    }

    /// As [`Self::attach`], in an interrupt: with interrupts off.
    ///
    /// # Errors
    ///
    /// As [`Self::attach`].
    pub fn attach_masked(spin: Duration) -> Result<Self> {
        let mut ebpf = Self::load_with(spin, true)?;
        let program: &mut RawTracePoint =
            ebpf.program_mut("masked_spin").context("no program")?.try_into()?;
        program.load()?;
        // Handlers of the timer's interrupt, which comes soon.
        let timer =
            if cfg!(target_arch = "x86_64") { "local_timer_entry" } else { "irq_handler_entry" };
        program.attach(timer)?;
        Self::attach_to(ebpf, veth::RECEIVER, TcAttachType::Ingress)
    }

    /// Delays marked packets at the sender for `spin`, inside the sending process with softirqs
    /// disabled.
    ///
    /// # Errors
    ///
    /// As [`Self::attach`].
    pub fn attach_to_sender(spin: Duration) -> Result<Self> {
        Self::attach_to(Self::load(spin)?, veth::SENDER, TcAttachType::Egress)
    }

    fn attach_to(mut ebpf: Ebpf, device: &str, side: TcAttachType) -> Result<Self> {
        tc::qdisc_add_clsact(device).context("add clsact")?;
        let name = match release::is_before(5, 17) {
            true => "short_stall_injector",
            false => "stall_injector",
        };
        let program: &mut SchedClassifier =
            ebpf.program_mut(name).context("no program")?.try_into()?;
        program.load()?;
        let descriptor = program.fd()?.try_clone()?;
        program.attach(device, side)?;
        let again = ebpf.map_mut("AGAIN").context("no map")?;
        ProgramArray::try_from(again)?.set(0, &descriptor, 0)?;
        Ok(Self { ebpf, held: 0 })
    }

    /// Attaches a program of XDP to `device` that passes every packet, for as long as this process
    /// runs or the device exists.
    ///
    /// # Errors
    ///
    /// When there is no device, `STALL_INJECTOR` names no object, or the kernel refuses.
    pub fn let_pass(device: &str) -> Result<()> {
        let mut ebpf = Self::load(Duration::ZERO)?;
        let program: &mut Xdp = ebpf.program_mut("let_pass").context("no program")?.try_into()?;
        program.load()?;
        program.attach(device, XdpMode::Driver)?;
        // Dropped, it would be detached.
        Box::leak(Box::new(ebpf));
        Ok(())
    }

    /// Loads the object without attaching anything.
    ///
    /// # Errors
    ///
    /// When `STALL_INJECTOR` names no object, or the kernel refuses its maps.
    pub fn load(spin: Duration) -> Result<Ebpf> {
        Self::load_with(spin, false)
    }

    fn load_with(spin: Duration, masked: bool) -> Result<Ebpf> {
        let path = env::var_os("STALL_INJECTOR").context("STALL_INJECTOR names no object")?;
        let spin_ns = spin.as_nanos() as u64;
        let port = u32::from(MARKED_PORT);
        Ok(EbpfLoader::new()
            .override_global("SPIN_NS", &spin_ns, true)
            .override_global("MARKED_PORT", &port, true)
            .override_global("MASKED", &u32::from(masked), true)
            .load_file(path)?)
    }

    /// Sends `count` marked packets of one flow. Each waits for the previous one to get through, so
    /// that no poll handles two.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a packet, or the injector does not see it in time.
    pub fn stall(&mut self, sender: &mut Sender, source: u16, count: u64) -> Result<()> {
        for _ in 0..count {
            sender.send(source, MARKED_PORT)?;
            self.held += 1;
            let end = Instant::now() + PATIENCE;
            while self.delayed()? < self.held {
                ensure!(Instant::now() < end, "packet {} was not delayed", self.held);
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// How long each packet was delayed, as measured by the injector itself, ns.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn durations(&self) -> Result<Vec<u64>> {
        let durations: Array<_, u64> =
            Array::try_from(self.ebpf.map("DURATIONS").context("no map")?)?;
        (0..self.held).map(|at| Ok(durations.get(&(at as u32), 0)?)).collect()
    }

    /// Packets delayed so far, as counted by the injector itself.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn delayed(&self) -> Result<u64> {
        let held: Array<_, u64> = Array::try_from(self.ebpf.map("HELD").context("no map")?)?;
        Ok(held.get(&0, 0)?)
    }
}

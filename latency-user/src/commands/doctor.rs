//! `doctor`: what this kernel, these privileges and these NICs allow, and why.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use latency_common::{
    row_layout::{CPU_ROWS_WITH_VECTORS, RowLayout},
    stage::Stage,
};

use crate::{
    cli::{Console, stdout::Output, values::Format},
    collect::config::DEFAULT_SAMPLE_HZ,
    host::{
        cpu::{cpus, interrupts::Interrupts},
        kernel,
        net::interfaces,
        nic::{
            netdev::{NapiDirectory, NetlinkDirectory},
            queue_irqs,
        },
    },
    kernel::{
        atomics,
        attached::Attached,
        confine::{self, Task},
        loader::{self, AttachError, ProgramConfig},
        privileges,
        probes::{hooks, selection::KernelFacts},
    },
    model::{
        diagnosis::{Diagnosis, InterfaceDiagnosis, MethodDiagnosis, StageDiagnosis},
        exit::Exit,
        method::Method,
        note::{Note, Obstacle},
        run::{SampleClock, SampleWhen, Sampling, SelectedProbe, Transport},
    },
    views::{self, Style},
};

/// How to show the result.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  What would be used here, and why the rest would not:
      sudo latency-user doctor
  Without root: what can be known without loading anything:
      latency-user doctor")]
pub struct Arguments {
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
}

/// Runs the command: [`Exit::Unsupported`] when some stage cannot be timed at all for lack of
/// privileges or kernel features, except `tcp_collapse`, whose absence is common.
///
/// # Errors
///
/// When the kernel has no type information, or `/proc` and `/sys` cannot be read.
pub fn run(args: &Arguments, console: Console) -> Result<Exit> {
    let diagnosis = diagnose()?;
    let mut text = Vec::new();
    match args.format {
        Format::Table => {
            let style = Style { colour: console.colour, width: Style::MAX_WIDTH };
            views::doctor::diagnosis(&diagnosis, style, &mut text)?;
        }
        Format::Json => views::json::diagnosis(&diagnosis, &mut text)?,
    }
    Output::new(console.out, 0).write(&text)?;
    let usable =
        |stage: &StageDiagnosis| stage.would_use.is_some() || stage.stage == Stage::TcpCollapse;
    let complete = diagnosis.missing_privileges.is_empty() && diagnosis.stages.iter().all(usable);
    Ok(if complete { Exit::Ok } else { Exit::Unsupported })
}

fn diagnose() -> Result<Diagnosis> {
    let root = Path::new("/");
    let facts = KernelFacts::gather()?;
    let missing = privileges::missing();
    let tried = missing.is_empty();
    let cpus = cpus::possible(root)?;
    let stages: Vec<_> =
        Stage::ALL.into_iter().map(|stage| examine(stage, &facts, cpus, tried)).collect();
    let clocks = if tried { &SampleClock::ALL[..] } else { &[] };
    let sampling = clocks.iter().filter_map(|clock| sampling(*clock, &stages, &facts, cpus));
    let sampling = sampling.collect();
    Ok(Diagnosis {
        kernel: kernel::release(root)?,
        version: env!("CARGO_PKG_VERSION"),
        cpus,
        missing_privileges: missing,
        kept_privileges: Task::Trace { command: false }
            .needed()
            .into_iter()
            .map(|(capability, _)| capability.to_string())
            .collect(),
        filters_system_calls: confine::can_filter(),
        fetch_atomics: tried.then(atomics::has_fetch),
        tried,
        stages,
        sampling,
        interfaces: examine_interfaces(root)?,
    })
}

fn examine(stage: Stage, facts: &KernelFacts, cpus: u32, tried: bool) -> StageDiagnosis {
    let methods: Vec<MethodDiagnosis> = hooks::methods(stage)
        .iter()
        .map(|&method| {
            let at = hooks::attach_points(stage, method);
            let obstacle = facts.obstacle(stage, method);
            let caveat = hooks::caveat(stage, method);
            let fallback = |obstacle| Some(Note::ProbeFallback { method, obstacle });
            let (works, note) = match (obstacle, tried) {
                (Some(obstacle), _) => (Some(false), fallback(obstacle)),
                (None, false) => (None, caveat),
                (None, true) => match try_out(stage, method, facts, cpus) {
                    Ok(()) => (Some(true), caveat),
                    Err(obstacle) => (Some(false), fallback(obstacle)),
                },
            };
            MethodDiagnosis { method, at, works, notes: note.into_iter().collect() }
        })
        .collect();
    let would_use =
        methods.iter().find(|probe| probe.works != Some(false)).map(|probe| probe.method);
    let notes = hooks::meaning(stage, facts.preemption).into_iter().collect();
    StageDiagnosis { stage: stage.into(), would_use, notes, methods }
}

/// How stalls would be sampled, tried out beside the first stage that works.
fn sampling(
    clock: SampleClock,
    stages: &[StageDiagnosis],
    facts: &KernelFacts,
    cpus: u32,
) -> Option<Sampling> {
    let usable = |stage: &StageDiagnosis| Some((stage.stage.known()?, stage.would_use?));
    let (stage, method) = stages.iter().find_map(usable)?;
    match attach(stage, method, facts, cpus, Some(clock)) {
        Ok(attached) => Some(Sampling { clock, ..attached.sampling() }),
        Err(AttachError::Other(error)) => {
            let notes = vec![Note::NoStacks { reason: format!("{error:#}") }];
            Some(Sampling { clock, notes, ..Sampling::default() })
        }
        Err(AttachError::Method(..)) => None,
    }
}

/// Loads and attaches the programs of one method, and detaches them at once.
fn try_out(stage: Stage, method: Method, facts: &KernelFacts, cpus: u32) -> Result<(), Obstacle> {
    match attach(stage, method, facts, cpus, None) {
        Ok(_) => Ok(()),
        Err(AttachError::Method(.., obstacle)) => Err(obstacle),
        Err(AttachError::Other(error)) => Err(Obstacle::Failed { error: format!("{error:#}") }),
    }
}

fn attach(
    stage: Stage,
    method: Method,
    facts: &KernelFacts,
    cpus: u32,
    clock: Option<SampleClock>,
) -> Result<Attached, AttachError> {
    let probe = SelectedProbe { stage, method: Some(method), at: String::new(), notes: Vec::new() };
    let config = ProgramConfig {
        layout: RowLayout { cpus, rows_per_cpu: CPU_ROWS_WITH_VECTORS, slots: 1 },
        threshold_ns: 1,
        transport: Transport::Maps,
        ring_bytes: 0,
        record_bytes: 4096,
        records_per_second: 0,
        collapse_threshold_ns: 1,
        sample_hz: clock.map_or(0, |_| DEFAULT_SAMPLE_HZ),
        sample_clock: clock.unwrap_or_default(),
        sample_when: SampleWhen::default(),
        log: false,
    };
    loader::attach(&[probe], &config, facts)
}

fn examine_interfaces(root: &Path) -> Result<Vec<InterfaceDiagnosis>> {
    let interfaces = interfaces::list(root)?;
    let irqs = queue_irqs::queue_irqs(&interfaces, &Interrupts::read(root)?);
    let mut directory = NetlinkDirectory::new();
    Ok(interfaces
        .into_iter()
        .map(|interface| {
            let instances = directory.instances(interface.index).ok();
            let by_instance = instances.iter().flatten().filter(|napi| napi.irq.is_some()).count();
            let by_name = irqs.keys().filter(|(index, _)| *index == interface.index).count();
            InterfaceDiagnosis {
                rx_queues: interface.rx_queues,
                queues_by_netlink: directory
                    .queues(interface.index)
                    .ok()
                    .map(|queues| queues.iter().filter(|queue| queue.napi_id.is_some()).count()),
                instances: instances.as_ref().map(Vec::len),
                queues_with_irq: by_instance.max(by_name),
                name: interface.name,
            }
        })
        .collect())
}

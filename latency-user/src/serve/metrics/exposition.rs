//! The forms in which metrics are read, chosen by what a client accepts.

use std::fmt;

use latency_common::stage::Stage;
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeLabelSet, LabelSetEncoder, MetricEncoder,
        NativeHistogram, NativeHistogramBuckets, NoLabelSet, prometheus_protobuf, text,
    },
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    Metrics,
    levels::Durations,
    native::{self, ZERO_THRESHOLD},
};
use crate::model::{distribution::Distribution, series::labels::Labels};

/// A form of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus's text.
    Plain,
    /// OpenMetrics text.
    OpenMetrics,
    /// Prometheus's protobuf, with native histograms.
    Protobuf,
}

impl Form {
    /// The best form for an `Accept` header: of those it names the first that we have, as Prometheus
    /// names them by preference.
    pub fn accepted(accept: &str) -> Self {
        for part in accept.split(',') {
            let mut fields = part.split(';').map(str::trim);
            let parameters = |name: &str| part.contains(name);
            match fields.next().unwrap_or_default() {
                "application/vnd.google.protobuf"
                    if parameters("io.prometheus.client.MetricFamily")
                        && parameters("encoding=delimited") =>
                {
                    return Self::Protobuf;
                }
                "application/openmetrics-text" => return Self::OpenMetrics,
                "text/plain" => return Self::Plain,
                _ => {}
            }
        }
        Self::Plain
    }

    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
        }
    }
}

/// The metrics in a form.
///
/// # Errors
///
/// When a value does not fit the form.
pub fn render(metrics: Metrics, form: Form) -> Result<Vec<u8>, fmt::Error> {
    let registry = registry(metrics);
    if form == Form::Protobuf {
        return prometheus_protobuf::encode_to_vec(&registry).map_err(|_| fmt::Error);
    }
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    if form == Form::Plain {
        text = plain(&text);
    }
    Ok(text.into_bytes())
}

/// All metrics.
pub(super) fn registry(metrics: Metrics) -> Registry {
    let mut registry = Registry::with_prefix("latency_user");
    registry.register_collector(Box::new(Scrape(metrics)));
    registry
}

/// OpenMetrics as Prometheus's text: there, the name of a counter has its `_total` everywhere.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), ..) => help = line,
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let total = if kind == "counter" { "_total" } else { "" };
                let kind = if kind == "info" { "gauge" } else { kind };
                let what = help.splitn(4, ' ').nth(3).unwrap_or_default();
                plain.push_str(&format!("# HELP {name}{total} {what}\n"));
                plain.push_str(&format!("# TYPE {name}{total} {kind}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                plain.push_str(line);
                plain.push('\n');
            }
        }
    }
    plain
}

/// The metrics at the moment of a scrape.
#[derive(Debug)]
struct Scrape(Metrics);

/// Names and values of labels.
type Pairs = Vec<(&'static str, String)>;

struct Set<'a>(&'a Pairs);

impl EncodeLabelSet for Set<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.0 {
            use prometheus_client::encoding::{EncodeLabelKey, EncodeLabelValue};
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            EncodeLabelKey::encode(name, &mut key)?;
            let mut text = key.encode_label_value()?;
            EncodeLabelValue::encode(&value.as_str(), &mut text)?;
            text.finish()?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(&mut encoder)
    }
}

impl Metrics {
    fn encode(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for stage in self.stages() {
            self.histogram(to, stage)?;
        }
        self.stalls(to)?;
        self.longest(to)?;
        let samples = self.culprit_samples.iter();
        let samples = samples.map(|(name, count)| (vec![("function", name.clone())], *count));
        let what = "Samples of stalls in progress, by the function that they are blamed on";
        counters(to, ("culprit_samples", None), what, samples.collect())?;
        self.losses(to)?;
        self.cost(to)?;
        let recordings = self.recordings.iter();
        let recordings = recordings.map(|(name, n)| (vec![("trigger", name.clone())], *n));
        counters(
            to,
            ("recordings", None),
            "Recordings kept, by what triggered them",
            recordings.collect(),
        )?;
        let failed = vec![(vec![], self.failed_recordings)];
        counters(to, ("recordings_failed", None), "Recordings that could not be written", failed)?;
        let missing = vec![(vec![], self.missing_in_ring)];
        counters(
            to,
            ("ring_intervals_missing", None),
            "Intervals that could not be kept",
            missing,
        )?;
        let slow = vec![(vec![], self.slow_clients)];
        counters(to, ("clients_cut_off", None), "Clients that did not read", slow)?;
        let failed = vec![(vec![], self.failed_pushes)];
        counters(to, ("pushes_failed", None), "Pushes that a collector did not take", failed)?;
        gauge(to, "clients", "Clients that are attached", vec![(vec![], self.clients as f64)])?;
        counters(to, ("intervals", None), "Intervals measured", vec![(vec![], self.intervals)])?;
        let level = vec![(vec![("level", self.durations.level().name().to_owned())], 1.0)];
        gauge(to, "label_level", "Level of detail of the labels of histograms", level)?;
        let build = vec![
            ("version", self.run.version.clone().into_owned()),
            ("kernel", self.run.kernel.clone()),
        ];
        gauge(to, "build_info", "The program and the kernel that it measures", vec![(build, 1.0)])
    }

    fn histogram(&self, to: &mut DescriptorEncoder<'_>, stage: Stage) -> fmt::Result {
        let name = format!("{}_duration", stage.name());
        let mut metric =
            to.encode_descriptor(&name, what(stage), Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, Durations { all, .. }) in self.durations.of(stage) {
            let pairs = pairs(labels);
            let set = Set(&pairs);
            match pairs.is_empty() {
                true => self.durations(&mut metric, all)?,
                false => self.durations(&mut metric.encode_family(&set)?, all)?,
            }
        }
        Ok(())
    }

    fn durations(&self, to: &mut MetricEncoder<'_>, all: &Distribution) -> fmt::Result {
        let native = self.map.map(all);
        to.encode_histogram_with_native::<NoLabelSet>(
            all.sum_ns as f64 / 1e9,
            all.count(),
            &native::classic(all),
            None,
            NativeHistogram {
                schema: self.map.schema,
                zero_threshold: ZERO_THRESHOLD,
                zero_count: native.zero,
                negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
                positive: NativeHistogramBuckets { spans: &native.spans, deltas: &native.deltas },
                created: None,
            },
        )
    }

    fn stalls(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let threshold = vec![(vec![], self.run.threshold_ns as f64 / 1e9)];
        gauge(to, "stall_threshold_seconds", "Minimum duration of a stall", threshold)?;
        let (mut counts, mut seconds) = (Vec::new(), Vec::new());
        for stage in self.stages() {
            for (labels, durations) in self.durations.of(stage) {
                let mut of = vec![("stage", stage.name().to_owned())];
                of.extend(pairs(labels));
                counts.push((of.clone(), durations.all.over_threshold));
                if stage != Stage::Softirq {
                    seconds.push((of, durations.stalled_ns as f64 / 1e9));
                }
            }
        }
        counters(to, ("stalls", None), "Events at or above the threshold; exact", counts)?;
        let what = "Time of stalls; those above the limit of reports are in \
                    latency_user_events_lost_total, and not in here";
        counters(to, ("stall", Some(&Unit::Seconds)), what, seconds)
    }

    fn longest(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (mut seconds, mut cpus) = (Vec::new(), Vec::new());
        for stage in self.stages() {
            let of = vec![("stage", stage.name().to_owned())];
            let Some((ns, cpu)) = self.longest[stage as usize].last else { continue };
            seconds.push((of.clone(), ns as f64 / 1e9));
            cpus.extend(cpu.map(|cpu| (of, f64::from(cpu))));
        }
        gauge(to, "max_seconds", "Longest event of the last full minute", seconds)?;
        gauge(to, "worst_cpu", "CPU of the longest event of the last full minute", cpus)?;
        let of_queues = self.queue_cpus.last.iter();
        let of_queues = of_queues.map(|(labels, (cpu, _))| (pairs(labels), f64::from(*cpu)));
        let what = "CPU with most hard IRQs of the queue in the last full minute";
        gauge(to, "queue_cpu", what, of_queues.collect())
    }

    fn losses(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = self.end().ledger;
        let mut lost = Vec::new();
        for stage in &ledger.stages {
            let causes = [
                ("unmatched_start", stage.unmatched_start),
                ("backwards", stage.backwards),
                ("ring_full", stage.ring_dropped),
                ("report_dropped", stage.records.dropped),
                ("report_limit", stage.records.limited),
            ];
            let name = stage.stage.to_string();
            lost.extend(causes.map(|(cause, count)| {
                (vec![("stage", name.clone()), ("cause", cause.to_owned())], count)
            }));
        }
        let what = "Events that were not timed (unmatched_start, backwards, ring_full), and stalls \
                    that were counted but not reported one by one (report_dropped, report_limit)";
        counters(to, ("events_lost", None), what, lost)?;
        let missed = ledger.programs.iter().filter_map(|program| {
            let missed = [program.recursion_misses, program.missed].into_iter().flatten();
            let missed = missed.reduce(|sum, more| sum + more)?;
            Some((vec![("program", program.program.clone())], missed))
        });
        let what = "Runs of programs that the kernel skipped";
        counters(to, ("program_runs_missed", None), what, missed.collect())?;
        let unnamed = ledger
            .stages
            .iter()
            .map(|stage| (vec![("stage", stage.stage.to_string())], stage.table_full));
        let what = "Events of queues and IRQs that found no row of their own (--slots)";
        counters(to, ("events_without_row", None), what, unnamed.collect())?;
        let balanced = f64::from(u8::from(ledger.balanced));
        let what =
            "Whether all events are accounted for, as far as it can be told while they happen";
        gauge(to, "ledger_balanced", what, vec![(vec![], balanced)])
    }

    fn cost(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let cost = self.end().self_cost;
        let kernel = &cost.kernel;
        let of = |program: &str| vec![("program", program.to_owned())];
        let programs = kernel.programs.iter();
        let times = programs.map(|p| (of(&p.program), p.ns as f64 / 1e9)).collect();
        let what = "Run time of the programs in the part of the time in which it was measured";
        counters(to, ("program_run", Some(&Unit::Seconds)), what, times)?;
        let measured = vec![(vec![], kernel.measured_s)];
        let what = "Time in which the run time of the programs was measured";
        counters(to, ("cost_measured", Some(&Unit::Seconds)), what, measured)?;
        let user = vec![(vec![], cost.user_cpu_s)];
        counters(
            to,
            ("user_cpu", Some(&Unit::Seconds)),
            "CPU time of this process while it traced",
            user,
        )?;
        let busiest = vec![(vec![], kernel.busiest_share)];
        let what = "Share that the programs took of the CPU with most of their runs";
        gauge(to, "overhead_ratio", what, busiest)?;
        let memory = vec![(vec![], cost.row_bytes as f64)];
        gauge(to, "rows_bytes", "Memory of the histograms in the kernel", memory)?;
        let disabled = kernel.disabled.iter();
        let disabled = disabled.map(|d| (vec![("stage", d.stage.name().to_owned())], 1.0));
        gauge(to, "stage_disabled", "Stages disabled because of their cost", disabled.collect())
    }
}

/// The labels that are known.
fn pairs(labels: &Labels) -> Pairs {
    let number = |value: Option<u32>| value.map(|number| number.to_string());
    let known = [
        ("device", labels.iface.clone()),
        ("netns", number(labels.netns)),
        ("queue", number(labels.queue)),
        ("kind", labels.queue_kind.clone()),
        ("irq", number(labels.irq)),
        ("irq_name", labels.irq_name.clone()),
        ("vector", labels.vector.clone()),
        ("cpu", number(labels.cpu)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn what(stage: Stage) -> &'static str {
    match stage {
        Stage::RxWait => "Time from the request for NET_RX to its start",
        Stage::NetRx => "Duration of runs of net_rx_action",
        Stage::NapiPoll => "Duration of NAPI polls",
        Stage::Irq => "Duration of hard IRQ handlers",
        Stage::TcpCollapse => "Duration of calls of tcp_collapse",
        Stage::Softirq => "Duration of softirqs of all vectors",
    }
}

/// The unit, if there is one, is appended to the name.
fn counters<V: EncodeCounterValue>(
    to: &mut DescriptorEncoder<'_>,
    (name, unit): (&str, Option<&Unit>),
    what: &str,
    values: Vec<(Pairs, V)>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, what, unit, MetricType::Counter)?;
    for (pairs, value) in values {
        let set = Set(&pairs);
        match pairs.is_empty() {
            true => metric.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
            false => {
                metric.encode_family(&set)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            }
        }
    }
    Ok(())
}

fn gauge(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    what: &str,
    values: Vec<(Pairs, f64)>,
) -> fmt::Result {
    let mut metric = to.encode_descriptor(name, what, None, MetricType::Gauge)?;
    for (pairs, value) in values {
        let set = Set(&pairs);
        match pairs.is_empty() {
            true => metric.encode_gauge(&value)?,
            false => metric.encode_family(&set)?.encode_gauge(&value)?,
        }
    }
    Ok(())
}

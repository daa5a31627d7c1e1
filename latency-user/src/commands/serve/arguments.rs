//! Arguments of `serve`, which are the keys of its configuration file, too.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, ValueHint};
use latency_common::stage::Stage;

use crate::{
    cli::values::{self, SampleWhenArg},
    collect::config::{Config as TracerConfig, default_stages},
    measure::{MeasureConfig, daemon},
    model::{failure::Failure, run::SampleWhen},
    serve::{
        config::{Config, Listen},
        endpoint::Endpoint,
        metrics::{levels::Level, native},
        ring::Limits,
        trigger::Trigger,
    },
};

/// Where HTTP is answered by default.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9468);

/// The ring and the recordings by default.
const STATE: &str = "/var/lib/latency-user";

const DEFAULT_MAX_OVERHEAD: f64 = 0.01;

/// Default triggers, as multiples of the threshold: a stall this long, and so many in ten seconds.
const LONG_STALL: u32 = 20;
const MANY_STALLS: u64 = 50;

/// What to trace, what to keep, and who may ask.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
The keys of the configuration file are the names of these options, for example:
  threshold = \"500us\"
  ring = \"30m,256MiB\"
  trigger = [\"stall>=10ms\", \"loss for 1m\"]
  on-stall = [\"/usr/local/bin/page-me\", \"--quietly\"]
Options on the command line win. SIGHUP reads the file again, SIGUSR2 keeps a
recording of the last minutes.

Examples:
  Trace all the time, metrics at http://127.0.0.1:9468/metrics:
      latency-user serve
  With a configuration, checked first:
      latency-user serve --config /etc/latency-user.toml --check")]
pub struct Arguments {
    /// Configuration file
    #[arg(short, long, value_name = "FILE.toml", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Only check the configuration, and show what it means
    #[arg(long)]
    pub check: bool,
    /// The options that the file can have, too.
    #[command(flatten)]
    pub options: Options,
}

/// Options of the command line and of the file.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Time only these stages: irq, rx_wait, net_rx, napi_poll, tcp_collapse, softirq
    /// [default: all but softirq, as far as the kernel can]
    #[arg(short, long, value_name = "STAGE,..", help_heading = "What",
          value_parser = values::stage, value_delimiter = ',')]
    pub stages: Option<Vec<Stage>>,
    /// Minimum duration of a stall [default: 1ms]
    #[arg(short, long, help_heading = "What", value_parser = values::threshold)]
    pub threshold: Option<Duration>,
    /// Minimum duration of a tcp_collapse call whose socket is reported [default: 500us]
    #[arg(long, value_name = "DURATION", help_heading = "What", value_parser = values::threshold)]
    pub collapse_threshold: Option<Duration>,
    /// Length of an interval [default: 1s; 10s on more than 64 CPUs]
    #[arg(long, help_heading = "What", value_parser = values::interval)]
    pub interval: Option<Duration>,
    /// Limit the programs to this share of any CPU, or none: without CAP_SYS_ADMIN their cost cannot
    /// be measured [default: 1%]
    #[arg(long, value_name = "SHARE", help_heading = "What", value_parser = max_overhead)]
    pub max_overhead: Option<MaxOverhead>,
    /// Stack samples of stalls in progress, per second and CPU; 0: none [default: 997]
    #[arg(long, value_name = "HZ", help_heading = "What",
          value_parser = clap::value_parser!(u64).range(..=20_000))]
    pub sample_hz: Option<u64>,
    /// When a CPU has the clock of the samples [default: stalled]
    #[arg(long, value_name = "WHEN", help_heading = "What", value_enum)]
    pub sample_when: Option<SampleWhenArg>,
    /// Where to answer HTTP: an address, unix:PATH, systemd or none [default: 127.0.0.1:9468]
    #[arg(long, value_name = "WHERE", help_heading = "Who may ask", value_parser = listen)]
    pub listen: Option<Listen>,
    /// The control socket [default: /run/latency-user/control.sock]
    #[arg(long, value_name = "PATH", help_heading = "Who may ask")]
    pub socket: Option<PathBuf>,
    /// Show the page and recordings on other addresses than loopback, too: they name processes
    /// and addresses
    #[arg(long, help_heading = "Who may ask", num_args = 0..=1, default_missing_value = "true")]
    pub page_everywhere: Option<bool>,
    /// Keep no capability after the start: a stage that was disabled stays so, no client can take
    /// over, and processes behind sockets have no names. Needs --max-overhead none
    #[arg(long, help_heading = "Who may ask", num_args = 0..=1, default_missing_value = "true")]
    pub give_up_privileges: Option<bool>,
    /// Directory of the ring and of recordings [default: $STATE_DIRECTORY, or
    /// /var/lib/latency-user]
    #[arg(long, value_name = "DIRECTORY", help_heading = "What is kept")]
    pub state: Option<PathBuf>,
    /// The ring keeps so much time, in at most so many bytes [default: 15m,128MiB]
    #[arg(long, value_name = "TIME,BYTES", help_heading = "What is kept", value_parser = ring)]
    pub ring: Option<Limits>,
    /// Keep a recording on this (repeatable): stall>=20ms, stalls>=50/10s, collapse>=5ms, loss,
    /// ledger, or none; `for 30s` behind it: if it lasts [default: stall>=20 thresholds,
    /// stalls>=50/10s, collapse>=5ms, loss, ledger for 1m]
    #[arg(long, value_name = "WHEN", help_heading = "What is kept", value_parser = trigger)]
    pub trigger: Option<Vec<Option<Trigger>>>,
    /// Time before the trigger that a recording holds [default: 10m]
    #[arg(long, value_name = "TIME", help_heading = "What is kept",
          value_parser = values::duration)]
    pub before: Option<Duration>,
    /// Time after the trigger that a recording holds [default: 1m]
    #[arg(long, value_name = "TIME", help_heading = "What is kept",
          value_parser = values::duration)]
    pub after: Option<Duration>,
    /// A trigger of the same kind does nothing for this time [default: 10m]
    #[arg(long, value_name = "TIME", help_heading = "What is kept",
          value_parser = values::duration)]
    pub pause: Option<Duration>,
    /// Keep so many recordings in at most so many bytes; the last one of each day stays longer
    /// [default: 20,1GiB]
    #[arg(long, value_name = "NUMBER,BYTES", help_heading = "What is kept", value_parser = keep)]
    pub keep: Option<(usize, u64)>,
    /// Run this when a recording was written, without a shell (repeat it for arguments); it gets
    /// LATENCY_RECORDING, LATENCY_CAPTURE, LATENCY_TRIGGER, LATENCY_REASON
    #[arg(long, value_name = "COMMAND", help_heading = "What is kept", allow_hyphen_values = true)]
    pub on_stall: Option<Vec<String>>,
    /// Labels of histograms: host, device, queue or cpu [default: device]
    #[arg(long, value_name = "LEVEL", help_heading = "Metrics", value_enum)]
    pub labels: Option<Level>,
    /// With more histograms, their labels become less detailed [default: 2000]
    #[arg(long, value_name = "N", help_heading = "Metrics",
          value_parser = clap::value_parser!(u32).range(8..))]
    pub max_series: Option<u32>,
    /// Schema of native histograms: 3 errs by 9.32 % at most, 5 by 2.47 % [default: 3]
    #[arg(long, value_name = "N", help_heading = "Metrics",
          value_parser = clap::value_parser!(i32).range(0..=8))]
    pub native_schema: Option<i32>,
    /// Push metrics to a collector of OpenTelemetry, too: OTLP over HTTP, to an address
    #[arg(long, value_name = "URL", help_heading = "Metrics")]
    pub otlp: Option<Endpoint>,
    /// How often to push [default: 1m]
    #[arg(long, value_name = "TIME", help_heading = "Metrics", value_parser = values::interval)]
    pub otlp_every: Option<Duration>,
}

/// A limit of the overhead, 0 to 1; `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxOverhead(Option<f64>);

fn max_overhead(text: &str) -> Result<MaxOverhead, String> {
    match text {
        "none" => Ok(MaxOverhead(None)),
        _ => values::share(text).map(|share| MaxOverhead(Some(share))),
    }
}

fn listen(text: &str) -> Result<Listen, String> {
    match (text, text.strip_prefix("unix:")) {
        ("none", _) => Ok(Listen::Nowhere),
        ("systemd", _) => Ok(Listen::Systemd),
        (_, Some(path)) if path.starts_with('/') => Ok(Listen::Unix(path.into())),
        (_, None) => text
            .parse::<SocketAddr>()
            .map(Listen::Address)
            .map_err(|_| "write it like 127.0.0.1:9468, [::1]:9468, unix:/run/x.sock".into()),
        _ => Err("the path of a Unix socket starts with /".into()),
    }
}

fn trigger(text: &str) -> Result<Option<Trigger>, String> {
    if text == "none" { Ok(None) } else { text.parse().map(Some) }
}

fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[end..].trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(format!("{text:?} is not a number of bytes such as 128MiB")),
    };
    let number: Option<u64> = text[..end].parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("{text:?} is not a number of bytes such as 128MiB"))
}

fn ring(text: &str) -> Result<Limits, String> {
    let (length, size) = text.split_once(',').ok_or("write it like 15m,128MiB")?;
    let limits = Limits { length: values::duration(length.trim())?, bytes: bytes(size)? };
    if limits.bytes < 1 << 20 { Err("at least 1MiB".into()) } else { Ok(limits) }
}

fn keep(text: &str) -> Result<(usize, u64), String> {
    let (number, size) = text.split_once(',').ok_or("write it like 20,1GiB")?;
    let number = number.trim().parse().map_err(|_| "write it like 20,1GiB")?;
    if number == 0 { Err("at least one recording".into()) } else { Ok((number, bytes(size)?)) }
}

/// The fields of `over` where they are set, and those of `under`.
macro_rules! over {
    ($over:expr, $under:expr, $($field:ident),*) => {
        Self { $($field: $over.$field.or($under.$field)),* }
    };
}

impl Options {
    /// Reads the options of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or has a key or a value that is not an option; the error names it.
    pub fn read(path: &Path) -> Result<Self> {
        let place = path.display();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read configuration {place}"))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            Failure::usage(format!("{place}: {}", error.to_string().trim()))
        })?;
        let mut all = Self::default();
        for (key, value) in table {
            let wrong = |why: String| Failure::usage(format!("{place}: {key}: {why}"));
            let mut words = vec![OsString::from("serve")];
            for value in values_of(&value).map_err(&wrong)? {
                words.push(format!("--{key}={value}").into());
            }
            let parsed = OptionsAlone::try_parse_from(words).map_err(|error| {
                let error = error.to_string();
                let line = error.lines().next().unwrap_or_default();
                let line = line.strip_prefix("error: ").unwrap_or(line);
                match line.starts_with("unexpected argument") {
                    true => wrong("no such key; `latency-user serve --help` lists them".into()),
                    false => wrong(line.to_owned()),
                }
            })?;
            all = parsed.options.over(all);
        }
        Ok(all)
    }

    /// These, and where they are not set, the others.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        over!(
            self,
            under,
            stages,
            threshold,
            collapse_threshold,
            interval,
            max_overhead,
            sample_hz,
            sample_when,
            listen,
            socket,
            page_everywhere,
            give_up_privileges,
            state,
            ring,
            trigger,
            before,
            after,
            pause,
            keep,
            on_stall,
            labels,
            max_series,
            native_schema,
            otlp,
            otlp_every
        )
    }

    /// What they mean, on a machine with so many CPUs.
    pub fn config(self, cpus: usize) -> Config {
        let tracer = TracerConfig::new();
        let threshold = self.threshold.unwrap_or(Duration::from_nanos(tracer.threshold_ns));
        let seconds = if cpus > 64 { 10 } else { 1 };
        let measure = MeasureConfig {
            interval: self.interval.unwrap_or(Duration::from_secs(seconds)),
            max_overhead: self.max_overhead.map_or(Some(DEFAULT_MAX_OVERHEAD), |limit| limit.0),
            tracer: TracerConfig {
                by_name: self.stages.is_some(),
                stages: self.stages.unwrap_or_else(default_stages),
                threshold_ns: threshold.as_nanos() as u64,
                sample_hz: self.sample_hz.unwrap_or(tracer.sample_hz),
                sample_when: self.sample_when.map_or(SampleWhen::Stalled, Into::into),
                collapse_threshold_ns: self
                    .collapse_threshold
                    .map_or(tracer.collapse_threshold_ns, |least| least.as_nanos() as u64),
                ..tracer
            },
            ..MeasureConfig::new()
        };
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let triggers = self.trigger.map(|all| all.into_iter().flatten().collect());
        Config {
            listen: self.listen.unwrap_or(Listen::Address(LISTEN)),
            socket: self.socket.unwrap_or_else(|| daemon::SOCKET.into()),
            state: self.state.unwrap_or_else(default_state),
            ring: self.ring.unwrap_or(Limits { length: minutes(15), bytes: 128 << 20 }),
            triggers: triggers.unwrap_or_else(|| default_triggers(threshold)),
            before: self.before.unwrap_or(minutes(10)),
            after: self.after.unwrap_or(minutes(1)),
            pause: self.pause.unwrap_or(minutes(10)),
            keep: self.keep.unwrap_or((20, 1 << 30)),
            on_stall: self.on_stall.unwrap_or_default(),
            labels: self.labels.unwrap_or(Level::Device),
            max_series: self.max_series.unwrap_or(2000) as usize,
            schema: self.native_schema.unwrap_or(native::SCHEMA),
            otlp: self.otlp,
            otlp_every: self.otlp_every.unwrap_or(minutes(1)),
            gives_up_privileges: self.give_up_privileges.unwrap_or(false),
            page_everywhere: self.page_everywhere.unwrap_or(false),
            measure,
        }
    }
}

/// The options without the rest of the command line.
#[derive(Parser)]
struct OptionsAlone {
    #[command(flatten)]
    options: Options,
}

/// The words for a value of the file: several for an array.
fn values_of(value: &toml::Value) -> Result<Vec<String>, String> {
    match value {
        toml::Value::String(text) => Ok(vec![text.clone()]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        toml::Value::Boolean(flag) => Ok(vec![flag.to_string()]),
        toml::Value::Array(all) => {
            let words: Result<Vec<_>, _> = all.iter().map(values_of).collect();
            Ok(words?.into_iter().flatten().collect())
        }
        other => Err(format!("a {} is no value of an option", other.type_str())),
    }
}

/// The directory that systemd made for it, or the usual one.
fn default_state() -> PathBuf {
    let by_systemd = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    by_systemd.filter(|path| path.is_absolute()).unwrap_or_else(|| STATE.into())
}

fn default_triggers(threshold: Duration) -> Vec<Trigger> {
    let texts = [
        format!("stall>={}", humantime::format_duration(threshold * LONG_STALL)),
        format!("stalls>={MANY_STALLS}/10s"),
        "collapse>=5ms".to_owned(),
        "loss".to_owned(),
        "ledger for 1m".to_owned(),
    ];
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::written_defaults::written_defaults;

    fn of(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        std::fs::write(&path, text).unwrap();
        let options = Options::read(&path).map_err(|error| {
            format!("{error:#}").replace(&directory.path().display().to_string(), "")
        })?;
        Ok(options.config(2))
    }

    #[test]
    fn a_file_has_the_names_of_the_options() {
        let config = of("threshold = \"500us\"\nring = \"30m,256MiB\"\nmax-series = 100\n\
                         page-everywhere = true\nlisten = \"unix:/run/x.sock\"\n\
                         trigger = [\"stall>=10ms\", \"loss for 1m\"]\n\
                         on-stall = [\"/bin/echo\", \"--quietly\", \"a b\"]\n");
        let config = config.unwrap();
        assert_eq!(config.measure.tracer.threshold_ns, 500_000);
        assert_eq!(config.ring, Limits { length: Duration::from_secs(1800), bytes: 256 << 20 });
        assert_eq!(config.listen, Listen::Unix("/run/x.sock".into()));
        let triggers: Vec<String> = config.triggers.iter().map(ToString::to_string).collect();
        assert_eq!(triggers, ["stall>=10ms", "loss for 1m"]);
        assert_eq!(config.on_stall, ["/bin/echo", "--quietly", "a b"]);
        assert!(config.page_everywhere && config.max_series == 100);
    }

    #[test]
    fn defaults_follow_the_threshold_and_the_machine() {
        let config = of("threshold = \"2ms\"").unwrap();
        let triggers: Vec<String> = config.triggers.iter().map(ToString::to_string).collect();
        let expected = ["stall>=40ms", "stalls>=50/10s", "collapse>=5ms", "loss", "ledger for 1m"];
        assert_eq!(triggers, expected);
        assert_eq!(config.measure.max_overhead, Some(0.01));
        assert_eq!(config.measure.interval, Duration::from_secs(1));
        assert_eq!(Options::default().config(65).measure.interval, Duration::from_secs(10));
        assert_eq!(of("max-overhead = \"none\"").unwrap().measure.max_overhead, None);
        assert_eq!(of("max-overhead = \"2%\"").unwrap().measure.max_overhead, Some(0.02));
        assert_eq!(of("trigger = \"none\"").unwrap().triggers, []);
        assert_eq!(of("listen = \"none\"").unwrap().listen, Listen::Nowhere);
    }

    #[test]
    fn the_help_tells_the_defaults() {
        // In words, not as a value.
        let in_words = ["--stages=", "--interval=", "--state=", "--trigger="];
        let config = |words: &[&str]| {
            let parsed = OptionsAlone::try_parse_from([&["serve"], words].concat()).unwrap();
            format!("{:?}", parsed.options.config(2))
        };
        let written = written_defaults(&OptionsAlone::command());
        let (words, values): (Vec<_>, Vec<_>) =
            written.iter().partition(|option| in_words.iter().any(|word| option.starts_with(word)));
        assert_eq!(words.len(), in_words.len(), "{words:?}");
        assert!(values.len() > 10, "{values:?}");
        for option in values {
            assert_eq!(config(&[option]), config(&[]), "{option}");
        }
    }

    #[test]
    fn errors_name_file_and_key() {
        let error = |text: &str| of(text).unwrap_err();
        assert_eq!(
            error("thresold = \"1ms\""),
            "/x.toml: thresold: no such key; `latency-user serve --help` lists them"
        );
        assert!(error("ring = \"15m\"").starts_with("/x.toml: ring: invalid value '15m'"));
        assert!(error("threshold = ").starts_with("/x.toml: TOML parse error at line 1"));
        assert!(error("ring = { a = 1 }").ends_with("ring: a table is no value of an option"));
        assert!(error("config = \"y\"").contains("config: no such key"));
    }

    #[test]
    fn the_command_line_wins() {
        let over = Options { max_series: Some(9), ..Options::default() };
        let under = Options { max_series: Some(7), sample_hz: Some(0), ..Options::default() };
        let both = over.over(under);
        assert_eq!((both.max_series, both.sample_hz), (Some(9), Some(0)));
    }
}

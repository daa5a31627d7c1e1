//! Metrics as OpenTelemetry has them: the families of Prometheus's form, with the same numbers.
//! Native histograms become exponential ones of the same buckets.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exponential_histogram_data_point,
        metric, number_data_point,
    },
    resource::v1::Resource,
};
use prometheus_client::encoding::prometheus_protobuf::{
    self,
    prometheus_data_model::{self as prometheus, MetricFamily, MetricType},
};

use super::{Metrics, exposition};

/// The period that a value is of, ns since 1970.
#[derive(Clone, Copy)]
struct Period {
    start: u64,
    end: u64,
}

/// All metrics, as of now.
///
/// # Errors
///
/// When a value does not fit the form.
pub fn request(metrics: Metrics) -> Result<ExportMetricsServiceRequest, fmt::Error> {
    let version = metrics.run.version.clone().into_owned();
    let resource = resource(&metrics.run.host, &version);
    let period = Period { start: ns(metrics.started), end: ns(SystemTime::now()) };
    let families = prometheus_protobuf::encode(&exposition::registry(metrics))?;
    let scope = InstrumentationScope { name: "latency-user".into(), version, ..Default::default() };
    let metrics = families.into_iter().map(|family| metric(family, period)).collect();
    let scope_metrics = ScopeMetrics { scope: Some(scope), metrics, ..Default::default() };
    let resource_metrics = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![scope_metrics],
        ..Default::default()
    };
    Ok(ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] })
}

fn ns(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Prometheus makes the label `instance` of the instance's id: hosts stay apart.
fn resource(host: &str, version: &str) -> Resource {
    let attributes = [
        ("service.name", "latency-user"),
        ("service.version", version),
        ("service.instance.id", host),
        ("host.name", host),
    ];
    let attributes = attributes.map(|(key, value)| attribute(key, value.to_owned())).to_vec();
    Resource { attributes, ..Default::default() }
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value)) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

fn metric(family: MetricFamily, period: Period) -> Metric {
    let name = family.name.strip_suffix("_total").unwrap_or(&family.name).to_owned();
    // A unit of 1 would append `_ratio` to the name of a gauge in Prometheus.
    let unit = match () {
        () if name.ends_with("_seconds") => "s",
        () if name.ends_with("_bytes") => "By",
        () if name.ends_with("_ratio") => "1",
        () => "",
    };
    let cumulative = AggregationTemporality::Cumulative.into();
    let kind = family.r#type();
    let points = family.metric.iter();
    let data = match kind {
        MetricType::Histogram => metric::Data::ExponentialHistogram(ExponentialHistogram {
            data_points: points.filter_map(|of| histogram(of, period)).collect(),
            aggregation_temporality: cumulative,
        }),
        MetricType::Counter => metric::Data::Sum(Sum {
            data_points: points.map(|of| number(of, period)).collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        _ => metric::Data::Gauge(Gauge {
            data_points: points.map(|of| number(of, period)).collect(),
        }),
    };
    Metric {
        name,
        description: family.help,
        unit: unit.to_owned(),
        data: Some(data),
        ..Default::default()
    }
}

fn attributes(of: &prometheus::Metric) -> Vec<KeyValue> {
    of.label.iter().map(|label| attribute(&label.name, label.value.clone())).collect()
}

fn number(of: &prometheus::Metric, period: Period) -> NumberDataPoint {
    let counted = of.counter.as_ref().map(|counter| counter.value);
    let value = counted.or(of.gauge.as_ref().map(|gauge| gauge.value)).unwrap_or_default();
    NumberDataPoint {
        attributes: attributes(of),
        start_time_unix_nano: period.start,
        time_unix_nano: period.end,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn histogram(of: &prometheus::Metric, period: Period) -> Option<ExponentialHistogramDataPoint> {
    let histogram = of.histogram.as_ref()?;
    Some(ExponentialHistogramDataPoint {
        attributes: attributes(of),
        start_time_unix_nano: period.start,
        time_unix_nano: period.end,
        count: histogram.sample_count,
        sum: Some(histogram.sample_sum),
        scale: histogram.schema,
        zero_count: histogram.zero_count,
        zero_threshold: histogram.zero_threshold,
        positive: Some(buckets(histogram)),
        ..Default::default()
    })
}

/// All buckets from the first to the last. Prometheus numbers a bucket by its upper bound,
/// OpenTelemetry by its lower one.
fn buckets(histogram: &prometheus::Histogram) -> exponential_histogram_data_point::Buckets {
    let offset = histogram.positive_span.first().map_or(0, |span| span.offset - 1);
    let mut counts: Vec<u64> = Vec::new();
    let mut deltas = histogram.positive_delta.iter();
    let mut count = 0;
    for (number, span) in histogram.positive_span.iter().enumerate() {
        if number > 0 {
            counts.resize(counts.len() + span.offset.max(0) as usize, 0);
        }
        for delta in deltas.by_ref().take(span.length as usize) {
            count += delta;
            counts.push(count as u64);
        }
    }
    exponential_histogram_data_point::Buckets { offset, bucket_counts: counts }
}

#[cfg(test)]
mod tests {
    use latency_common::bucket::BUCKETS;

    use super::*;
    use crate::{
        model::distribution::Distribution,
        serve::metrics::native::{NativeMap, ZERO_THRESHOLD, highest_value},
    };

    fn of(buckets: Vec<(u16, u64)>, schema: i32) -> ExponentialHistogramDataPoint {
        let sample_count = buckets.iter().map(|(_, count)| count).sum();
        let native =
            NativeMap::new(schema).map(&Distribution { buckets, ..Distribution::default() });
        let spans = native.spans.iter();
        let histogram = prometheus::Histogram {
            sample_count,
            schema,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: native.zero,
            positive_span: spans
                .map(|&(offset, length)| prometheus::BucketSpan { offset, length })
                .collect(),
            positive_delta: native.deltas,
            ..Default::default()
        };
        let metric = prometheus::Metric { histogram: Some(histogram), ..Default::default() };
        super::histogram(&metric, Period { start: 1, end: 2 }).unwrap()
    }

    #[test]
    fn every_bucket_is_between_its_bounds() {
        for schema in [0, 3, 5] {
            for index in 0..BUCKETS as u16 {
                let point = of(vec![(index, 7)], schema);
                let buckets = point.positive.unwrap();
                assert_eq!((point.count, point.scale), (7, schema));
                let middle = highest_value(index.into()) as f64 / 1e9;
                if point.zero_count > 0 {
                    assert!(middle <= point.zero_threshold * 1.01, "{index}");
                    assert_eq!((point.zero_count, buckets.bucket_counts), (7, vec![]));
                    continue;
                }
                assert_eq!(buckets.bucket_counts, [7]);
                let base = 2f64.powf(2f64.powi(-schema));
                let (low, high) = (base.powi(buckets.offset), base.powi(buckets.offset + 1));
                assert!(middle >= low * 0.99 && middle <= high * 1.01, "{index}: {low} {high}");
            }
        }
    }

    #[test]
    fn gaps_between_buckets_are_zeros() {
        let point = of(vec![(3, 1), (1500, 2), (1501, 3), (2500, 4), (3000, 5)], 3);
        let counts = point.positive.unwrap().bucket_counts;
        let filled: Vec<u64> = counts.iter().copied().filter(|count| *count > 0).collect();
        assert_eq!(filled, [5, 4, 5]);
        assert_eq!(counts.iter().sum::<u64>() + point.zero_count, 15);
        assert!(counts.len() > 60 && counts.len() < 200, "{}", counts.len());
    }
}

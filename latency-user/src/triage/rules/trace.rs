//! Stalls that the short trace saw.

use crate::{
    model::{finding::Detail, remedy::trace, run::DEFAULT_THRESHOLD_NS},
    triage::{
        rule_answer::{Answers, all_ok, crossed, found, look, plain},
        snapshot::{HostSnapshot, Unknown},
    },
};

/// Stalls of any stage.
pub(super) fn stalls(host: &HostSnapshot, ifaces: &[String]) -> Answers {
    let traced = host.trace()?.map_err(|reason| Unknown(format!("no trace: {reason}")))?;
    let stages = traced.stages;
    if stages.iter().all(|stage| stage.count == 0) {
        return Err(Unknown("nothing happened while tracing".into()));
    }
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut stalled: Vec<_> = stages.iter().filter(|stage| stage.stalls > 0).collect();
    stalled.sort_by_key(|stage| std::cmp::Reverse(stage.max_ns));
    let Some(longest) = stalled.first() else {
        let max = stages.iter().map(|stage| stage.max_ns).max().unwrap_or_default();
        return all_ok(format!("no stall of 1 ms or more; the longest took {:.3} ms", ms(max)));
    };
    let list: Vec<String> = stalled
        .iter()
        .map(|row| format!("{} {} of {}", row.stage, row.stalls, row.count))
        .collect();
    let source = "trace of this triage";
    let mut numbers = vec![crossed(
        format!("longest {}", longest.stage),
        ms(longest.max_ns),
        "ms",
        ms(DEFAULT_THRESHOLD_NS),
        source,
    )];
    numbers.extend(
        stalled
            .iter()
            .map(|row| plain(format!("stalls of {}", row.stage), row.stalls as f64, "", source)),
    );
    let culprits: Vec<String> =
        traced.culprits.iter().take(4).map(|(name, share)| format!("{name} {share} %")).collect();
    let culprits = match culprits.is_empty() {
        true => String::new(),
        false => format!(" Where that time went: {}.", culprits.join(", ")),
    };
    let iface = ifaces.first().filter(|_| ifaces.len() == 1);
    let record = format!("{} --output before.hlog", trace(iface.map(String::as_str)));
    Ok(vec![found(Detail {
        subject: Some(longest.place.clone()),
        // 50 at 1 ms, and 20 more for each factor of ten.
        weight: (50.0 + 20.0 * ms(longest.max_ns).log10()).clamp(50.0, 92.0) as u8,
        seen: format!(
            "Stalls of 1 ms or more: {}; the longest, {} on {}, took {:.1} ms.{culprits}",
            list.join(", "),
            longest.stage,
            longest.place,
            ms(longest.max_ns)
        ),
        numbers,
        why: "For that long no packet of the CPU or queue was processed: this is the tail \
                  itself. The findings of the other steps may be its cause.",
        step: look(record),
        iface: iface.cloned(),
    })])
}

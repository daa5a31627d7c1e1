//! Numbers for people: durations, counts, rates and sizes, each in at most 7 characters
//! (exact counts: 9).

use std::time::Duration;

use crate::model::stall::culprit::Culprit;

const NS_PER_S: u64 = 1_000_000_000;

/// A duration with three significant digits: `840ns`, `1.23us`, `12.3ms`, `1.05s`, `1234s`.
///
/// From 1000 s on it is in whole seconds, from a million seconds on in whole days.
pub fn duration(ns: u64) -> String {
    if ns < 1000 {
        return format!("{ns}ns");
    }
    let (digits, exponent) = three_digits(ns);
    match exponent {
        3..6 => decimal(digits, exponent - 3, "us"),
        6..9 => decimal(digits, exponent - 6, "ms"),
        9..12 => decimal(digits, exponent - 9, "s"),
        _ => match ns.saturating_add(NS_PER_S / 2) / NS_PER_S {
            seconds @ ..1_000_000 => format!("{seconds}s"),
            seconds => format!("{}d", seconds / 86_400),
        },
    }
}

/// A duration as a person would write it, without trailing zeros: `1ms`, `1.5ms`, `500us`.
pub fn short_duration(ns: u64) -> String {
    let text = duration(ns);
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let number = if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    };
    format!("{number}{unit}")
}

/// A [`Duration`] in the form of [`duration`].
pub fn length(duration: Duration) -> String {
    self::duration(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// A count: exact with up to 9 digits, else with three significant ones: `1.23G`, `45.6T`.
pub fn count(count: u64) -> String {
    if count < 1_000_000_000 {
        return count.to_string();
    }
    let (digits, exponent) = three_digits(count);
    match exponent {
        9..12 => decimal(digits, exponent - 9, "G"),
        12..15 => decimal(digits, exponent - 12, "T"),
        15..18 => decimal(digits, exponent - 15, "P"),
        _ => decimal(digits, exponent - 18, "E"),
    }
}

/// A count with its noun: `1 stall`, `37 stalls`.
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Parts per million: `0` is exactly none; `<0.1`, `2.5`, `1234`.
pub fn ppm(ppm: f64) -> String {
    if ppm <= 0.0 || ppm.is_nan() {
        "0".into()
    } else if ppm < 0.1 {
        "<0.1".into()
    } else if ppm < 99.95 {
        format!("{ppm:.1}")
    } else {
        format!("{ppm:.0}")
    }
}

/// A size in memory: `512B`, `30.0KiB`, `45.0MiB`.
pub fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        // From here on `{:.0}` would show 1000 and more.
        if size < 999.5 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    match size {
        _ if unit == "B" => format!("{bytes}B"),
        ..9.995 => format!("{size:.2}{unit}"),
        ..99.95 => format!("{size:.1}{unit}"),
        _ => format!("{size:.0}{unit}"),
    }
}

/// `value` (at least 100), rounded to `digits * 10^(exponent - 2)` with three `digits`.
fn three_digits(value: u64) -> (u64, u32) {
    let exponent = value.ilog10();
    let scale = 10_u64.pow(exponent - 2);
    match value / scale + u64::from(value % scale >= scale.div_ceil(2)) {
        1000 => (100, exponent + 1),
        digits => (digits, exponent),
    }
}

/// Three digits with `exponent + 1` of them before the point.
fn decimal(digits: u64, exponent: u32, unit: &str) -> String {
    match exponent {
        0 => format!("{}.{:02}{unit}", digits / 100, digits % 100),
        1 => format!("{}.{}{unit}", digits / 10, digits % 10),
        _ => format!("{digits}{unit}"),
    }
}

/// ` (of it 61 % waiting for a lock)`, as a share of the same total; empty when it hardly waited.
pub(super) fn lock_wait(culprit: &Culprit) -> String {
    let wait = |share: f64| format!(" ({:.0} % waiting for a lock)", share * 100.0);
    culprit.lock_share().map(wait).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let expected = [
            (0, "0ns"),
            (840, "840ns"),
            (999, "999ns"),
            (1000, "1.00us"),
            (1234, "1.23us"),
            (1235, "1.24us"),
            (9995, "10.0us"),
            (99_949, "99.9us"),
            (99_950, "100us"),
            (999_499, "999us"),
            (999_500, "1.00ms"),
            (12_345_678, "12.3ms"),
            (999_999_999, "1.00s"),
            (1_049_999_999, "1.05s"),
            (30_000_000_000, "30.0s"),
            (999_499_999_999, "999s"),
            (999_500_000_000, "1000s"),
            (1_234_400_000_000, "1234s"),
            (999_999_000_000_000, "999999s"),
            (1_000_000_000_000_000, "11d"),
            (u64::MAX, "213503d"),
        ];
        for (ns, text) in expected {
            assert_eq!(duration(ns), text, "{ns}");
        }
    }

    #[test]
    fn no_duration_is_longer_than_seven_characters() {
        for exponent in 0..64 {
            for off in -3_i64..=3 {
                let ns = (1_u64 << exponent).wrapping_add_signed(off);
                assert!(duration(ns).len() <= 7, "{ns}: {}", duration(ns));
            }
        }
        for exponent in 0..20 {
            for off in -1_i64..=1 {
                let ns = 10_u64.pow(exponent).wrapping_add_signed(off);
                assert!(duration(ns).len() <= 7, "{ns}: {}", duration(ns));
            }
        }
    }

    #[test]
    fn short_durations_lose_only_zeros_behind_the_point() {
        assert_eq!(short_duration(1_000_000), "1ms");
        assert_eq!(short_duration(1_500_000), "1.5ms");
        assert_eq!(short_duration(100_000), "100us");
        assert_eq!(short_duration(10_000_000), "10ms");
        assert_eq!(short_duration(0), "0ns");
        assert_eq!(length(Duration::from_secs(30)), "30.0s");
        assert_eq!(length(Duration::MAX), "213503d");
    }

    #[test]
    fn counts_are_exact_up_to_nine_digits() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999_999_999), "999999999");
        assert_eq!(count(1_000_000_000), "1.00G");
        assert_eq!(count(1_234_567_890), "1.23G");
        assert_eq!(count(999_999_999_999), "1.00T");
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!(counted(1, "stall"), "1 stall");
        assert_eq!(counted(0, "stall"), "0 stalls");
    }

    #[test]
    fn ppm_distinguishes_none_from_few() {
        let expected = [
            (0.0, "0"),
            (0.0001, "<0.1"),
            (0.1, "0.1"),
            (2.54, "2.5"),
            (99.94, "99.9"),
            (99.96, "100"),
            (1234.4, "1234"),
            (1e6, "1000000"),
            (f64::NAN, "0"),
        ];
        for (value, text) in expected {
            assert_eq!(ppm(value), text, "{value}");
        }
    }

    #[test]
    fn bytes_have_three_digits() {
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(999), "999B");
        assert_eq!(bytes(1000), "0.98KiB");
        assert_eq!(bytes(30 * 1024), "30.0KiB");
        assert_eq!(bytes(45 << 20), "45.0MiB");
        assert_eq!(bytes(999 << 20), "999MiB");
        assert_eq!(bytes(u64::MAX), "16.0EiB");
    }
}

//! Tags: the names of series in recordings, `stage=net_rx;cpu=3`, `stage=napi_poll;if=eth0;q=2`.
//!
//! Tags are written and parsed only here. A tag has no commas, white space or control characters.
//! In names, bytes that are not printable ASCII, and `,`, `;`, `=` and `%`, are written as `%` and
//! two hexadecimal digits. A tag of another program, or of a newer version, is a foreign series:
//! its numbers are valid, but its meaning is unknown.

use std::fmt;

use latency_common::stage::{Stage, VECTOR_NAMES};

use super::{Location, Queue, QueueId, SeriesId, SeriesKey};

impl SeriesId {
    /// The tag of this series in a recording.
    pub fn tag(&self) -> String {
        self.to_string()
    }
}

impl SeriesKey {
    /// The series that `tag` names.
    pub fn of_tag(tag: &str) -> Self {
        match parse(tag) {
            // A tag that does not round-trip has parts that were not understood.
            Some(id) if id.tag() == tag => Self::Known(id),
            _ => Self::Foreign(tag.to_owned()),
        }
    }

    /// The tag that names it in a recording.
    pub fn tag(&self) -> String {
        self.to_string()
    }
}

/// A foreign tag with a host, unless it names one already.
pub(super) fn with_host(tag: String, host: &str) -> String {
    match tag.contains(";host=") {
        true => tag,
        false => format!("{tag};host={}", Escaped(host)),
    }
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(id) => id.fmt(f),
            Self::Foreign(tag) => f.write_str(tag),
        }
    }
}

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage={}{}", self.stage.name(), self.at)
    }
}

/// The part of a tag after the stage.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(cpu) => write!(f, ";cpu={cpu}"),
            Self::Vector { vector, cpu } => {
                let name = VECTOR_NAMES.get(*vector as usize).unwrap_or(&"?");
                write!(f, ";vector={name};cpu={cpu}")
            }
            Self::Irq { number, name, cpu } => {
                match number {
                    Some(number) => write!(f, ";irq={number}")?,
                    None => write!(f, ";irq=other")?,
                }
                if let Some(name) = name {
                    write!(f, ";name={}", Escaped(name))?;
                }
                write!(f, ";cpu={cpu}")
            }
            Self::Queue(queue) => queue.fmt(f),
            Self::OnHost { host, at } => write!(f, "{at};host={}", Escaped(host)),
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(iface) = self.iface() {
            write!(f, ";if={}", Escaped(iface))?;
        }
        if let Some(netns) = self.netns() {
            write!(f, ";netns={netns}")?;
        }
        match self {
            Self::Device { id: QueueId::Rx(number), .. } => write!(f, ";q={number}"),
            Self::Device { id: QueueId::Napi(id), .. } => write!(f, ";q=napi-{id}"),
            Self::WithoutId { cpu, .. } => write!(f, ";q=no-id;cpu={cpu}"),
            Self::Backlog { cpu } => write!(f, ";q=backlog;cpu={cpu}"),
            Self::NoSlot { cpu } => write!(f, ";q=other;cpu={cpu}"),
        }
    }
}

/// A name, with the bytes that a tag cannot hold escaped as `%xx`.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'=' | b'%') {
                write!(f, "{}", byte as char)?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A name from a tag; `None`: its escapes are invalid.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The parts of a tag after the stage.
struct Parts<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parts<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    fn number(&self, key: &str) -> Option<u32> {
        self.get(key)?.parse().ok()
    }
}

fn parse(tag: &str) -> Option<SeriesId> {
    let (tag, host) = match tag.rsplit_once(";host=") {
        Some((tag, host)) => (tag, Some(unescaped(host)?)),
        None => (tag, None),
    };
    let mut parts = tag.split(';').map(|part| part.split_once('=').unwrap_or((part, "")));
    let (_, stage) = parts.next().filter(|(key, _)| *key == "stage")?;
    let stage = Stage::from_name(stage)?;
    let at = location(&Parts(parts.collect()))?;
    let at = match host {
        Some(host) => Location::OnHost { host, at: Box::new(at) },
        None => at,
    };
    Some(SeriesId { stage, at })
}

fn location(parts: &Parts<'_>) -> Option<Location> {
    if let Some(queue) = parts.get("q") {
        return Some(Location::Queue(self::queue(queue, parts)?));
    }
    if let Some(irq) = parts.get("irq") {
        let name = match parts.get("name") {
            Some(name) => Some(unescaped(name)?),
            None => None,
        };
        return Some(Location::Irq { number: irq.parse().ok(), name, cpu: parts.number("cpu")? });
    }
    if let Some(name) = parts.get("vector") {
        let vector = VECTOR_NAMES.iter().position(|other| *other == name)?;
        return Some(Location::Vector { vector: vector as u32, cpu: parts.number("cpu")? });
    }
    parts.number("cpu").map(Location::Cpu)
}

fn queue(queue: &str, parts: &Parts<'_>) -> Option<Queue> {
    let Some(iface) = parts.get("if") else {
        let cpu = parts.number("cpu")?;
        return match queue {
            "backlog" => Some(Queue::Backlog { cpu }),
            "other" => Some(Queue::NoSlot { cpu }),
            _ => None,
        };
    };
    let (iface, netns) = (unescaped(iface)?, parts.number("netns"));
    if queue == "no-id" {
        return Some(Queue::WithoutId { iface, netns, cpu: parts.number("cpu")? });
    }
    let id = match queue.strip_prefix("napi-") {
        Some(id) => QueueId::Napi(id.parse().ok()?),
        None => QueueId::Rx(queue.parse().ok()?),
    };
    Some(Queue::Device { iface, netns, id })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        "[a-z0-9 ,;=%é@.-]{1,15}"
    }

    fn device() -> impl Strategy<Value = Queue> {
        let id =
            prop_oneof![(0..4096_u32).prop_map(QueueId::Rx), (1..u32::MAX).prop_map(QueueId::Napi)];
        (name(), proptest::option::of(1..u32::MAX), id)
            .prop_map(|(iface, netns, id)| Queue::Device { iface, netns, id })
    }

    fn here() -> impl Strategy<Value = Location> {
        let number = proptest::option::of(0..u32::MAX);
        let cpu = 0..u32::MAX;
        prop_oneof![
            cpu.clone().prop_map(Location::Cpu),
            (0..10_u32, cpu.clone()).prop_map(|(vector, cpu)| Location::Vector { vector, cpu }),
            (number.clone(), proptest::option::of(name()), cpu.clone())
                .prop_map(|(number, name, cpu)| Location::Irq { number, name, cpu }),
            device().prop_map(Location::Queue),
            (name(), number, cpu.clone())
                .prop_map(|(iface, netns, cpu)| Queue::WithoutId { iface, netns, cpu })
                .prop_map(Location::Queue),
            cpu.clone().prop_map(|cpu| Location::Queue(Queue::Backlog { cpu })),
            cpu.prop_map(|cpu| Location::Queue(Queue::NoSlot { cpu })),
        ]
    }

    /// Every kind of location, with names that need escapes.
    pub(in crate::model::series) fn any_location() -> impl Strategy<Value = Location> {
        (here(), proptest::option::of(name())).prop_map(|(at, host)| match host {
            Some(host) => Location::OnHost { host, at: Box::new(at) },
            None => at,
        })
    }

    fn any_series() -> impl Strategy<Value = SeriesId> {
        (0..6_u32, any_location())
            .prop_map(|(stage, at)| SeriesId { stage: Stage::try_from(stage).unwrap(), at })
    }

    proptest! {
        #[test]
        fn every_tag_reads_back(id in any_series()) {
            prop_assert_eq!(SeriesKey::of_tag(&id.tag()), SeriesKey::Known(id));
        }

        #[test]
        fn series_are_the_same_exactly_when_their_tags_are(a in any_series(), b in any_series()) {
            prop_assert_eq!(a == b, a.tag() == b.tag());
        }

        #[test]
        fn any_tag_round_trips(tag in "[^\\p{C}, ]{0,40}") {
            prop_assert_eq!(SeriesKey::of_tag(&tag).tag(), tag);
        }
    }

    #[test]
    fn tags_name_stage_and_location() {
        let cpu = SeriesId { stage: Stage::NetRx, at: Location::Cpu(3) };
        assert_eq!(cpu.tag(), "stage=net_rx;cpu=3");
        let queue = Queue::Device { iface: "eth0".into(), netns: None, id: QueueId::Rx(2) };
        let queue = SeriesId { stage: Stage::NapiPoll, at: Location::Queue(queue) };
        assert_eq!(queue.tag(), "stage=napi_poll;if=eth0;q=2");
    }

    #[test]
    fn names_are_escaped() {
        let at = Location::Irq { number: Some(9), name: Some("a b,c;d=é".into()), cpu: 0 };
        let tag = SeriesId { stage: Stage::Irq, at }.tag();
        assert_eq!(tag, "stage=irq;irq=9;name=a%20b%2cc%3bd%3d%c3%a9;cpu=0");
    }

    #[test]
    fn unknown_tags_are_foreign() {
        for tag in [
            "",
            "requests",
            "stage=xdp;cpu=1",
            "stage=net_rx",
            "stage=net_rx;cpu=01",
            "stage=net_rx;cpu=1;socket=0",
            "stage=irq;irq=1;name=a%2;cpu=0",
            "stage=napi_poll;if=eth0;q=left",
        ] {
            assert_eq!(SeriesKey::of_tag(tag), SeriesKey::Foreign(tag.into()));
        }
    }

    #[test]
    fn a_host_is_added_once() {
        for tag in ["stage=net_rx;cpu=1", "stage=xdp;cpu=1"] {
            let key = SeriesKey::of_tag(tag).on_host("web 17");
            assert_eq!(key.tag(), format!("{tag};host=web%2017"));
            assert_eq!(key.clone().on_host("web-18"), key);
            assert_eq!(SeriesKey::of_tag(&key.tag()), key);
        }
    }

    #[test]
    fn parts_select() {
        let key = SeriesKey::of_tag("stage=napi_poll;if=eth0;q=2");
        assert!(key.has_parts("stage=napi_poll") && key.has_parts("q=2;if=eth0"));
        assert!(!key.has_parts("if=eth") && !key.has_parts("stage=napi_poll;cpu=2"));
    }
}

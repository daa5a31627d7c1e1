//! Sources: what a distribution in a file belongs to, read back from its tag.
//!
//! [`Series::tag`] writes tags; here they are read. A tag that is not one of ours, or not one that
//! this version knows, names a plain series: its numbers are as good, only its meaning is open.

use std::fmt;

use latency_common::stage::{Stage, VECTOR_NAMES};

use super::series::{Escaped, Owner, Queue, Series};

/// What a distribution in a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A series of this program.
    Series(Series),
    /// Something that another program, or another version, named with this tag.
    Plain(String),
}

impl Source {
    /// The source that `tag` names.
    pub fn of_tag(tag: &str) -> Self {
        match series(tag) {
            // What does not come out as it went in had parts that were not understood.
            Some(series) if series.tag() == tag => Self::Series(series),
            _ => Self::Plain(tag.to_owned()),
        }
    }

    /// The tag that names it in a recording.
    pub fn tag(&self) -> String {
        self.to_string()
    }

    /// The same source on `host`, unless it names a host already.
    #[must_use]
    pub fn on_host(self, host: &str) -> Self {
        match self {
            Self::Series(Series { owner: Owner::OnHost { .. }, .. }) => self,
            Self::Series(Series { stage, owner }) => {
                let owner = Owner::OnHost { host: host.to_owned(), owner: Box::new(owner) };
                Self::Series(Series { stage, owner })
            }
            Self::Plain(tag) if tag.contains(";host=") => Self::Plain(tag),
            Self::Plain(tag) => Self::Plain(format!("{tag};host={}", Escaped(host))),
        }
    }

    /// Whether the tag has every part of `wanted`: `stage=napi_poll;if=eth0` selects the queues
    /// of eth0.
    pub fn has_parts(&self, wanted: &str) -> bool {
        let tag = self.tag();
        wanted.split(';').all(|part| tag.split(';').any(|one| one == part))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series(series) => series.fmt(f),
            Self::Plain(tag) => f.write_str(tag),
        }
    }
}

fn series(tag: &str) -> Option<Series> {
    let (tag, host) = match tag.rsplit_once(";host=") {
        Some((tag, host)) => (tag, Some(unescaped(host)?)),
        None => (tag, None),
    };
    let mut parts = tag.split(';').map(|part| part.split_once('=').unwrap_or((part, "")));
    let (_, stage) = parts.next().filter(|(key, _)| *key == "stage")?;
    let stage = Stage::ALL.into_iter().find(|one| one.name() == stage)?;
    let parts: Vec<(&str, &str)> = parts.collect();
    let owner = owner(&parts)?;
    let owner = match host {
        Some(host) => Owner::OnHost { host, owner: Box::new(owner) },
        None => owner,
    };
    Some(Series { stage, owner })
}

fn owner(parts: &[(&str, &str)]) -> Option<Owner> {
    let part = |key| parts.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    let number = |key| part(key)?.parse::<u32>().ok();
    if let Some(queue) = part("q") {
        return Some(Owner::Queue(self::queue(queue, &part, &number)?));
    }
    if let Some(irq) = part("irq") {
        let name = match part("name") {
            Some(name) => Some(unescaped(name)?),
            None => None,
        };
        return Some(Owner::Irq { number: irq.parse().ok(), name, cpu: number("cpu")? });
    }
    if let Some(name) = part("vector") {
        let vector = VECTOR_NAMES.iter().position(|one| *one == name)?;
        return Some(Owner::Vector { vector: vector as u32, cpu: number("cpu")? });
    }
    number("cpu").map(Owner::Cpu)
}

fn queue<'a>(
    queue: &str,
    part: &impl Fn(&'static str) -> Option<&'a str>,
    number: &impl Fn(&'static str) -> Option<u32>,
) -> Option<Queue> {
    let Some(iface) = part("if") else {
        let cpu = number("cpu")?;
        return match queue {
            "backlog" => Some(Queue::Backlog { cpu }),
            "other" => Some(Queue::NoSlot { cpu }),
            _ => None,
        };
    };
    let (iface, netns) = (unescaped(iface)?, number("netns"));
    if queue == "no-id" {
        return Some(Queue::WithoutId { iface, netns, cpu: number("cpu")? });
    }
    let (queue, napi_id) = match queue.strip_prefix("napi-") {
        Some(id) => (None, id.parse().ok()?),
        None => (Some(queue.parse().ok()?), 0),
    };
    Some(Queue::Device { iface, netns, queue, napi_id, irq: None })
}

/// A name from a tag; `None`: its escapes are broken.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        "[a-z0-9 ,;=%é@.-]{1,15}"
    }

    fn device() -> impl Strategy<Value = Queue> {
        let queue = prop_oneof![(0..4096_u32).prop_map(Ok), (1..u32::MAX).prop_map(Err)];
        (name(), proptest::option::of(1..u32::MAX), queue).prop_map(|(iface, netns, queue)| {
            Queue::Device {
                iface,
                netns,
                queue: queue.ok(),
                napi_id: queue.err().unwrap_or(0),
                irq: None,
            }
        })
    }

    fn here() -> impl Strategy<Value = Owner> {
        let number = proptest::option::of(0..u32::MAX);
        let cpu = 0..u32::MAX;
        prop_oneof![
            cpu.clone().prop_map(Owner::Cpu),
            (0..10_u32, cpu.clone()).prop_map(|(vector, cpu)| Owner::Vector { vector, cpu }),
            (number.clone(), proptest::option::of(name()), cpu.clone())
                .prop_map(|(number, name, cpu)| Owner::Irq { number, name, cpu }),
            device().prop_map(Owner::Queue),
            (name(), number, cpu.clone())
                .prop_map(|(iface, netns, cpu)| Queue::WithoutId { iface, netns, cpu })
                .prop_map(Owner::Queue),
            cpu.clone().prop_map(|cpu| Owner::Queue(Queue::Backlog { cpu })),
            cpu.prop_map(|cpu| Owner::Queue(Queue::NoSlot { cpu })),
        ]
    }

    fn anywhere() -> impl Strategy<Value = Owner> {
        (here(), proptest::option::of(name())).prop_map(|(owner, host)| match host {
            Some(host) => Owner::OnHost { host, owner: Box::new(owner) },
            None => owner,
        })
    }

    proptest! {
        #[test]
        fn every_tag_reads_back(stage in 0..6_u32, owner in anywhere()) {
            let series = Series { stage: Stage::try_from(stage).unwrap(), owner };
            prop_assert_eq!(Source::of_tag(&series.tag()), Source::Series(series));
        }

        #[test]
        fn any_tag_comes_out_as_it_went_in(tag in "[^\\p{C}, ]{0,40}") {
            prop_assert_eq!(Source::of_tag(&tag).tag(), tag);
        }
    }

    #[test]
    fn what_is_not_known_is_plain() {
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
            assert_eq!(Source::of_tag(tag), Source::Plain(tag.into()));
        }
    }

    #[test]
    fn a_host_is_added_once() {
        for tag in ["stage=net_rx;cpu=1", "stage=xdp;cpu=1"] {
            let source = Source::of_tag(tag).on_host("web 17");
            assert_eq!(source.tag(), format!("{tag};host=web%2017"));
            assert_eq!(source.clone().on_host("web-18"), source);
            assert_eq!(Source::of_tag(&source.tag()), source);
        }
    }

    #[test]
    fn parts_select() {
        let source = Source::of_tag("stage=napi_poll;if=eth0;q=2");
        assert!(source.has_parts("stage=napi_poll") && source.has_parts("q=2;if=eth0"));
        assert!(!source.has_parts("if=eth") && !source.has_parts("stage=napi_poll;cpu=2"));
    }
}

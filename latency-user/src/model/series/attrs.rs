//! Attributes of a queue: they can change while the queue stays the same, so they are not part of
//! its identity.

use serde::{Deserialize, Serialize};

/// The evidence that named a queue, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedBy {
    /// The position of its NAPI id among those of the interface.
    Order,
    /// The hard IRQ that scheduled its NAPI instance.
    Irq,
    /// The RX queue that its packets carried.
    Packets,
    /// Netdev netlink.
    Netlink,
}

/// What is known of a queue beside its identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueAttrs {
    /// The kernel's id of the NAPI instance that serves it.
    pub napi_id: Option<u32>,
    /// The hard IRQ that schedules it.
    pub irq: Option<u32>,
    /// The evidence for its number; `None`: it has none, or in recordings without it.
    pub named_by: Option<NamedBy>,
}

impl QueueAttrs {
    /// Adds what is known from another interval or recording. Where they differ, the larger number
    /// is kept: NAPI ids only increase, so it is the latest one, and the result does not depend
    /// on the order.
    pub fn add(&mut self, other: Self) {
        self.napi_id = self.napi_id.max(other.napi_id);
        self.irq = self.irq.max(other.irq);
        self.named_by = self.named_by.max(other.named_by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let attrs = |napi_id, irq| QueueAttrs { napi_id, irq, named_by: None };
        let all = [attrs(Some(513), None), attrs(None, Some(31)), attrs(Some(517), Some(30))];
        let sum = |order: [usize; 3]| {
            let mut sum = QueueAttrs::default();
            order.into_iter().for_each(|at| sum.add(all[at]));
            sum
        };
        assert_eq!(sum([0, 1, 2]), attrs(Some(517), Some(31)));
        assert_eq!(sum([2, 1, 0]), sum([1, 0, 2]));
    }
}

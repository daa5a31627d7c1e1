//! Queues by the order of their instances: drivers create instances in the order of their queues,
//! so the n-th smallest id is queue n. Valid only if the list is complete and no known queue
//! contradicts it.

/// The queue of instance `id`; `ids` are all instances of an interface with `queues` RX queues.
/// `facts` are known queues, as `(id, queue)`.
pub(super) fn queue_of(
    id: u32,
    mut ids: Vec<u32>,
    queues: u32,
    mut facts: impl Iterator<Item = (u32, u32)>,
) -> Option<u32> {
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != queues as usize {
        return None;
    }
    let contradicts = |(id, queue): (u32, u32)| match ids.binary_search(&id) {
        Ok(position) => position != queue as usize,
        // An unlisted instance has a queue that the order gives to a listed one.
        Err(_) => queue < queues,
    };
    if facts.any(contradicts) {
        return None;
    }
    ids.binary_search(&id).ok().map(|position| position as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: u32, ids: &[u32], facts: &[(u32, u32)]) -> Option<u32> {
        queue_of(id, ids.to_vec(), 3, facts.iter().copied())
    }

    #[test]
    fn in_a_complete_list_the_position_is_the_queue() {
        assert_eq!(queue(11, &[12, 10, 11], &[]), Some(1));
        assert_eq!(queue(11, &[12, 10, 11, 10], &[(12, 2)]), Some(1));
        assert_eq!(queue(11, &[10, 11], &[]), None);
        assert_eq!(queue(13, &[12, 10, 11], &[]), None);
    }

    #[test]
    fn a_contradicting_fact_voids_the_order() {
        for fact in [(12, 0), (10, 1), (9, 2), (10, 7)] {
            assert_eq!(queue(11, &[10, 11, 12], &[(11, 1), fact]), None, "{fact:?}");
        }
        // Queue 3 is not a queue of the interface.
        assert_eq!(queue(11, &[10, 11, 12], &[(9, 3)]), Some(1));
    }
}

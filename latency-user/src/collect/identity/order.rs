//! Queues by the order of their instances: drivers create instances in the order of their queues,
//! so the n-th smallest id is queue n. Holds only if the list is complete and no instance is known
//! to have another place.

/// The queue of instance `id`, where `ids` are those of an interface with `queues` RX queues.
/// `facts` are the queues that are known, as `(id, queue)`.
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
        Ok(place) => place != queue as usize,
        // An instance that is not in the list has a queue that would be another one's.
        Err(_) => queue < queues,
    };
    if facts.any(contradicts) {
        return None;
    }
    ids.binary_search(&id).ok().map(|place| place as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: u32, ids: &[u32], facts: &[(u32, u32)]) -> Option<u32> {
        queue_of(id, ids.to_vec(), 3, facts.iter().copied())
    }

    #[test]
    fn the_place_is_the_queue_of_a_complete_list() {
        assert_eq!(told(11, &[12, 10, 11], &[]), Some(1));
        assert_eq!(told(11, &[12, 10, 11, 10], &[(12, 2)]), Some(1));
        assert_eq!(told(11, &[10, 11], &[]), None);
        assert_eq!(told(13, &[12, 10, 11], &[]), None);
    }

    #[test]
    fn one_fact_against_it_voids_the_order() {
        for fact in [(12, 0), (10, 1), (9, 2), (10, 7)] {
            assert_eq!(told(11, &[10, 11, 12], &[(11, 1), fact]), None, "{fact:?}");
        }
        // Not one of the interface's queues.
        assert_eq!(told(11, &[10, 11, 12], &[(9, 3)]), Some(1));
    }
}

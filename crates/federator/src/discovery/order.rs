//! The order in which targets are tried, by RFC 2782.

use aldis_runtime::Random;

use crate::network::SrvRecord;

/// Orders by priority and, within one priority, at random by weight.
pub(crate) fn order(records: &[SrvRecord], random: &dyn Random) -> Vec<SrvRecord> {
    let mut left = records.to_vec();
    // Records of weight 0 come first, so that they are chosen only when the random number is 0.
    left.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered = Vec::with_capacity(left.len());
    while let Some(priority) = left.first().map(|record| record.priority) {
        let group = left.iter().take_while(|record| record.priority == priority).count();
        let total: u64 = left[..group].iter().map(|record| u64::from(record.weight)).sum();
        let mark = random.below(total + 1);
        let mut sum = 0;
        let chosen = left[..group]
            .iter()
            .position(|record| {
                sum += u64::from(record.weight);
                sum >= mark
            })
            .unwrap_or(0);
        ordered.push(left.remove(chosen));
    }
    ordered
}

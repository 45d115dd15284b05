//! Telling a person who logs in now and then from a program that does it all the time.

use std::time::Duration;

use aldis_types::Timestamp;

/// Longest wait that is asked for.
const LONGEST: f64 = 86_400.0;

/// Whether a login at `now` is too frequent: there are `full` cookies or more, and the distances between them deviate
/// by less than `gap`, i.e. they come as regularly as a program makes them. Gives how long to wait.
pub(crate) fn too_frequent(created: &[Timestamp], now: Timestamp, full: usize, gap: Duration) -> Option<Duration> {
    if gap.is_zero() || created.len() < full {
        return None;
    }
    let mut times = created.to_vec();
    times.sort_unstable();
    let newest = times.split_off(times.len() - full);
    let wanted = gap.as_secs_f64();
    let mut wait = 0.0;
    while deviation(&newest, now, wait) < wanted {
        wait = if wait == 0.0 { 1.0 } else { wait * 2.0 };
        if wait >= LONGEST {
            wait = LONGEST;
            break;
        }
    }
    (wait > 0.0).then(|| Duration::from_secs_f64(wait))
}

/// Standard deviation of the distances, in seconds, with a login `wait` seconds from now as the last one.
fn deviation(times: &[Timestamp], now: Timestamp, wait: f64) -> f64 {
    let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64()).collect();
    let last = times.last().map_or(0.0, |last| now.since(*last).as_secs_f64());
    gaps.push(last + wait);
    let count = f64::from(u32::try_from(gaps.len()).unwrap_or(u32::MAX));
    let mean = gaps.iter().sum::<f64>() / count;
    (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count).sqrt()
}

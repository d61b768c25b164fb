//! How many idle servers recent demand asks for.
//!
//! Who arrives finds an idle server unless more arrived before within one boot time than were idle.
//! With arrivals at random that is a Poisson count, so the target is the smallest number whose chance
//! of being used up within a boot is below the share of misses that the operator accepts.
//!
//! The rate is the highest of several looks back: short ones see a burst, the whole day keeps a quiet
//! hour from being taken for the end of all demand, and the same hour of yesterday sees the morning
//! come. A short look alone is unsteady, so each is drawn towards the day's mean by the weight of one
//! arrival. The way not taken, a learned seasonal model, would have to be explained to an operator at
//! three in the morning.

use std::time::Duration;

use crate::ambient::Moment;

/// How far back arrivals matter.
pub const MEMORY: Duration = Duration::from_hours(25);

const DAY: Duration = Duration::from_hours(24);

/// Looks back from now.
const LOOKS: [Duration; 3] = [
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(3),
];

/// Yesterday is looked at from this long before now to as long after it.
const SEASON: Duration = Duration::from_mins(30);

/// Arrivals per second to be expected now. `arrivals` are those of the last [`MEMORY`], in any order.
pub fn rate_per_s(arrivals: &[Moment], now: Moment) -> f64 {
    let within = |from: Duration, to: Duration| {
        let count = arrivals
            .iter()
            .filter(|at| **at <= now)
            .filter(|at| (to..from).contains(&now.since(**at)))
            .count();
        f64::from(u32::try_from(count).unwrap_or(u32::MAX))
    };
    let day = within(DAY, Duration::ZERO) / DAY.as_secs_f64();
    if day == 0.0 {
        return 0.0;
    }
    // One arrival takes `1 / day` seconds on an average day: that much of it is mixed in.
    let drawn = |count: f64, look: Duration| (count + 1.0) / (look.as_secs_f64() + 1.0 / day);
    let recent = LOOKS
        .iter()
        .map(|look| drawn(within(*look, Duration::ZERO), *look));
    let season = drawn(
        within(DAY + SEASON, DAY.saturating_sub(SEASON)),
        SEASON.saturating_mul(2),
    );
    recent.chain([season]).fold(0.0, f64::max)
}

/// The smallest number of idle servers, at most `most`, with which at least `hits` of 1,000 arrivals
/// find one, when a used one is replaced after `boot`.
pub fn idle_for(rate_per_s: f64, boot: Duration, hits_per_mille: u32, most: u32) -> u32 {
    let mean = rate_per_s * boot.as_secs_f64();
    let accepted = 1.0 - f64::from(hits_per_mille.min(1000)) / 1000.0;
    // `term` is the chance of exactly `count` arrivals within a boot, `tail` that of at least as many.
    let (mut term, mut tail, mut count) = ((-mean).exp(), 1.0, 0);
    while count < most && tail > accepted {
        tail -= term;
        count += 1;
        term *= mean / f64::from(count);
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Moment(10 * 24 * 3_600_000_000);
    const MINUTE: Duration = Duration::from_mins(1);

    fn ago(while_: Duration) -> Moment {
        Moment(NOW.0 - i64::try_from(while_.as_micros()).unwrap())
    }

    fn hourly(rate_per_s: f64) -> f64 {
        rate_per_s * 3600.0
    }

    #[test]
    fn without_arrivals_nothing_is_expected() {
        assert!(rate_per_s(&[], NOW).abs() < f64::EPSILON);
        assert_eq!(idle_for(0.0, MINUTE, 995, 10), 1);
    }

    #[test]
    fn a_steady_day_is_taken_for_what_it_is() {
        let every_half_hour: Vec<_> = (0..50).map(|n| ago(MINUTE * 30 * n + MINUTE)).collect();
        let rate = hourly(rate_per_s(&every_half_hour, NOW));
        assert!((2.0..5.0).contains(&rate), "{rate} an hour");
    }

    #[test]
    fn a_burst_is_seen_within_minutes() {
        let day = (0..48).map(|n| ago(MINUTE * 30 * n + MINUTE * 6));
        let burst = (0..10).map(|n| ago(Duration::from_secs(20) * n));
        let arrivals: Vec<_> = day.chain(burst).collect();
        let rate = hourly(rate_per_s(&arrivals, NOW));
        assert!(rate > 15.0, "{rate} an hour");
    }

    #[test]
    fn yesterdays_morning_is_expected_today() {
        let morning = Duration::from_hours(24);
        let arrivals: Vec<_> = (0..20)
            .map(|n| ago(morning.saturating_sub(MINUTE * n)))
            .collect();
        let quiet: Vec<_> = (0..20)
            .map(|n| ago((MINUTE * 720).saturating_sub(MINUTE * n)))
            .collect();
        assert!(rate_per_s(&arrivals, NOW) > 2.0 * rate_per_s(&quiet, NOW));
    }

    #[test]
    fn more_demand_or_slower_boots_want_more_servers() {
        let per_hour = |rate: f64| rate / 3600.0;
        let boot = Duration::from_secs(90);
        assert_eq!(idle_for(per_hour(2.0), boot, 995, 10), 2);
        assert_eq!(idle_for(per_hour(100.0), boot, 995, 20), 8);
        assert_eq!(idle_for(per_hour(100.0), boot, 995, 5), 5);
    }

    proptest! {
        #[test]
        fn the_target_grows_with_rate_boot_time_and_hits(
            rate in 0.0f64..0.2, boot_s in 1u64..600, hits in 500u32..1000,
        ) {
            let boot = Duration::from_secs(boot_s);
            let target = idle_for(rate, boot, hits, 1000);
            prop_assert!(target >= 1);
            prop_assert!(idle_for(rate * 2.0, boot, hits, 1000) >= target);
            prop_assert!(idle_for(rate, boot * 2, hits, 1000) >= target);
            prop_assert!(idle_for(rate, boot, 1000.min(hits + 1), 1000) >= target);
            prop_assert!(idle_for(rate, boot, hits, 3) <= 3);
        }
    }
}

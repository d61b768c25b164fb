//! How many idle servers recent demand asks for.
//!
//! Who arrives finds an idle server unless more arrived before within one boot time than were idle.
//! With arrivals at random that is a Poisson count, so the target is the smallest number whose chance
//! of being used up within a boot is below the share of misses that the operator accepts. Misses are
//! counted over the day: an hour in which hardly anybody comes may miss a larger share of its few than
//! the busy hours of their many, because one idle server costs the same in both.
//!
//! The expected rate lies between that of the last hours and that of the same hour of yesterday, which sees
//! the morning come, each drawn towards the day's mean by the weight of one arrival. A short
//! look counts only when it would be a great surprise at that rate: that is a burst, and then the short
//! look is believed as it is. The way not taken, a learned seasonal model, would have to be explained to an
//! operator at three in the morning.

use std::time::Duration;

use crate::ambient::Moment;

/// How far back arrivals matter.
pub const MEMORY: Duration = Duration::from_hours(25);

const DAY: Duration = Duration::from_hours(24);

/// Looks back for the rate in general, and for bursts.
const RECENT: Duration = Duration::from_hours(3);
const SHORT: [Duration; 2] = [Duration::from_mins(5), Duration::from_mins(30)];

/// Yesterday is looked at from this long before now to as long after it.
const SEASON: Duration = Duration::from_mins(30);

/// As many arrivals of an average day are mixed into what was seen: a quiet hour is not the end of all demand.
const WEIGHT: f64 = 1.0;

/// A count that is less likely than this is a burst.
const SURPRISE: f64 = 0.001;

/// The share of misses that is accepted now, as a multiple of that of the whole day.
const LENIENCE: (f64, f64) = (1.0, 10.0);

/// Arrivals a second: to be expected now, and over the last day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub now: f64,
    pub day: f64,
}

/// The rate of these arrivals, which are those of the last [`MEMORY`], in any order.
pub fn rate_per_s(arrivals: &[Moment], now: Moment) -> Rate {
    let within = |from: Duration, to: Duration| {
        let count = arrivals
            .iter()
            .filter(|at| **at <= now)
            .filter(|at| (to..from).contains(&now.since(**at)))
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let day = f64::from(within(DAY, Duration::ZERO)) / DAY.as_secs_f64();
    if day == 0.0 {
        return Rate { now: 0.0, day };
    }
    let drawn = |count: u32, look: Duration| {
        (f64::from(count) + WEIGHT) / (look.as_secs_f64() + WEIGHT / day)
    };
    let recent = drawn(within(RECENT, Duration::ZERO), RECENT);
    let season = drawn(
        within(DAY + SEASON, DAY.saturating_sub(SEASON)),
        SEASON.saturating_mul(2),
    );
    let usual = f64::midpoint(recent, season);
    let bursts = SHORT.iter().filter_map(|look| {
        let count = within(*look, Duration::ZERO);
        let mean = usual * look.as_secs_f64();
        (at_least(count, mean) < SURPRISE).then(|| f64::from(count) / look.as_secs_f64())
    });
    Rate {
        now: bursts.fold(usual, f64::max),
        day,
    }
}

/// The smallest number of idle servers, at most `most`, with which at least `hits` of 1,000 of the day's
/// arrivals find one, when a used one is replaced after `boot`.
pub fn idle_for(rate: Rate, boot: Duration, hits_per_mille: u32, most: u32) -> u32 {
    let mean = rate.now * boot.as_secs_f64();
    let lenience = if rate.now > 0.0 {
        (rate.day / rate.now).clamp(LENIENCE.0, LENIENCE.1)
    } else {
        1.0
    };
    let accepted = (1.0 - f64::from(hits_per_mille.min(1000)) / 1000.0) * lenience;
    // `term` is the chance of exactly `count` arrivals within a boot, `tail` that of at least as many.
    let (mut term, mut tail, mut count) = ((-mean).exp(), 1.0, 0);
    while count < most && tail > accepted {
        tail -= term;
        count += 1;
        term *= mean / f64::from(count);
    }
    count
}

/// The chance of at least `count` arrivals where `mean` are expected.
fn at_least(count: u32, mean: f64) -> f64 {
    let (mut term, mut tail) = ((-mean).exp(), 1.0);
    for seen in 0..count {
        tail -= term;
        term *= mean / f64::from(seen.saturating_add(1));
    }
    tail.max(0.0)
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

    fn hourly(rate: Rate) -> f64 {
        rate.now * 3600.0
    }

    fn steady(rate: f64) -> Rate {
        Rate {
            now: rate,
            day: rate,
        }
    }

    #[test]
    fn without_arrivals_nothing_is_expected() {
        assert!(rate_per_s(&[], NOW).now.abs() < f64::EPSILON);
        assert_eq!(idle_for(steady(0.0), MINUTE, 995, 10), 1);
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
        assert!(hourly(rate_per_s(&arrivals, NOW)) > 2.0 * hourly(rate_per_s(&quiet, NOW)));
    }

    #[test]
    fn a_quiet_hour_of_a_busy_day_is_served_by_one() {
        let night = Rate {
            now: 0.2 / 3600.0,
            day: 1.6 / 3600.0,
        };
        assert_eq!(idle_for(night, Duration::from_secs(110), 995, 10), 1);
    }

    #[test]
    fn more_demand_or_slower_boots_want_more_servers() {
        let per_hour = |rate: f64| steady(rate / 3600.0);
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
            let target = idle_for(steady(rate), boot, hits, 1000);
            prop_assert!(target >= 1);
            prop_assert!(idle_for(steady(rate * 2.0), boot, hits, 1000) >= target);
            prop_assert!(idle_for(steady(rate), boot * 2, hits, 1000) >= target);
            prop_assert!(idle_for(steady(rate), boot, 1000.min(hits + 1), 1000) >= target);
            prop_assert!(idle_for(steady(rate), boot, hits, 3) <= 3);
        }
    }
}

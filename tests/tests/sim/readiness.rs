//! R7: each way to lose delivery from end to end is found within two periods, with its reason, and so is its end.

use std::time::Duration;

use fanfare_core::error::Unready;
use fanfare_core::redis::Lane;
use fanfare_core::time::Instant;
use fanfare_tests::sim::Report;
use fanfare_tests::sim::plan::{Deed, Plan, Way};

use super::incidents::{all_received, kept, publish, send};

const PERIOD: Duration = Duration::from_secs(5);
/// What the line and the driver add.
const MARGIN: Duration = Duration::from_millis(50);

/// How long after `from` an instance first said that it cannot deliver, and why; and how long after `mended` it said that
/// it can, for good.
fn told(report: &Report, instance: usize, from: u64, mended: u64) -> Option<(Duration, Unready, Duration)> {
    let at = |millis: u64| Instant::from_micros(millis * 1_000);
    let later: Vec<_> = report.readiness[instance].iter().filter(|(when, _)| *when >= at(from)).collect();
    let &(lost, Err(reason)) = *later.first()? else { panic!("{later:?}") };
    let &(back, Ok(())) = *later.last()? else { panic!("{later:?}") };
    Some((lost.since(at(from)), reason, back.since(at(mended))))
}

/// Two instances with two clients each, that say something now and then.
fn plan(deed: Deed, at: u64) -> Plan {
    let plan = Plan::still(2, 4).joined();
    let plan = (0..20).fold(plan, |plan, i| plan.at(1_000 + 1_900 * i, send(i as usize % 4)));
    plan.at(at, deed)
}

#[test]
fn a_half_open_connection_is_found_whichever_way_it_is_and_whenever() {
    for at in [10_001, 12_500, 14_999] {
        for (lane, inward, reasons) in [
            (Lane::Subscriber, true, vec![Unready::Silent, Unready::Undelivered]),
            (Lane::Subscriber, false, vec![Unready::Silent]),
            (Lane::Publisher, true, vec![Unready::Silent]),
            (Lane::Publisher, false, vec![Unready::Silent]),
        ] {
            let report = kept(&plan(Deed::HalfOpen { instance: 0, lane, inward }, at));
            let (lost, reason, back) = told(&report, 0, at, at).expect("it is found");
            assert!(lost <= 2 * PERIOD + MARGIN, "{lane:?} {inward} {lost:?}");
            assert!(reasons.contains(&reason), "{lane:?} {inward}: {reason}");
            assert!(back <= lost + Duration::from_secs(1), "{lane:?} {inward}: {back:?}");
            assert_eq!(told(&report, 1, at, at), None, "the other has no part in it");
            assert_eq!(report.buses[0].gaps, u64::from(lane == Lane::Subscriber));
        }
    }
}

#[test]
fn a_redis_that_answers_and_delivers_nothing_is_found_and_the_gap_reaches_over_all_of_it() {
    for at in [10_001, 12_500, 14_999] {
        let mended = at + 20_000;
        let report = kept(&plan(Deed::HoldMessages, at).at(mended, Deed::PassMessages));
        for instance in 0..2 {
            let (lost, reason, back) = told(&report, instance, at, mended).expect("it is found");
            assert!(lost <= 2 * PERIOD + MARGIN, "{lost:?}");
            assert_eq!(reason, Unready::Undelivered);
            assert!(back <= PERIOD + Duration::from_secs(1), "{back:?}");
            let stats = report.buses[instance];
            // What is lost before the last reconnect is in a gap that has ended.
            assert!(stats.gaps >= 2 && stats.gap_time >= Duration::from_secs(15), "{stats:?}");
            assert!(stats.probes_missing >= 2);
        }
    }
}

#[test]
fn a_probe_that_is_forbidden_is_told_and_nothing_else_suffers() {
    let (at, mended) = (12_500, 42_500);
    let report = kept(&plan(Deed::ForbidProbes, at).at(mended, Deed::AllowProbes).at(50_000, publish(10)));
    for instance in 0..2 {
        let (lost, reason, back) = told(&report, instance, at, mended).expect("it is found");
        assert!(lost <= PERIOD + MARGIN && back <= PERIOD + MARGIN, "{lost:?} {back:?}");
        assert_eq!(reason, Unready::ProbeRefused);
        assert_eq!((report.buses[instance].lost_connections, report.buses[instance].gaps), (0, 0));
    }
    assert!(all_received(&report, 21));
}

#[test]
fn a_redis_that_takes_everything_and_answers_nothing_is_found() {
    let (at, mended) = (12_500, 42_500);
    let report = kept(&plan(Deed::FreezeRedis, at).at(mended, Deed::ThawRedis));
    for instance in 0..2 {
        let (lost, reason, back) = told(&report, instance, at, mended).expect("it is found");
        assert!(lost <= 2 * PERIOD + MARGIN, "{lost:?}");
        assert_eq!(reason, Unready::Silent);
        assert!(back <= Duration::from_secs(1), "{back:?}");
    }
}

#[test]
fn a_redis_that_is_gone_is_known_at_once_and_that_it_is_back_too() {
    let (at, mended) = (12_500, 42_500);
    let plan = plan(Deed::StopRedis { silent: false }, at);
    let report = kept(&plan.at(mended, Deed::StartRedis { loading: 0, refuses: 0 }));
    for instance in 0..2 {
        let (lost, reason, back) = told(&report, instance, at, mended).expect("it is found");
        assert!(lost <= MARGIN && back <= Duration::from_secs(1), "{lost:?} {back:?}");
        assert_eq!(reason, Unready::NoConnection);
    }
}

#[test]
fn a_connection_that_is_made_again_at_once_leaves_the_instance_unready_for_no_longer() {
    for lane in Lane::ALL {
        let report = kept(&plan(Deed::Cut { instance: 0, lane, how: Way::Reset }, 12_500));
        let (lost, reason, back) = told(&report, 0, 12_500, 12_500).expect("it is found");
        assert!(lost <= MARGIN && back <= Duration::from_millis(100), "{lost:?} {back:?}");
        assert_eq!(reason, Unready::NoConnection);
    }
}

//! Fleets in a box: fixed seeds, both drivers, what went wrong elsewhere, and that a failure is told well.

mod incidents;
mod readiness;

use fanfare_tests::sim::plan::{Deed, Driver, Kind};
use fanfare_tests::sim::{self, Plan, Promise};

/// More, and fresh ones: `cargo run --release -p fanfare-tests --bin sim -- --seeds 10000`.
const SEEDS: u64 = 40;

#[test]
fn every_promise_is_kept_in_the_fixed_seeds() {
    let halves = std::thread::scope(|scope| {
        let half = |first: u64| {
            let seeds = (first..SEEDS).step_by(2);
            let mut failures = seeds.filter_map(|seed| Some((seed, sim::run(&Plan::standard(seed), false).failure?)));
            failures.next()
        };
        let halves = [0, 1].map(|first| scope.spawn(move || half(first)));
        halves.map(|half| half.join().expect("no panic"))
    });
    if let Some((seed, failure)) = halves.into_iter().flatten().next() {
        panic!("seed {seed}: {failure}; cargo run --release -p fanfare-tests --bin sim -- --seed {seed} --story");
    }
}

#[test]
fn a_seed_repeats_byte_for_byte() {
    let digests: Vec<u64> = (0..3).map(|_| sim::run(&Plan::standard(7), false).digest).collect();
    assert_eq!(digests, [digests[0]; 3]);
    assert_ne!(digests[0], sim::run(&Plan::standard(8), false).digest);
}

#[test]
fn a_lazy_driver_and_an_eager_one_agree_on_what_every_client_gets() {
    for seed in 0..4 {
        let [eager, lazy] = [Driver::Eager, Driver::Lazy].map(|driver| sim::run(&Plan::calm(seed, driver), false));
        assert_eq!((&eager.failure, &lazy.failure), (&None, &None), "seed {seed}");
        assert_eq!(eager.received, lazy.received, "seed {seed}");
        assert!(eager.deliveries > 500, "{} in seed {seed}", eager.deliveries);
    }
}

/// No route leads to this room, which is as good a mistake as any.
#[test]
fn a_failing_plan_is_made_short_and_told_in_words() {
    let mut plan = Plan::standard(3);
    plan.setup.rooms[1].path = "/nowhere".to_owned();
    let failure = sim::run(&plan, false).failure.expect("an answer of 404");
    assert_eq!(failure.promise, Promise::Protocol);
    let short = sim::shrink(&plan, failure.promise);
    assert!(matches!(short.steps[..], [sim::plan::Step { deed: Deed::Join(_), .. }]), "{short}");
    let story = short.to_string();
    assert!(story.contains("in /nowhere of instance") && story.contains("connects"), "{story}");
}

#[test]
fn what_must_not_come_through_does_not_and_is_counted() {
    let plan = Plan::still(2, 4)
        .joined()
        .at(5_000, Deed::Publish { room: 0, bytes: 100, kind: Kind::NotUtf8 })
        .at(5_100, Deed::Publish { room: 0, bytes: 100, kind: Kind::TooBig })
        .at(5_200, Deed::Publish { room: 0, bytes: 100, kind: Kind::Plain });
    let report = sim::run(&plan, false);
    assert_eq!(report.failure, None);
    assert!(report.buses.iter().all(|bus| (bus.not_utf8, bus.oversized) == (1, 1)));
    // The last one in each room comes at the end of every plan.
    assert!(report.received.iter().all(|received| received.len() == 2));
}

#[test]
fn what_comes_behind_a_close_when_no_credit_is_left_is_discarded_and_counted() {
    let mut plan = Plan::still(1, 2);
    plan.setup.limits.message_bytes = 1_000;
    plan.setup.limits.publish_bytes = 4_000;
    let mut plan = plan.joined().at(5_000, Deed::StopRedis { silent: false });
    for i in 0..10 {
        plan = plan.at(6_000 + i, Deed::Send { client: 0, bytes: 900, pieces: 1 });
    }
    let plan = plan.at(7_000, Deed::CloseSession(0)).at(8_000, Deed::StartRedis { loading: 0, refuses: 0 });
    let report = sim::run(&plan, false);
    assert_eq!(report.failure, None);
    assert!((4..10).contains(&report.published), "{} messages found credit", report.published);
}

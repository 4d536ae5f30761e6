//! Walks through rooms, far from Redis: each round is a round trip, in which all that left is answered.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::redis::subscriptions::{Kind, Subscriptions};

struct Walk {
    subscriptions: Subscriptions,
    /// Commands on their way.
    sent: Vec<(Kind, Vec<Bytes>)>,
    /// Confirmed, and not unsubscribed.
    held: usize,
    most_held: usize,
}

fn room(number: usize) -> Bytes {
    format!("chat:{number}-{}", "x".repeat(230)).into()
}

impl Walk {
    fn new() -> Self {
        Self { subscriptions: Subscriptions::default(), sent: Vec::new(), held: 0, most_held: 0 }
    }

    /// Returns what was confirmed.
    fn round_trip(&mut self) -> Vec<Bytes> {
        let mut confirmed = Vec::new();
        for (kind, channels) in self.sent.drain(..) {
            for channel in channels {
                match kind {
                    Kind::Subscribe => {
                        self.held += 1;
                        confirmed.extend(self.subscriptions.handle_subscribed(&channel).expect("its turn").0);
                    }
                    Kind::Unsubscribe => {
                        self.held -= 1;
                        self.subscriptions.handle_unsubscribed(&channel).expect("its turn");
                    }
                }
            }
        }
        self.most_held = self.most_held.max(self.held);
        while let Some(batch) = self.subscriptions.next_batch() {
            self.sent.push((batch.kind(), batch.channels.iter().cloned().collect()));
        }
        confirmed
    }
}

/// 2,000 rooms a second, 60 ms away, and as many as there may be.
#[test]
fn a_new_room_is_entered_within_two_round_trips_while_others_walk_through_rooms() {
    const STAY: usize = 400;
    for pace in [120, 850] {
        let (mut walk, mut visits, mut late) = (Walk::new(), VecDeque::new(), 0);
        for round in 0..100 {
            for number in round * pace..(round + 1) * pace {
                walk.subscriptions.want(room(number));
                if number >= STAY {
                    walk.subscriptions.unwant(&room(number - STAY));
                }
            }
            let visit = Bytes::from(format!("visit-{round}"));
            walk.subscriptions.want(visit.clone());
            visits.push_back((round, visit));
            let confirmed = walk.round_trip();
            while let Some((asked, visit)) = visits.front()
                && confirmed.contains(visit)
            {
                late = late.max(round - asked);
                walk.subscriptions.unwant(visit);
                visits.pop_front();
            }
        }
        assert!(late <= 2 && visits.len() <= 2, "{pace}: {late} round trips");
        assert!(walk.most_held <= STAY + 4 * pace, "{pace}: {} are held for {STAY}", walk.most_held);
    }
}

/// Everybody leaves at once and comes back to other rooms, again and again.
#[test]
fn what_nobody_wants_any_more_is_bounded_by_what_was_ever_wanted() {
    const CLIENTS: usize = 4_000;
    // With all the time they need and with less.
    for rounds in [1, 3, 6, 20] {
        let (mut walk, mut next) = (Walk::new(), 0);
        for _ in 0..8 {
            let rooms = next..next + CLIENTS;
            next = rooms.end;
            for number in rooms.clone() {
                walk.subscriptions.want(room(number));
            }
            for _ in 0..rounds {
                walk.round_trip();
            }
            rooms.for_each(|number| walk.subscriptions.unwant(&room(number)));
        }
        assert!(walk.most_held <= CLIENTS + 2_000, "{rounds}: {}", walk.most_held);
        for _ in 0..40 {
            walk.round_trip();
        }
        assert_eq!((walk.held, walk.subscriptions.confirmed()), (0, 0));
    }
}

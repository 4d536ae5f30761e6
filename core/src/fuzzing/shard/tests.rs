//! Stories of clients that are open, get messages and do not always read: a fuzzer takes long to make up the first.

use super::{PATHS, Said, ShardStory, Step, shard};

/// One step of traffic. The first steps have everybody come.
fn step(number: usize, rng: &mut fastrand::Rng) -> Step<'static> {
    let session = rng.u8(..12);
    if number < 2 * PATHS.len() {
        let path = (number / 2) as u8 + if rng.bool() { 0 } else { 128 };
        return if number.is_multiple_of(2) { Step::Connect { path } } else { Step::Confirm { channel: rng.u8(..5) } };
    }
    match rng.u8(..100) {
        0..28 => Step::Deliver { channel: rng.u8(..6), lengths: [(); 3].map(|()| rng.u8(..120)) },
        28..30 => Step::Deliver { channel: rng.u8(..6), lengths: [0; 3] },
        30..60 => Step::Write { session, bytes: rng.u8(..) },
        60..72 => Step::Block { session },
        72..80 => Step::Free { session },
        80..82 => Step::Connect { path: rng.u8(..) },
        82..86 => Step::Confirm { channel: rng.u8(..6) },
        86..88 => Step::BusLost,
        88 => Step::Say { session, said: Said::Ping(rng.u8(..)) },
        89 => {
            Step::Say { session, said: Said::Message { is_text: rng.u8(..4) > 0, bytes: &b"12345"[..rng.usize(..6)] } }
        }
        90 => Step::Close { session, code: 1000 },
        91 => Step::Reset { session },
        92 => Step::Acknowledge { session, more_than_lent: 0 },
        93..96 => Step::Repay,
        _ => Step::Pass { hundredths: rng.u16(..300) },
    }
}

/// A client that publishes before it is open, or hands over what was read of it.
fn early(rng: &mut fastrand::Rng) -> Step<'static> {
    let words = [
        Said::Message { is_text: true, bytes: b"early" },
        Said::Message { is_text: true, bytes: &[b'x'; 190] },
        Said::Ping(5),
        Said::Close,
        Said::Beginning,
    ];
    let [said, more] = [(); 2].map(|()| words[rng.usize(..words.len())].clone());
    match rng.u8(..3) {
        0 => Step::HandOver { session: rng.u8(..12), said },
        number => Step::Early { path: rng.u8(..), adopts: number == 1, said, more },
    }
}

/// Little is published and less paid back, so that most have to wait for credit.
fn crowded(number: usize, rng: &mut fastrand::Rng) -> Step<'static> {
    let session = rng.u8(..12);
    if number < 2 * PATHS.len() {
        return step(number, rng);
    }
    match rng.u8(..100) {
        0..30 => early(rng),
        30..45 => Step::Say { session, said: Said::Message { is_text: true, bytes: &[b'x'; 150] } },
        45..55 => Step::Repay,
        55..60 => Step::Eof { session },
        60..65 => Step::Confirm { channel: rng.u8(..6) },
        65..75 => Step::Write { session, bytes: 255 },
        75 => Step::Reset { session },
        76 => Step::Close { session, code: 1000 },
        77 => Step::BusLost,
        78 if number > 150 => Step::Shutdown,
        _ => Step::Pass { hundredths: rng.u16(..400) },
    }
}

#[test]
fn a_shard_without_credit_agrees_with_the_model() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let steps = (0..200).map(|number| crowded(number, &mut rng)).collect();
        shard(ShardStory { seed: 1, asks: false, steps });
    }
}

#[test]
fn a_shard_under_traffic_agrees_with_the_model() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let steps = (0..200).map(|number| step(number, &mut rng)).collect();
        shard(ShardStory { seed: 1, asks: false, steps });
    }
}

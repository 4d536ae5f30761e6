//! What one turn of a worker may do, so that nobody waits long for what others left to be done at once.

use std::collections::BTreeSet;

use super::{heard, opened, started};
use crate::memory::text;
use crate::memory::{Client, Did};

/// What was written, and what was read, in each turn, by the client's number.
fn turns(turns: &[Vec<Did>]) -> Vec<(Vec<usize>, Vec<usize>)> {
    let writes = |did: &Did| if let Did::Write(number) = did { Some(*number) } else { None };
    let reads = |did: &Did| if let Did::Read(number) = did { Some(*number) } else { None };
    turns
        .iter()
        .map(|turn| (turn.iter().filter_map(writes).collect(), turn.iter().filter_map(reads).collect()))
        .collect()
}

fn is_distinct(numbers: &[usize]) -> bool {
    numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len()
}

/// Clients that read nothing while many messages come, and then all read at once.
#[test]
fn a_turn_writes_once_to_each_session_however_much_waits_for_it() {
    const MESSAGES: usize = 1_000;
    let (memory, _server) = started(1);
    let stuck: Vec<Client> = (0..20).map(|_| opened(&memory)).collect();
    let speaker = opened(&memory);
    memory.change_all(stuck.iter(), |pipe| pipe.room = 0);
    for _ in 0..MESSAGES {
        speaker.send(&text("a"));
    }
    speaker.take();
    memory.lock().turns = vec![Vec::new()];
    speaker.put(&text("b"));
    memory.change_all(stuck.iter().chain([&speaker]), |pipe| pipe.room = usize::MAX);
    for client in &stuck {
        assert_eq!(client.take(), [heard("a").repeat(MESSAGES), heard("b")].concat());
    }
    assert_eq!(speaker.take(), heard("b"));
    let turns = turns(&memory.lock().turns);
    assert!(turns.iter().all(|(writes, _)| is_distinct(writes)), "a session was written to twice in a turn");
    let answered = turns.iter().position(|(writes, _)| writes.contains(&speaker.number()));
    assert!(answered.is_some_and(|turn| turn <= 2), "whoever keeps up waits for the others: {answered:?}");
    let all: usize = turns.iter().map(|(writes, _)| writes.len()).sum();
    assert!(all < stuck.len() * (MESSAGES / 32), "a write takes many messages: {all} writes");
}

#[test]
fn a_turn_writes_a_bounded_sum_and_new_messages_wait_until_everybody_was_offered_a_write() {
    let (memory, _server) = started(1);
    let clients: Vec<Client> = (0..300).map(|_| opened(&memory)).collect();
    let speaker = opened(&memory);
    let messages = ["m", "n"].map(|letter| letter.repeat(60_000));
    memory.lock().turns = vec![Vec::new()];
    speaker.send(&messages.each_ref().map(|message| text(message)).concat());
    for client in clients.iter().chain([&speaker]) {
        let got = client.take();
        let all = messages.each_ref().map(|message| [&[0x81, 126, 0xEA, 0x60], message.as_bytes()].concat()).concat();
        assert!(got == all, "{} bytes", got.len());
    }
    let most = (8 << 20) / 60_000;
    let turns = turns(&memory.lock().turns);
    assert!(turns.iter().all(|(writes, _)| is_distinct(writes) && writes.len() <= most));
    let mut writes = turns.iter().flat_map(|(writes, _)| writes);
    let first: BTreeSet<_> = writes.by_ref().take(clients.len() + 1).collect();
    assert_eq!(first.len(), clients.len() + 1, "a message came before everybody was offered a write of the last one");
}

#[test]
fn the_more_clients_have_something_to_say_the_less_is_read_of_each_and_all_of_it_within_a_bound() {
    let (memory, _server) = started(1);
    let talkers: Vec<Client> = (0..700).map(|_| opened(&memory)).collect();
    memory.lock().turns = vec![Vec::new()];
    talkers.iter().for_each(|client| client.put(&[0x8A, 0x80, 0, 0, 0, 0].repeat(2_000)));
    memory.change_all(talkers.iter(), |_| {});
    let turns = turns(&memory.lock().turns);
    assert!(turns.iter().all(|(_, reads)| is_distinct(reads) && reads.len() * (2 << 10) <= 1 << 20));
    let mut reads = turns.iter().flat_map(|(_, reads)| reads);
    assert_eq!(reads.by_ref().take(talkers.len()).collect::<BTreeSet<_>>().len(), talkers.len(), "each has its turn");
    assert_eq!(turns.iter().map(|(_, reads)| reads.len()).sum::<usize>(), talkers.len() * 6);
}

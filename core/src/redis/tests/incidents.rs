//! What went wrong in the field, each as a story.

use crate::redis::world::{World, ms};
use crate::redis::{Action, Lane, LinkEvent};
use crate::resp::encode;

fn received(world: &World) -> Vec<&str> {
    world.received.iter().map(|(_, payload)| core::str::from_utf8(payload).unwrap()).collect()
}

#[test]
fn the_first_dial_after_a_failover_is_refused_and_the_link_comes_back() {
    let mut world = World::up();
    world.subscribe("chat");
    world.stop();
    world.pass(ms(60_000));
    let dials = world.actions.iter().filter(|(_, action)| *action == Action::Dial(Lane::Subscriber)).count();
    assert!(dials > 60, "at least one dial each 750 ms: {dials}");
    world.start();
    world.pass(ms(751));
    assert!(world.link.is_up());
    world.server.publish(b"chat", b"hello");
    world.run();
    assert_eq!(received(&world), ["hello"]);
}

#[test]
fn a_second_disconnect_during_resubscription_loses_no_channel() {
    let mut world = World::up();
    for i in 0..2_000 {
        world.subscribe(&format!("room:{i}"));
    }
    world.cut(Lane::Subscriber);
    for round in 0..20 {
        world.stuck.insert(Lane::Subscriber);
        world.pass(ms(60));
        world.stuck.clear();
        world.piece = 3_000 * (round + 1);
        world.cut(Lane::Subscriber);
    }
    world.piece = usize::MAX;
    world.pass(ms(2_000));
    assert_eq!((world.link.wanted_channels(), world.link.confirmed_channels()), (2_000, 2_000));
    assert_eq!(world.server.channels().len(), 2_000);
}

#[test]
fn a_confirmation_for_a_channel_that_is_no_longer_wanted_leads_to_unsubscribe() {
    let mut world = World::up();
    world.stuck.insert(Lane::Subscriber);
    world.subscribe("chat");
    world.unsubscribe("chat");
    assert_eq!(world.server.channels().len(), 1);
    world.stuck.clear();
    world.run();
    assert_eq!(world.server.channels().len(), 0);
    assert_eq!((world.link.wanted_channels(), world.link.confirmed_channels()), (0, 0));
    assert_eq!(world.take_events(), [], "nobody hears of it");
}

#[test]
fn wanting_a_channel_again_while_unsubscribe_is_in_flight_subscribes_again() {
    let mut world = World::up();
    world.subscribe("chat");
    world.stuck.insert(Lane::Subscriber);
    world.unsubscribe("chat");
    world.subscribe("chat");
    world.take_events();
    world.stuck.clear();
    world.run();
    assert_eq!(world.take_events(), [LinkEvent::Subscribed("chat".into())]);
    assert_eq!(world.server.channels().len(), 1);
}

#[test]
fn a_publish_on_a_closed_connection_waits_for_the_next() {
    let mut world = World::up();
    world.subscribe("chat");
    world.stop();
    world.publish("chat", "while away");
    world.pass(ms(5_000));
    world.start();
    world.pass(ms(2_000));
    assert_eq!(world.published(), ["while away"]);
    assert_eq!(received(&world), ["while away"]);
    assert!(world.link.is_flushed());
}

#[test]
fn queued_publishes_wait_until_the_other_instances_had_time_to_subscribe() {
    let mut world = World::up();
    world.stop();
    world.publish("chat", "while away");
    world.pass(ms(5_000));
    world.start();
    while !world.link.is_up() {
        world.pass(ms(1));
    }
    world.pass(ms(849));
    assert!(world.published().is_empty());
    world.pass(ms(1));
    assert_eq!(world.published(), ["while away"]);
}

#[test]
fn at_the_first_start_nothing_is_waited_for() {
    let mut world = World::new();
    world.subscribe("chat");
    world.publish("chat", "first");
    assert_eq!(received(&world), ["first"]);
}

#[test]
fn publishes_wait_while_only_the_subscriber_is_away() {
    let mut world = World::up();
    world.subscribe("chat");
    world.is_reachable = false;
    world.cut(Lane::Subscriber);
    world.publish("chat", "one");
    world.pass(ms(3_000));
    assert!(world.published().is_empty());
    world.is_reachable = true;
    world.pass(ms(2_000));
    assert_eq!(received(&world), ["one"]);
}

#[test]
fn a_partly_written_publish_ends_on_its_connection_although_the_others_are_held() {
    let mut world = World::up();
    world.piece = 20;
    world.full.insert(Lane::Publisher);
    world.publish("chat", "one");
    world.publish("chat", "two");
    world.full.clear();
    world.link.handle_writable(Lane::Publisher);
    let lane = world.link.poll_transmit();
    assert_eq!(lane, Some(Lane::Publisher));
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    world.link.transmit(Lane::Publisher, &mut slices);
    let bytes = slices[0][..20].to_vec();
    world.link.transmitted(Lane::Publisher, 20, world.now).unwrap();
    world.server.read(Lane::Publisher, &bytes);
    world.is_reachable = false;
    world.cut(Lane::Subscriber);
    assert_eq!(world.published(), ["one"], "an unfinished command would swallow whatever comes next");
    world.is_reachable = true;
    world.pass(ms(2_000));
    assert_eq!(world.published(), ["one", "two"]);
}

#[test]
fn a_partly_written_publish_leaves_again_whole_if_its_connection_is_lost() {
    let mut world = World::up();
    world.link.publish(b"chat", b"one", world.now);
    assert_eq!(world.link.poll_transmit(), Some(Lane::Publisher));
    let whole = world.link.publish_backlog();
    world.link.transmitted(Lane::Publisher, whole - 1, world.now).unwrap();
    world.cut(Lane::Publisher);
    world.pass(ms(2_000));
    assert_eq!(world.published(), ["one"]);
    assert!(!world.events.iter().any(|event| matches!(event, LinkEvent::Unconfirmed { .. })));
}

#[test]
fn an_unconfirmed_publish_is_told_and_never_sent_again() {
    let mut world = World::up();
    world.server.is_mute = true;
    world.publish("chat", "one");
    world.publish("chat", "two");
    world.cut(Lane::Publisher);
    world.server.is_mute = false;
    assert!(world.take_news().contains(&LinkEvent::Unconfirmed { messages: 2 }));
    world.pass(ms(60_000));
    assert_eq!(world.published(), ["one", "two"], "carried out once by the first connection");
    assert!(world.link.is_flushed());
}

/// Found by the fuzzer: the command whose reply was wrong was forgotten, and its credit with it.
#[test]
fn a_publish_that_gets_a_wrong_reply_is_told_as_unconfirmed_and_its_credit_comes_back() {
    let mut world = World::up();
    world.server.is_mute = true;
    world.publish("chat", "one");
    world.server.is_mute = false;
    world.server.clients.get_mut(&Lane::Publisher).unwrap().output.extend(b"+PONG\r\n");
    world.run();
    let news = world.take_news();
    assert!(news.contains(&LinkEvent::Unconfirmed { messages: 1 }), "{news:?}");
    assert!(world.link.is_flushed());
}

#[test]
fn a_connection_that_swallows_publishes_is_made_again() {
    let mut world = World::up();
    world.server.swallows = true;
    world.publish("chat", "one");
    world.pass(ms(4_999));
    assert!(world.link.is_up());
    world.pass(ms(1));
    let news = world.take_news();
    assert!(news.contains(&LinkEvent::Unconfirmed { messages: 1 }), "{news:?}");
    assert!(world.actions.contains(&(world.now, Action::HangUp(Lane::Publisher))));
}

#[test]
fn a_half_open_connection_is_found_without_traffic() {
    for lane in Lane::ALL {
        let mut world = World::up();
        world.stuck.insert(lane);
        world.pass(ms(9_999));
        assert!(world.link.is_up());
        world.pass(ms(1));
        assert!(!world.link.is_up(), "a ping after 5 s of silence, its answer due within 5 s");
        world.pass(ms(2_000));
        assert!(world.link.is_up());
        let gap = world.events.iter().find_map(|event| match event {
            LinkEvent::Up { gap } => Some(*gap),
            _ => None,
        });
        let is_subscriber = lane == Lane::Subscriber;
        assert_eq!(
            gap.unwrap().is_some_and(|gap| gap >= ms(10_000)),
            is_subscriber,
            "nothing is known since it fell silent"
        );
    }
}

#[test]
fn a_socket_that_takes_no_more_is_given_up() {
    let mut world = World::up();
    world.full.insert(Lane::Publisher);
    world.publish("chat", "one");
    world.pass(ms(4_999));
    assert!(world.link.is_up());
    world.pass(ms(1));
    assert!(!world.link.is_up());
    world.pass(ms(2_000));
    assert_eq!(world.published(), ["one"], "nothing of it had left");
}

#[test]
fn a_long_pipeline_that_is_being_answered_is_not_dead() {
    let mut world = World::up();
    world.stuck.insert(Lane::Publisher);
    for i in 0..10 {
        world.publish("chat", &i.to_string());
    }
    for _ in 0..10 {
        world.pass(ms(4_000));
        world.link.handle_read(Lane::Publisher, b":0\r\n", false, world.now, |_, _| {});
    }
    assert!(world.link.is_up() && world.link.is_flushed());
}

#[test]
fn a_subscriber_that_is_killed_for_its_output_buffer_comes_back_with_a_known_gap() {
    let mut world = World::up();
    world.subscribe("chat");
    world.take_events();
    world.stuck.insert(Lane::Subscriber);
    for i in 0..1_000 {
        world.server.publish(b"chat", format!("lost {i}").as_bytes());
    }
    world.cut(Lane::Subscriber);
    world.pass(ms(1_000));
    let events = world.take_events();
    assert!(matches!(&events[0], LinkEvent::Unsubscribed { .. }), "{events:?}");
    assert!(matches!(&events[1], LinkEvent::Down { lane: Lane::Subscriber, .. }), "{events:?}");
    assert!(matches!(&events[2..], [LinkEvent::Subscribed(_), LinkEvent::Up { gap: Some(_) }]), "{events:?}");
    world.server.publish(b"chat", b"after");
    world.run();
    assert_eq!(received(&world), ["after"]);
}

#[test]
fn a_connection_that_is_killed_over_and_over_is_not_made_again_in_a_tight_loop() {
    let mut world = World::up();
    world.actions.clear();
    let end = world.now + ms(30_000);
    while world.now < end {
        if world.server.clients.contains_key(&Lane::Subscriber) {
            world.cut(Lane::Subscriber);
        }
        world.pass(ms(1));
    }
    assert!(world.actions.len() < 150, "{} dials in 30 s", world.actions.len());
}

#[test]
fn the_loss_of_the_publisher_alone_is_no_gap() {
    let mut world = World::up();
    world.cut(Lane::Publisher);
    world.pass(ms(1_000));
    let events = world.take_events();
    assert!(matches!(&events[..], [LinkEvent::Down { lane: Lane::Publisher, .. }, LinkEvent::Up { gap: None }]));
}

#[test]
fn a_gap_reaches_back_to_the_last_command_that_was_answered() {
    let mut world = World::up();
    world.subscribe("chat");
    world.pass(ms(6_000));
    // A reset may be what ends a silence, and what came before it may have been the beginning of a backlog.
    world.server.publish(b"chat", b"the last that came");
    world.run();
    world.pass(ms(2_000));
    world.stop();
    world.pass(ms(5_000));
    world.start();
    while !world.link.is_up() {
        world.pass(ms(1));
    }
    let length = world.now.as_micros() - 5_000_000;
    let Some(LinkEvent::Up { gap: Some(gap) }) = world.take_events().pop() else { panic!("up again") };
    assert!(gap.as_micros().abs_diff(u128::from(length)) <= 1_000, "{gap:?}");
}

#[test]
fn one_refused_channel_does_not_keep_the_others_out() {
    let mut world = World::new();
    for i in 0..600 {
        world.link.subscribe(format!("room:{i}").into(), world.now);
    }
    world.server.denied.insert(b"room:77".to_vec());
    world.publish("room:1", "hello");
    assert_eq!(world.link.confirmed_channels(), 599);
    assert_eq!(received(&world), ["hello"], "publishes leave too");
    let refused =
        |event: &LinkEvent| matches!(event, LinkEvent::SubscribeRefused { channel, .. } if channel == "room:77");
    assert_eq!(world.take_events().iter().filter(|event| refused(event)).count(), 1);
    let asked = world.server.log.iter().filter(|(_, name)| name == "SUBSCRIBE").count();
    assert!(asked < 30, "the refused one is found by splitting: {asked} commands");
    world.pass(ms(4_999));
    assert_eq!(world.take_news(), []);
    world.pass(ms(1));
    assert!(world.take_events().iter().any(refused), "asked again after the pause");
    world.pass(ms(9_999));
    assert!(!world.take_events().iter().any(refused));
    world.pass(ms(1));
    assert!(world.take_events().iter().any(refused), "the pause doubles");
    world.server.denied.clear();
    world.pass(ms(20_000));
    assert_eq!(world.take_events(), [LinkEvent::Subscribed("room:77".into())]);
}

#[test]
fn a_refused_publish_is_told_and_the_next_goes_through() {
    let mut world = World::up();
    world.server.denied.insert(b"secret".to_vec());
    world.stuck.insert(Lane::Publisher);
    world.publish("secret", "one");
    world.publish("secret", "two");
    world.publish("chat", "three");
    world.stuck.clear();
    world.run();
    let reason = "NOPERM No permissions to access a channel".to_owned();
    assert_eq!(world.take_news(), [LinkEvent::Refused { messages: 2, reason }]);
    assert_eq!(world.published(), ["three"]);
    assert!(world.link.is_flushed() && world.link.is_up());
}

#[test]
fn an_answer_out_of_turn_ends_the_connection() {
    for (lane, bytes) in [
        (Lane::Publisher, "+OK\r\n"),
        (Lane::Publisher, ":1\r\n"),
        (Lane::Publisher, ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\np\r\n"),
        (Lane::Subscriber, ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"),
        (Lane::Subscriber, ">3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:1\r\n"),
        (Lane::Subscriber, "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"),
        (Lane::Subscriber, "-ERR\r\n"),
        (Lane::Subscriber, "$?\r\n"),
    ] {
        let mut world = World::up();
        world.link.handle_read(lane, bytes.as_bytes(), false, world.now, |_, _| panic!("no message"));
        world.run();
        assert_eq!(world.actions[2], (world.now, Action::HangUp(lane)), "{bytes:?}");
        world.pass(ms(1_000));
        assert!(world.link.is_up());
    }
}

#[test]
fn an_oversized_message_is_told_and_the_link_stays() {
    let mut world = World::up();
    world.subscribe("chat");
    world.take_events();
    world.server.publish(b"chat", &vec![b'x'; 65_536]);
    world.server.publish(b"chat", &vec![b'x'; 65_537]);
    world.server.publish(b"chat", b"after");
    world.piece = 1_000;
    world.run();
    assert_eq!(world.received.len(), 2);
    assert_eq!(world.take_events(), [LinkEvent::Oversized { channel: "chat".into(), bytes: 65_537 }]);
    assert!(world.link.is_up());
}

#[test]
fn what_comes_of_an_old_connection_before_it_is_hung_up_means_nothing() {
    let mut world = World::up();
    world.link.handle_read(Lane::Subscriber, b"junk", false, world.now, |_, _| {});
    world.link.handle_read(Lane::Subscriber, b"+OK\r\n", false, world.now, |_, _| panic!("no message"));
    world.link.handle_closed(Lane::Subscriber, "reset", world.now);
    world.link.handle_connected(Lane::Subscriber, world.now);
    world.link.handle_dial_failed(Lane::Subscriber, "refused", world.now);
    assert_eq!(world.link.transmit(Lane::Subscriber, &mut [std::io::IoSlice::new(&[]); 4]), 0);
    assert!(world.link.transmitted(Lane::Subscriber, 1, world.now).is_err());
    world.pass(ms(1_000));
    assert!(world.link.is_up());
}

#[test]
fn closing_sends_what_is_queued_and_waits_for_the_answers() {
    let mut world = World::up();
    world.stuck.insert(Lane::Publisher);
    world.publish("chat", "last");
    world.link.close(world.now);
    world.run();
    assert!(!world.link.is_closed());
    world.stuck.clear();
    world.run();
    assert_eq!(world.published(), ["last"]);
    assert!(world.link.is_closed() && world.link.is_flushed());
    assert!(world.server.clients.is_empty(), "both are hung up");
    world.pass(ms(60_000));
    assert_eq!(world.actions.len(), 4, "and not dialled again");
    assert_eq!(world.link.poll_timeout(), None);
}

#[test]
fn closing_waits_for_no_settling() {
    let mut world = World::up();
    world.stop();
    world.publish("chat", "last");
    world.start();
    while !world.link.is_up() {
        world.pass(ms(1));
    }
    assert!(world.published().is_empty());
    world.link.close(world.now);
    world.run();
    assert_eq!(world.published(), ["last"]);
    assert!(world.link.is_closed());
}

#[test]
fn closing_without_a_connection_ends_at_once_and_says_what_is_left() {
    let mut world = World::up();
    world.stop();
    world.publish("chat", "last");
    world.link.close(world.now);
    world.run();
    assert!(world.link.is_closed() && !world.link.is_flushed());
    assert_eq!(world.link.unsent_publishes(), 1);
}

#[test]
fn a_hundred_thousand_channels_are_subscribed_again_in_batches() {
    let mut world = World::new();
    for i in 0..100_000 {
        world.link.subscribe(format!("room:{i}").into(), world.now);
    }
    world.run();
    assert_eq!(world.link.confirmed_channels(), 100_000);
    world.server.log.clear();
    world.cut(Lane::Subscriber);
    world.pass(ms(100));
    assert_eq!(world.link.confirmed_channels(), 100_000);
    let asked = world.server.log.iter().filter(|(_, name)| name == "SUBSCRIBE").count();
    assert_eq!(asked, 100_000_usize.div_ceil(512));
}

#[test]
fn one_write_takes_all_publishes_that_are_there() {
    let mut world = World::up();
    let mut expected = Vec::new();
    for i in 0..1_000 {
        let payload = i.to_string();
        world.link.publish(b"chat", payload.as_bytes(), world.now);
        encode::publish(&mut expected, b"chat", payload.as_bytes());
    }
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    let used = world.link.transmit(Lane::Publisher, &mut slices);
    let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
    assert!(used <= 2 && bytes == expected);
    assert_eq!(world.link.publish_backlog(), expected.len());
}

//! What must hold between any two calls.

use std::collections::{HashMap, VecDeque};

use crate::exchange::{ChannelId, Wish, publish_cost};
use crate::shard::intake::Intake;
use crate::shard::session::{Overdue, Stage};
use crate::shard::{SessionId, Shard};

impl Shard {
    /// Everything that one place of a shard says about another.
    pub(crate) fn check(&self) {
        let listed = self.sessions.iter().filter(|(_, session)| session.flags.listed).count();
        let waiting: Vec<SessionId> = self.writable.iter().copied().filter(|&id| self.get(id).is_some()).collect();
        assert_eq!(waiting.len(), listed, "listed flags");
        assert!(waiting.iter().all(|&id| self.get(id).is_some_and(|session| session.flags.listed)));
        let mut partial = 0;
        let mut entries: HashMap<u32, u32> = HashMap::new();
        for (index, session) in &self.sessions {
            let index = index as u32;
            let id = SessionId { index, generation: session.generation };
            if let Stage::Open(open) = &session.stage {
                partial += open.unfinished.as_ref().map_or(0, |unfinished| unfinished.counted());
                assert_eq!(open.unfinished.is_some(), open.ws.is_amid(), "unfinished messages");
            }
            session.queue.count_entries(&self.runs, &mut entries);
            let stays = matches!(&session.stage, Stage::Joining(_)) || session.takes_messages();
            assert!(stays || session.member.is_none(), "who is on the way out has left its channel");
            if let Some(member) = session.member {
                assert_eq!(self.channels.members(member.channel)[member.place as usize], index, "members");
            }
            if session.has_output() && !session.flags.blocked {
                assert!(session.flags.listed || !self.is_drained(), "output that nobody hears of");
            }
            assert_eq!(session.intake == Intake::Clear, self.leftover(id) == 0, "input is held without a turn");
            let [held, line] = self.credit.lists();
            let places = |list: &VecDeque<SessionId>| list.iter().filter(|&&one| one == id).count();
            match session.intake {
                Intake::Clear => {}
                Intake::Held => assert!(places(held) > 0, "input that nobody takes in"),
                Intake::Waits(_) => assert_eq!((places(line), session.waits_in_vain()), (1, false), "in line once"),
            }
            assert!(!session.flags.unread || !session.may_be_read(), "may be read and was not named");
            let next = session.next_deadline(&self.settings.limits);
            let has_timer = session.deadline.is_some_and(|at| Some(at) <= next);
            let is_due = match session.flags.overdue {
                Overdue::No => has_timer,
                Overdue::ToLook => self.readable.contains(&id),
                Overdue::Looked => self.looked.contains(&id),
                Overdue::AwaitsBus => {
                    self.to_ask_bus.iter().chain(self.asked_bus.iter().flatten()).any(|&one| one == id)
                }
            };
            assert!(next.is_none() || is_due, "no timer");
        }
        assert_eq!(self.partial, partial, "bytes of unfinished messages");
        self.runs.check(&entries);
        let members: usize = self.sessions.iter().filter(|(_, session)| session.member.is_some()).count();
        assert_eq!(self.channels.all_members(), members, "no channel has a member that is gone");
    }

    /// Whether the session's owner has yet to look what has arrived.
    pub(crate) fn is_to_be_looked_at(&self, id: SessionId) -> bool {
        self.get(id).is_some_and(|session| session.flags.overdue == Overdue::ToLook)
    }

    /// Nothing was named that was not acknowledged: only then is everything with output listed.
    fn is_drained(&self) -> bool {
        self.writable.is_empty()
    }

    /// The name of the channel that a session is open on.
    pub(crate) fn channel_of(&self, id: SessionId) -> &[u8] {
        match &self.get(id).unwrap().stage {
            Stage::Open(open) => &open.target.channel,
            stage => panic!("not open: {stage:?}"),
        }
    }

    /// The channel that a session is in, as the bus knows it.
    pub(crate) fn channel_id(&self, id: SessionId) -> ChannelId {
        self.channels.id(self.get(id).unwrap().member.unwrap().channel)
    }

    /// The credit here and on its way to the bus.
    pub(crate) fn credit_here(&self) -> i64 {
        let leaving = self.to_bus.wishes.iter().map(|wish| match wish {
            Wish::Publish { name, len } => publish_cost(name, *len) as i64,
            _ => 0,
        });
        self.credit.left() + leaving.sum::<i64>()
    }
}

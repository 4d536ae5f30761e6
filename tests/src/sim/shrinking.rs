//! From a plan that fails to a short one that fails in the same way.

use super::plan::{Driver, Line, Plan};
use super::verdict::Promise;

/// Runs that shrinking may take.
const TRIES: usize = 3_000;

/// The shortest plan found that breaks the same promise, and is otherwise a part of `plan`.
#[must_use]
pub fn shrink(plan: &Plan, promise: Promise) -> Plan {
    let mut search = Search { best: plan.clone(), promise, tries: TRIES };
    if let Some(failure) = super::run(plan, false).failure {
        search.attempt(|plan| plan.steps.retain(|step| step.at <= failure.at));
    }
    search.drop_steps();
    search.simplify();
    search.drop_steps();
    search.best
}

struct Search {
    best: Plan,
    promise: Promise,
    tries: usize,
}

impl Search {
    /// Keeps the change if the plan still fails in the same way.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        let mut plan = self.best.clone();
        change(&mut plan);
        let fails = super::run(&plan, false).failure.is_some_and(|failure| failure.promise == self.promise);
        if fails {
            self.best = plan;
        }
        fails
    }

    /// Leaves out ever smaller pieces, down to single steps.
    fn drop_steps(&mut self) {
        let mut piece = self.best.steps.len().div_ceil(2);
        while piece > 0 {
            let mut at = 0;
            let mut dropped = false;
            while at < self.best.steps.len() {
                let end = (at + piece).min(self.best.steps.len());
                if self.attempt(|plan| drop(plan.steps.drain(at..end))) {
                    dropped = true;
                } else {
                    at = end;
                }
            }
            if piece == 1 && !dropped {
                return;
            }
            piece = if piece == 1 { 1 } else { piece / 2 };
        }
    }

    /// Plain lines, plain drivers, plain workers, one at a time.
    fn simplify(&mut self) {
        const PLAIN: Line = Line { latency: 1_000, jitter: 0, per_kib: 0, room: 64 << 10, crumbs: false };
        for i in 0..self.best.setup.instances.len() {
            self.attempt(|plan| plan.setup.instances[i].driver = Driver::Eager);
            self.attempt(|plan| plan.setup.instances[i].workers = 1);
        }
        self.attempt(|plan| plan.setup.line = PLAIN);
        self.attempt(|plan| plan.setup.redis.resp3 = true);
        self.attempt(|plan| plan.setup.redis.password = None);
        self.attempt(|plan| plan.setup.clients.iter_mut().for_each(|client| client.line = PLAIN));
        for i in 0..self.best.setup.clients.len() {
            self.attempt(|plan| plan.setup.clients[i].line = PLAIN);
            self.attempt(|plan| plan.setup.clients[i].returns = None);
        }
        self.attempt(|plan| {
            if let Some(last) = plan.steps.last() {
                plan.end = last.at;
            }
        });
    }
}

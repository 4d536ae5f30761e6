//! R7: what an instance may say of itself, after what has come back to it.

use fanfare_core::error::Unready;
use fanfare_core::time::{Duration, Instant};

use super::reference::{Instance, Reference, SUBSCRIBED_WITHIN};
use super::verdict::Promise;

/// What a late driver and slow lines add to any time.
const MARGIN: Duration = Duration::from_millis(500);

impl Reference {
    pub(super) const fn are_probes_forbidden(&self) -> bool {
        self.probes_forbidden.0
    }

    pub(super) fn forbid_probes(&mut self, forbidden: bool, now: Instant) {
        if self.probes_forbidden.0 != forbidden {
            self.probes_forbidden = (forbidden, now);
        }
    }

    /// Redis pushes an instance's probe back to it; it ends at byte `end` of the connection's stream.
    pub(super) fn probe_pushed(&mut self, instance: usize, conn: u32, end: u64, now: Instant) {
        self.instances[instance].probes.entry(conn).or_default().push_back((end, now));
    }

    pub(super) fn probes_read(&mut self, instance: usize, conn: u32, taken: u64) {
        let instance = &mut self.instances[instance];
        let Some(probes) = instance.probes.get_mut(&conn) else { return };
        while let Some(&(end, at)) = probes.front()
            && end <= taken
        {
            instance.proven = instance.proven.max(Some(at));
            probes.pop_front();
        }
    }

    /// Whether an instance may say so of itself now.
    pub(super) fn check_readiness(
        &self,
        instance: usize,
        readiness: Result<(), Unready>,
        now: Instant,
    ) -> Result<(), (Promise, String)> {
        let period = self.limits.probe_time;
        let (forbidden, since) = self.probes_forbidden;
        let Instance { proven, stands_until, .. } = self.instances[instance];
        let is_calm = self.is_calm_for(instance, SUBSCRIBED_WITHIN + period, now);
        let is_settled = is_calm && since + SUBSCRIBED_WITHIN + period <= now;
        match readiness {
            // One that stood still says what it said before, until a probe has had its time.
            Ok(()) if proven.is_none_or(|at| (at + 2 * period).max(stands_until + period) + MARGIN < now) => {
                let what = format!("instance {instance} is ready, and the last proof of it is from {proven:?}");
                Err((Promise::Readiness, what))
            }
            Err(reason) if is_settled && !forbidden => {
                let what = format!("instance {instance} has had nothing between it and redis and says: {reason}");
                Err((Promise::Readiness, what))
            }
            Err(reason) if is_settled && forbidden && reason != Unready::ProbeRefused => {
                Err((Promise::Readiness, format!("instance {instance} may not probe and says: {reason}")))
            }
            _ => Ok(()),
        }
    }
}

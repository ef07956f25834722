//! What the engine does with lanes whose owners have died: from the second death on their messages are tried in a process of their own before
//! this one runs them, and the one that ends that process is set aside. Once all that a dead owner may have had in hand has been through its
//! plugins, the lane is calm again. A host that is killed by somebody else costs its messages nothing but that trial.

use super::engine::{Engine, Event};
use super::guests::{self, Work};
use super::run::Seq;
use crate::message::FeedId;
use crate::runtime::Trouble;
use crate::store;

/// The code of a message that ends the process that runs it.
pub const KILLED_HOST: &str = "killed-host";
/// Deaths after which a lane's messages are tried apart: one alone may be anybody's doing, and costs nothing.
const CRASHES: i32 = 2;

impl Engine {
    /// Whether a message is to be tried apart.
    pub(super) fn is_suspect(&self, seq: Seq) -> bool {
        self.runs.get(&seq).is_some_and(|run| self.lanes.crashes(run.message.place.feed, run.message.place.lane) >= CRASHES)
    }

    /// Tries lines of keys apart, then runs what came back.
    pub(super) fn spawn_suspects(&self, lines: Vec<Vec<Work>>) {
        let (runtime, sender) = (self.parts.runtime.clone(), self.sender.clone());
        tokio::spawn(async move {
            for line in lines {
                let mut line = line.into_iter();
                let (mut harmless, mut killer) = (Vec::new(), None);
                for work in line.by_ref() {
                    let Work { seq, message, feed, active, context } = &work;
                    match runtime.try_out(&active.translator, message, &feed.name, context).await {
                        Ok(()) => harmless.push(work),
                        Err(text) => {
                            killer = Some((*seq, Err(Trouble { code: KILLED_HOST, text })));
                            break;
                        }
                    }
                }
                if !harmless.is_empty() {
                    guests::run(&runtime, vec![harmless], &sender).await;
                }
                if let Some(killer) = killer {
                    let _ = sender.send(Event::Ran(vec![killer]));
                }
                guests::give_back(line.map(|work| work.seq), &sender);
            }
        });
    }

    /// Why a message was set aside, and what to do.
    pub(super) fn killed_by(&self, seq: Seq, text: &str) -> String {
        let message = &self.runs[&seq].message;
        let crashes = self.lanes.crashes(message.place.feed, message.place.lane);
        format!(
            "it ends the process that runs it: {crashes} hosts died with messages of its lane in hand, and {text}; \
             mend or replace its plugin, then `tolk retry {} --reason TEXT`",
            message.id
        )
    }

    /// Says which lanes are not calm.
    pub(super) fn tell_suspects(&self) {
        let suspected = self.lanes.restless().filter(|(_, lane)| lane.crashes >= CRASHES);
        let (lanes, crashes) = suspected.fold((0, 0), |(lanes, most), (_, lane)| (lanes + 1, lane.crashes.max(most)));
        if lanes > 0 {
            tracing::warn!(
                lanes,
                crashes,
                "hosts have died with these lanes in hand; their messages are tried in a process of their own first"
            );
        }
    }

    /// Nothing is due that is not in hand: says which lanes are calm now, if some were not.
    pub(super) fn calm_lanes(&mut self) {
        let looked = 2 * self.parts.actions_every;
        let through = |(name, lane): ((FeedId, i32), &super::lanes::Lane)| {
            (lane.read >= lane.tail && lane.taken.elapsed() >= looked && !self.is_paused(name.0)).then_some((name, lane.tail))
        };
        let mut calm: Vec<((FeedId, i32), i64)> = self.lanes.restless().filter_map(through).collect();
        if calm.is_empty() || self.calming {
            return;
        }
        // What a dead owner can have had in hand: rows that were there, those in `work`, runs again.
        for run in self.runs.values() {
            let place = run.message.place;
            calm.retain(|(name, tail)| *name != (place.feed, place.lane) || (run.is_new() && place.n > *tail));
        }
        if calm.is_empty() {
            return;
        }
        self.calming = true;
        let lanes: Vec<(FeedId, i32)> = calm.into_iter().map(|(name, _)| name).collect();
        let (store, sender, host) = (self.parts.store.clone(), self.sender.clone(), self.parts.host.clone());
        tokio::spawn(async move {
            let calmed = store.calm(&host, &lanes).await;
            let _ = sender.send(Event::Calmed(lanes, calmed));
        });
    }

    /// The store knows, or not, that lanes are calm.
    pub(super) fn calmed(&mut self, lanes: &[(FeedId, i32)], calmed: store::Result<()>) {
        self.calming = false;
        match calmed {
            Ok(()) => lanes.iter().for_each(|(feed, lane)| {
                if let Some(lane) = self.lanes.get(*feed, *lane) {
                    lane.crashes = 0;
                }
            }),
            Err(error) => tracing::debug!(error = %crate::trouble::Chain(&error), "the store does not know yet that lanes are calm"),
        }
    }
}

//! Who waits for octets of a door, in turn by account.

use crate::id::AccountRowId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Door, Shared};

/// Those of one door; those of no account take turns as one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    len: usize,
    turns: VecDeque<Option<AccountRowId>>,
    lines: HashMap<Option<AccountRowId>, VecDeque<Waiter>>,
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    /// In whose line, and whose share it is limited to.
    pub(crate) account: Option<AccountRowId>,
    pub(crate) more: usize,
    pub(crate) granted: oneshot::Sender<Grant>,
}

/// Whether somebody can have what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Now,
    /// Its account holds as much as it may: the others go on.
    NotOfIts,
    /// There is not enough: who comes after it waits too, or small ones would keep a large one waiting for ever.
    NotYet,
}

impl Queue {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, waiter: Waiter) {
        let line = self.lines.entry(waiter.account).or_default();
        if line.is_empty() {
            self.turns.push_back(waiter.account);
        }
        line.push_back(waiter);
        self.len += 1;
    }

    /// Takes out the next that can have what it waits for; who gave up goes.
    pub(super) fn next(&mut self, judge: impl Fn(&Waiter) -> Fit) -> Option<Waiter> {
        let mut at = 0;
        while let Some(whose) = self.turns.get(at).copied() {
            let line = self.lines.entry(whose).or_default();
            while line.pop_front_if(|waiter| waiter.granted.is_closed()).is_some() {
                self.len -= 1;
            }
            let Some(first) = line.front() else {
                self.lines.remove(&whose);
                self.turns.remove(at);
                continue;
            };
            match judge(first) {
                Fit::NotYet => return None,
                Fit::NotOfIts => at += 1,
                Fit::Now => {
                    let waiter = line.pop_front();
                    self.turns.remove(at);
                    if line.is_empty() {
                        self.lines.remove(&whose);
                    } else {
                        self.turns.push_back(whose);
                    }
                    self.len -= 1;
                    return waiter;
                }
            }
        }
        None
    }
}

/// Octets on their way to who waited for them; they go back when nobody takes them.
#[derive(Debug)]
pub(super) struct Grant {
    pub shared: Arc<Shared>,
    pub door: Door,
    pub account: Option<AccountRowId>,
    pub octets: usize,
}

impl Grant {
    /// They are held from now on.
    pub(super) fn take(mut self) -> usize {
        std::mem::take(&mut self.octets)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.octets > 0 {
            self.shared.release(self.door, self.account, self.octets);
        }
    }
}

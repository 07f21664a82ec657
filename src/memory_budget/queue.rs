//! The waiting reservations of a consumer, in turn by account.

use crate::id::AccountRowId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Consumer, Shared};

/// The queue of one consumer; reservations without an account queue as one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    len: usize,
    order: VecDeque<Option<AccountRowId>>,
    by_account: HashMap<Option<AccountRowId>, VecDeque<Waiter>>,
}

/// A waiting reservation.
#[derive(Debug)]
pub(super) struct Waiter {
    /// The account to queue by and to limit.
    pub(crate) account: Option<AccountRowId>,
    pub(crate) more: usize,
    pub(crate) granted: oneshot::Sender<Grant>,
}

/// The outcome of trying to grant a waiting reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    /// Its account is at its maximum: others may go first.
    AccountFull,
    /// Too little is available: later ones wait too, or small ones would keep a large one waiting for ever.
    TooLittle,
}

impl Queue {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, waiter: Waiter) {
        let queue = self.by_account.entry(waiter.account).or_default();
        if queue.is_empty() {
            self.order.push_back(waiter.account);
        }
        queue.push_back(waiter);
        self.len += 1;
    }

    /// Takes the next reservation that can be granted; discards abandoned ones.
    pub(super) fn next(&mut self, check_fit: impl Fn(&Waiter) -> Fit) -> Option<Waiter> {
        let mut at = 0;
        while let Some(account) = self.order.get(at).copied() {
            let queue = self.by_account.entry(account).or_default();
            while queue.pop_front_if(|waiter| waiter.granted.is_closed()).is_some() {
                self.len -= 1;
            }
            let Some(first) = queue.front() else {
                self.by_account.remove(&account);
                self.order.remove(at);
                continue;
            };
            match check_fit(first) {
                Fit::TooLittle => return None,
                Fit::AccountFull => at += 1,
                Fit::Fits => {
                    let waiter = queue.pop_front();
                    self.order.remove(at);
                    if queue.is_empty() {
                        self.by_account.remove(&account);
                    } else {
                        self.order.push_back(account);
                    }
                    self.len -= 1;
                    return waiter;
                }
            }
        }
        None
    }
}

/// Granted octets on their way to the reservation; released when it no longer waits.
#[derive(Debug)]
pub(super) struct Grant {
    pub shared: Arc<Shared>,
    pub consumer: Consumer,
    pub account: Option<AccountRowId>,
    pub octets: usize,
}

impl Grant {
    /// Moves the octets to the reservation.
    pub(super) fn take(mut self) -> usize {
        std::mem::take(&mut self.octets)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.octets > 0 {
            self.shared.release(self.consumer, self.account, self.octets);
        }
    }
}

//! Flows that wait for a host: accounts take turns, and so do the flows of one account.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::id::AccountRowId;
use crate::jobs::Flow;

/// Limit of flows that wait for one host; further ones retry on their own.
const MAX: usize = 10_000;

/// A queue that is fair between accounts. Each flow is in it once.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    flows: HashSet<Flow>,
    /// Flows of each account, in order.
    of_account: HashMap<AccountRowId, VecDeque<Flow>>,
    /// Accounts with waiting flows, in order.
    accounts: VecDeque<AccountRowId>,
}

impl FairQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Adds a flow; one that is already waiting keeps its place.
    pub(crate) fn push(&mut self, flow: &Flow) {
        if self.flows.len() >= MAX || !self.flows.insert(flow.clone()) {
            return;
        }
        let flows = self.of_account.entry(flow.account).or_default();
        if flows.is_empty() {
            self.accounts.push_back(flow.account);
        }
        flows.push_back(flow.clone());
    }

    /// Removes a flow.
    pub(crate) fn remove(&mut self, flow: &Flow) {
        if !self.flows.remove(flow) {
            return;
        }
        if let Some(flows) = self.of_account.get_mut(&flow.account) {
            flows.retain(|one| one != flow);
            if flows.is_empty() {
                self.of_account.remove(&flow.account);
                self.accounts.retain(|account| *account != flow.account);
            }
        }
    }

    /// Removes and returns the next flow.
    pub(crate) fn pop(&mut self) -> Option<Flow> {
        let account = self.accounts.pop_front()?;
        let flows = self.of_account.get_mut(&account)?;
        let flow = flows.pop_front()?;
        if flows.is_empty() {
            self.of_account.remove(&account);
        } else {
            self.accounts.push_back(account);
        }
        self.flows.remove(&flow);
        Some(flow)
    }
}

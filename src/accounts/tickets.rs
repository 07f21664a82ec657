//! One-time sign-ins that the operator of the process hands out to a person in front of it (`mailkite dev`). They live
//! in memory and end with the process.

use std::sync::Mutex;

use crate::id::random_base62;
use crate::secrets::token_hash;
use crate::store::accounts::Account;

/// The unspent tickets.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<Vec<([u8; 32], Account)>>);

impl Tickets {
    /// Issues a new ticket for an account.
    pub fn issue(&self, account: Account) -> String {
        let ticket = random_base62(32);
        self.unspent().push((token_hash(&ticket), account));
        ticket
    }

    /// Spends a ticket and returns its account.
    pub(super) fn redeem(&self, ticket: &str) -> Option<Account> {
        let hash = token_hash(ticket);
        let mut unspent = self.unspent();
        let at = unspent.iter().position(|(known, _)| *known == hash)?;
        Some(unspent.swap_remove(at).1)
    }

    fn unspent(&self) -> std::sync::MutexGuard<'_, Vec<([u8; 32], Account)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

//! Sign-up policy: decides on new accounts, and on the owner of the installation (contract 2.2).

use std::sync::Arc;

use crate::store::Connection;

use super::{Proof, Refusal};
use crate::config::Signup;
use crate::secrets::{Secrets, token_hash};
use crate::store::accounts::verifications;
use crate::store::accounts::verifications::SETUP_PURPOSE;
use crate::store::{self, accounts};

/// The policy applied to one sign-up.
pub(super) struct Policy {
    pub(super) signup: Signup,
    pub(super) proof: Proof,
    pub(super) secrets: Arc<Secrets>,
}

impl Policy {
    /// Returns whether the new account becomes the owner, or the reason against a new account.
    pub(super) fn owner_if_permitted(&self, connection: &Connection) -> Result<bool, Refusal> {
        let has_owner = accounts::find_owner(connection)?.is_some();
        let proven = self.proof.over_loopback || self.token_fits(connection)?;
        match self.signup {
            Signup::Closed => Err(Refusal::SignupClosed),
            Signup::First if accounts::any(connection)? => Err(Refusal::SignupClosed),
            Signup::First if !proven => Err(Refusal::SetupToken),
            Signup::First => Ok(true),
            Signup::Open => Ok(proven && !has_owner),
        }
    }

    fn token_fits(&self, connection: &Connection) -> store::Result<bool> {
        let Some(given) = &self.proof.token else { return Ok(false) };
        let Some(sealed) = verifications::find_setup_token(connection)? else { return Ok(false) };
        let stored = self.secrets.open_text(SETUP_PURPOSE, &sealed);
        let stored = stored.map_err(|_| store::Error::Corrupt("setup token"))?;
        // Hashes are compared, so the time taken discloses nothing of the token.
        Ok(token_hash(given) == token_hash(&stored))
    }
}

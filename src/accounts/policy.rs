//! Who may sign up, and who of them owns the installation (contract 2.2).

use std::sync::Arc;

use crate::store::Connection;

use super::{Proof, Refusal};
use crate::config::Signup;
use crate::secrets::{Secrets, token_hash};
use crate::store::accounts::verifications;
use crate::store::accounts::verifications::SETUP_PURPOSE;
use crate::store::{self, accounts};

/// The policy, asked about one who would sign up.
pub(super) struct Policy {
    pub(super) signup: Signup,
    pub(super) proof: Proof,
    pub(super) secrets: Arc<Secrets>,
}

impl Policy {
    /// Whether the new account is the owner; or why there may be no new account.
    pub(super) fn owner_if_permitted(&self, connection: &Connection) -> store::Result<Result<bool, Refusal>> {
        let has_owner = accounts::find_owner(connection)?.is_some();
        let proven = self.proof.over_loopback || self.token_fits(connection)?;
        Ok(match self.signup {
            Signup::Closed => Err(Refusal::SignupClosed),
            Signup::First if accounts::any(connection)? => Err(Refusal::SignupClosed),
            Signup::First if !proven => Err(Refusal::SetupToken),
            Signup::First => Ok(true),
            Signup::Open => Ok(proven && !has_owner),
        })
    }

    fn token_fits(&self, connection: &Connection) -> store::Result<bool> {
        let Some(given) = &self.proof.token else { return Ok(false) };
        let Some(sealed) = verifications::find_setup_token(connection)? else { return Ok(false) };
        let stored = self.secrets.open_text(SETUP_PURPOSE, &sealed);
        let stored = stored.map_err(|_| store::Error::Corrupt("setup token"))?;
        // Hashes are compared, so the time taken says nothing of the token.
        Ok(token_hash(given) == token_hash(&stored))
    }
}

//! Password hashing: Argon2id with 19 MiB, two passes and one lane. Few run at a time so that logins cannot exhaust
//! memory; requesters take turns.

use crate::fair_semaphore::{FairSemaphore, QueueFull, Requester};
use crate::id::fill_random;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Hashes computed at the same time.
const MAX_CONCURRENT: usize = 2;
/// Most that wait; at some 50 ms each the last one waits two seconds.
const MAX_WAITING: usize = 64;
/// The shortest password, in characters (contract 2.2).
const MIN_CHARS: usize = 10;
/// The longest password, in bytes: nobody makes us hash a megabyte.
const MAX_BYTES: usize = 1024;
/// Verified against when there is no stored hash: same cost, matches no password.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlz$\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The reasons to refuse a new password; the API answers 400 `weak_password`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Weak {
    /// Fewer than ten characters.
    #[error("a password has at least {MIN_CHARS} characters")]
    Short,
    /// More than 1,024 bytes.
    #[error("a password has at most {MAX_BYTES} bytes")]
    Long,
    /// The e-mail address, or its local part.
    #[error("a password is not the e-mail address")]
    Email,
}

/// The reasons why a password could not be hashed or verified.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum HashError {
    /// Out of memory.
    #[error("a password could not be hashed")]
    Failed,
    /// Too many requests are waiting.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
}

/// Checks that a password may be used for an account with this e-mail address.
///
/// # Errors
/// It is too short, too long, or equals the address or its local part.
pub(crate) fn check(password: &str, email: &str) -> Result<(), Weak> {
    if password.chars().count() < MIN_CHARS {
        return Err(Weak::Short);
    }
    if password.len() > MAX_BYTES {
        return Err(Weak::Long);
    }
    let lower = password.to_lowercase();
    let local = email.rsplit_once('@').map_or(email, |(local, _)| local);
    if lower == email.to_lowercase() || lower == local.to_lowercase() { Err(Weak::Email) } else { Ok(()) }
}

/// Hashes and verifies off the async threads; clones share the limit.
#[derive(Clone, Debug)]
pub struct Passwords {
    semaphore: FairSemaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { semaphore: FairSemaphore::new(MAX_CONCURRENT, MAX_WAITING) }
    }
}

impl Passwords {
    /// Returns the hash of a password in PHC form, with a new salt; queues fairly for `who`.
    ///
    /// # Errors
    /// Not enough memory, or too many are waiting.
    pub async fn hash<'a>(&self, password: String, who: impl Into<Requester<'a>>) -> Result<String, HashError> {
        self.run(who, move || hash(&password)).await?
    }

    /// Verifies the password against the stored hash; queues fairly for `who`. Without a stored hash it does the same
    /// work and returns false.
    ///
    /// # Errors
    /// Too many are waiting.
    pub(crate) async fn verify<'a>(
        &self,
        password: String,
        stored: Option<String>,
        who: impl Into<Requester<'a>>,
    ) -> Result<bool, HashError> {
        if password.len() > MAX_BYTES {
            return Ok(false);
        }
        let verified = self.run(who, move || {
            let genuine = verify(&password, stored.as_deref().unwrap_or(DUMMY_HASH));
            genuine && stored.is_some()
        });
        verified.await
    }

    /// Returns how many are waiting now, and how many were refused since the start.
    pub(crate) fn queue_stats(&self) -> (usize, u64) {
        self.semaphore.queue_stats()
    }

    async fn run<'a, T: Send + 'static>(
        &self,
        who: impl Into<Requester<'a>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let permit = self.semaphore.acquire(who).await?;
        // Hold the permit until the work is done, even if the requester goes away meanwhile.
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|_| HashError::Failed)
    }
}

fn argon() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|_| HashError::Failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String, HashError> {
    let mut salt = [0_u8; 16];
    fill_random(&mut salt);
    let hash = argon()?.hash_password_with_salt(password.as_bytes(), &salt).map_err(|_| HashError::Failed)?;
    Ok(hash.to_string())
}

fn verify(password: &str, stored: &str) -> bool {
    argon().is_ok_and(|argon| argon.verify_password(password.as_bytes(), stored).is_ok())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_alone() {
        let passwords = Passwords::default();
        let stored = passwords.hash("correct horse".to_owned(), "me").await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.verify("correct horse".to_owned(), Some(stored.clone()), "me").await.unwrap());
        assert!(!passwords.verify("correct Horse".to_owned(), Some(stored), "me").await.unwrap());
        assert!(!passwords.verify("correct horse".to_owned(), None, "me").await.unwrap());
        assert!(argon2::PasswordHash::new(DUMMY_HASH).is_ok(), "the stand-in costs what a stored hash costs");
    }

    #[tokio::test]
    async fn whoever_goes_away_hands_no_turn_on_while_the_work_runs() {
        let passwords = Passwords::default();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let mut asked = Box::pin(passwords.run("me", move || held.recv()));
        assert!((&mut asked).now_or_never().is_none());
        drop(asked);
        let mut turns = Vec::new();
        for _ in 1..MAX_CONCURRENT {
            turns.push(passwords.semaphore.acquire("other").await.unwrap());
        }
        let mut last = Box::pin(passwords.semaphore.acquire("other"));
        assert!((&mut last).now_or_never().is_none());
        release.send(()).unwrap();
        assert!(last.await.is_ok(), "the work is done");
    }

    #[test]
    fn weak_passwords_are_refused() {
        assert_eq!(check("short", "ada@acme.dev"), Err(Weak::Short));
        assert_eq!(check(&"x".repeat(1025), "ada@acme.dev"), Err(Weak::Long));
        assert_eq!(check("ADA@acme.dev", "ada@acme.dev"), Err(Weak::Email));
        assert_eq!(check("Lovelace.Ada", "lovelace.ada@acme.dev"), Err(Weak::Email));
        assert_eq!(check("\u{fc}".repeat(10).as_str(), "ada@acme.dev"), Ok(()));
    }
}

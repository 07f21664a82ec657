//! Memory of large mail that goes back to the system as soon as it is freed.
//!
//! glibc learns to keep freed blocks of up to 32 MiB for reuse, in each of its arenas; a few mails of the largest size
//! would hold their memory for ever. Larger reservations are always mapped on their own, and only what is written counts.

/// Reservations from here on are worth it.
const SMALL: usize = 1 << 20;
const ALWAYS_RETURNED: usize = 33 << 20;

/// How much to reserve for this many octets.
pub fn returned(length: usize) -> usize {
    if length < SMALL { length } else { length.max(ALWAYS_RETURNED) }
}

//! Takes a parcel to its destination: hosts in turn, sessions kept for the next parcel.

/// Octets of a transcript at most.
pub const MAX_TRANSCRIPT: usize = 16 * 1024;

//! The master key file, sealing secrets at rest, tokens and their hashes.

//! Envelope senders that prove themselves: bounce addresses and SRS.

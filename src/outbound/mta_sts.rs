//! MTA-STS: a domain's policy, found, fetched and remembered (RFC 8461).

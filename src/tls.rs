//! Server certificates and client roots.

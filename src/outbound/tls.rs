//! TLS towards remote hosts: what each rule asks of a certificate.

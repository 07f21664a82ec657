//! One SMTP session as a client (RFC 5321): connect, greet, STARTTLS, AUTH, envelope, data.

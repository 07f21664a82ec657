//! The envelope of one SMTP transaction.

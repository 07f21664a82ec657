//! The sweep: what is past its time goes, rows first, then files.

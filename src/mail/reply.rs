//! Every SMTP reply this server gives.

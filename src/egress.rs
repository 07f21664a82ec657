//! The only outgoing HTTP: address guard, no redirects, bounded answers.

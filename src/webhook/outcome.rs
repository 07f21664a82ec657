//! What an answer means under each ack mode (contract 9.4).

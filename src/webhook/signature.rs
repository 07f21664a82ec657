//! Both signature schemes (contract 9.3).

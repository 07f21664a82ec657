<<<<<<< HEAD
//! What the tests stand on: peers with scripted behaviour.

pub mod receiver;
=======
//! What several tests need.

pub mod dns;
>>>>>>> mime

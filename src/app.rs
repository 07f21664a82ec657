//! Builds every part from the configuration, binds, starts the workers, drains and stops in order.

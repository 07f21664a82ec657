//! TOML to RawConfig to Config; all problems at once, each with its key and line.

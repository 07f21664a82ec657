//! Prepares the dashboard's files for the binary, and compiles the one setting of the C library's allocator.
//!
//! Each file is embedded as it is, and compressed with gzip and brotli where that pays. Nothing is bundled or
//! rewritten: a browser gets the content of `assets`.
//!
//! All files are served below one path that contains a hash of them all, so that they may be cached for ever and
//! never mix with those of another version; their imports are relative and need no rewriting.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Compressing smaller files gains nothing.
const WORTH_COMPRESSING: usize = 512;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=assets");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/process/malloc.c");
    cc::Build::new().file("src/process/malloc.c").link_lib_modifier("+whole-archive").compile("mailkite_malloc");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("assets");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    let mut files = BTreeMap::new();
    collect(Path::new("assets"), "", &mut files)?;
    let mut hasher = DefaultHasher::new();
    for (name, bytes) in &files {
        hasher.write(name.as_bytes());
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
        write(&out, name, bytes)?;
    }
    println!("cargo:rustc-env=MAILKITE_ASSETS={:016x}", hasher.finish());
    Ok(())
}

/// Collects the files of the pages by their path below `assets`; mail templates are not among them.
fn collect(folder: &Path, below: &str, files: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            if name != "templates" {
                collect(&entry.path(), &format!("{name}/"), files)?;
            }
        } else if [".html", ".css", ".js", ".svg"].iter().any(|kind| name.ends_with(kind)) {
            files.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn write(out: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = out.join(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, bytes)?;
    // Pages are filled in per request.
    if bytes.len() < WORTH_COMPRESSING || name.ends_with(".html") {
        return Ok(());
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes)?;
    fs::write(out.join(format!("{name}.gz")), gzip.finish()?)?;
    let mut brotli = Vec::new();
    let best = brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 22, ..Default::default() };
    brotli::BrotliCompress(&mut &bytes[..], &mut brotli, &best)?;
    fs::write(out.join(format!("{name}.br")), brotli)
}

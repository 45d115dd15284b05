//! Has the crate built again when the web client was.

use std::{env, fs, path::Path};

fn main() {
    let app = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("app/dist");
    // A folder that is missing would count as changed each time. Where it cannot be made, nothing can be built into it.
    if fs::create_dir_all(&app).is_ok() {
        println!("cargo::rerun-if-changed=app/dist");
    } else {
        println!("cargo::rerun-if-changed=build.rs");
    }
}

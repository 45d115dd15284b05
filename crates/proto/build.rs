//! Compiles `proto/` with a compiler written in Rust: no system protoc is needed.

use std::path::Path;

const FILES: [&str; 13] = [
    "federation/v1/common.proto",
    "federation/v1/users.proto",
    "federation/v1/conversations.proto",
    "federation/v1/assets.proto",
    "federation/v1/delivery.proto",
    "federation/v1/federator.proto",
    "internal/v1/users.proto",
    "internal/v1/conversations.proto",
    "internal/v1/notifications.proto",
    "internal/v1/admin.proto",
    "internal/v1/federator.proto",
    "internal/v1/outbox.proto",
    "internal/v1/reconciliation.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../../proto");
    for file in FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

//! Compiles `proto/` with a compiler written in Rust: no system protoc is needed.

use std::path::Path;

use prost_types::{FileDescriptorSet, method_options::IdempotencyLevel};

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

/// Paths of the calls that say of themselves that a second one does no harm.
fn repeatable(descriptors: &FileDescriptorSet) -> Vec<String> {
    let mut paths = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                let level = method.options.as_ref().map(prost_types::MethodOptions::idempotency_level);
                if level.is_some_and(|level| level != IdempotencyLevel::IdempotencyUnknown) {
                    paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
    }
    paths.sort();
    paths
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../../proto");
    for file in FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [root])?;
    let list = Path::new(&std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("repeatable.rs");
    std::fs::write(list, format!("&{:?}", repeatable(&descriptors)))?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

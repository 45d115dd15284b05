//! What backends say to each other may only be added to: the protos of today against those of the last release, which lie in
//! `proto/released` and are replaced at a release alone.

use std::{collections::BTreeMap, fs, path::Path};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

const FILES: [&str; 6] = [
    "federation/v1/common.proto",
    "federation/v1/users.proto",
    "federation/v1/conversations.proto",
    "federation/v1/assets.proto",
    "federation/v1/delivery.proto",
    "federation/v1/federator.proto",
];

/// Messages, enums and services by their full names.
#[derive(Default)]
struct Surface {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    services: BTreeMap<String, ServiceDescriptorProto>,
}

impl Surface {
    fn read(root: &Path) -> Self {
        let set: FileDescriptorSet = protox::compile(FILES, [root]).unwrap();
        let mut surface = Self::default();
        for file in set.file {
            let package = file.package().to_owned();
            for message in file.message_type {
                surface.message(&package, message);
            }
            for it in file.enum_type {
                surface.enums.insert(format!("{package}.{}", it.name()), it);
            }
            for it in file.service {
                surface.services.insert(format!("{package}.{}", it.name()), it);
            }
        }
        surface
    }

    fn message(&mut self, parent: &str, message: DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        for nested in message.nested_type.clone() {
            self.message(&name, nested);
        }
        for it in message.enum_type.clone() {
            self.enums.insert(format!("{name}.{}", it.name()), it);
        }
        self.messages.insert(name, message);
    }

    /// What somebody who was built with `self` cannot read, write or compile any more with `today`.
    fn broken_by(&self, today: &Self) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, then) in &self.messages {
            match today.messages.get(name) {
                Some(now) => broken.extend(fields(name, then, now)),
                None => broken.push(format!("{name} is gone")),
            }
        }
        for (name, then) in &self.enums {
            let Some(now) = today.enums.get(name) else {
                broken.push(format!("{name} is gone"));
                continue;
            };
            for value in &then.value {
                if !now.value.iter().any(|it| it.number == value.number && it.name == value.name) {
                    broken.push(format!("{name}: {} = {} is gone or another", value.name(), value.number()));
                }
            }
        }
        for (name, then) in &self.services {
            let Some(now) = today.services.get(name) else {
                broken.push(format!("{name} is gone"));
                continue;
            };
            for method in &then.method {
                // Types, and which side streams.
                if !now.method.contains(method) {
                    broken.push(format!("{name}/{} is gone or another", method.name()));
                }
            }
        }
        broken
    }
}

/// What makes a field the same for both sides, on the wire and in generated code.
fn shape(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let choice = field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
    let choice = choice.map(prost_types::OneofDescriptorProto::name).unwrap_or_default();
    let packed = field.options.as_ref().and_then(|options| options.packed);
    format!(
        "{} {:?} {:?} {} {} {choice} {packed:?} {}",
        field.name(),
        field.label(),
        field.r#type(),
        field.type_name(),
        field.json_name(),
        field.proto3_optional()
    )
}

fn fields(name: &str, then: &DescriptorProto, now: &DescriptorProto) -> Vec<String> {
    let mut broken = Vec::new();
    for field in &then.field {
        let place = format!("{name}: {} = {}", field.name(), field.number());
        match now.field.iter().find(|it| it.number == field.number) {
            None => broken.push(format!("{place} is gone")),
            Some(it) if shape(now, it) != shape(then, field) => {
                broken.push(format!("{place} is another: {}, it was {}", shape(now, it), shape(then, field)));
            }
            Some(_) => {}
        }
    }
    for range in &then.reserved_range {
        let still = |it: &prost_types::descriptor_proto::ReservedRange| it.start <= range.start && range.end <= it.end;
        if !now.reserved_range.iter().any(still) {
            broken.push(format!("{name}: numbers {} to {} may come again", range.start(), range.end() - 1));
        }
    }
    for reserved in then.reserved_name.iter().filter(|it| !now.reserved_name.contains(it)) {
        broken.push(format!("{name}: the name {reserved} may come again"));
    }
    broken
}

fn released() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/released"))
}

#[test]
fn todays_protos_only_add_to_the_released_ones() {
    let today = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto"));
    let broken = Surface::read(released()).broken_by(&Surface::read(today));
    assert!(broken.is_empty(), "a backend of the last release would not understand:\n{}", broken.join("\n"));
}

/// The released protos with one change in one file.
fn changed(file: &str, from: &str, to: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("federation/v1")).unwrap();
    for name in FILES {
        let text = fs::read_to_string(released().join(name)).unwrap();
        let text = if name.ends_with(file) {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        } else {
            text
        };
        fs::write(folder.path().join(name), text).unwrap();
    }
    Surface::read(released()).broken_by(&Surface::read(folder.path()))
}

#[test]
fn what_breaks_is_found() {
    let cases = [
        // Field gone, another type, another number, another name, repeated, another side of a choice.
        ("delivery.proto", "  uint32 shard = 3;\n", ""),
        ("delivery.proto", "uint32 shard = 3;", "string shard = 3;"),
        ("delivery.proto", "uint32 shard = 3;", "uint32 shard = 9;"),
        ("delivery.proto", "uint32 shard = 3;", "uint32 part = 3;"),
        ("delivery.proto", "uint32 shard = 3;", "repeated uint32 shard = 3;"),
        ("delivery.proto", "uint32 shard = 3;", "optional uint32 shard = 3;"),
        ("delivery.proto", "oneof result {", "oneof outcome {"),
        ("delivery.proto", "Gap gap = 4;", "Applied gap = 4;"),
        // A message, a method, a stream, an argument, a package.
        ("delivery.proto", "service UsersDelivery {", "service UserDelivery {"),
        ("delivery.proto", "Deliver(stream DeliverRequest)", "Send(stream DeliverRequest)"),
        ("delivery.proto", "(stream DeliverRequest)", "(DeliverRequest)"),
        ("delivery.proto", "returns (stream DeliverResponse)", "returns (stream DeliverRequest)"),
        ("federator.proto", "package aldis.federation.v1;", "package aldis.federation.v2;"),
    ];
    for (file, from, to) in cases {
        assert!(!changed(file, from, to).is_empty(), "{from} → {to} was let through");
    }
}

#[test]
fn what_only_adds_is_let_through() {
    let cases = [
        ("delivery.proto", "uint32 shard = 3;", "uint32 shard = 3;\n  string added = 1000;"),
        ("delivery.proto", "Gap gap = 4;", "Gap gap = 4;\n    Applied added = 1000;"),
        (
            "delivery.proto",
            "message Applied {}",
            "message Applied {}\nmessage Added {}\nenum Kind { KIND_UNSPECIFIED = 0; }",
        ),
        ("delivery.proto", "service UsersDelivery {", "service UsersDelivery {\n  rpc Added(Open) returns (Opened);"),
        ("delivery.proto", "// First message of a stream", "// A comment. First message of a stream"),
    ];
    for (file, from, to) in cases {
        assert_eq!(changed(file, from, to), Vec::<String>::new(), "{from} → {to}");
    }
}

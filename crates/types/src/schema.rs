//! JSON schemas of the values that are written as text: their form is stricter than "a string".

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    AccentId, AssetKey, ClientId, ConversationType, Domain, Email, Handle, LegacyAccessRole, Name, Qualified, RoleName,
    Timestamp,
};

macro_rules! schemas {
    ($($name:ident { $($schema:tt)* })*) => {
        $(
            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ $($schema)* })
                }
            }
        )*
    };
}

schemas! {
    ClientId {
        "type": "string",
        "description": "One device of a user: a number in hexadecimal",
        "pattern": "^[0-9a-fA-F]{1,16}$",
    }
    AssetKey {
        "type": "string",
        "description": "Names a file on its backend",
        "pattern": "^3-[1-5]-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    }
    Domain {
        "type": "string",
        "description": "The domain of a backend",
        "pattern": r"^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?$|^localhost\.?$",
        "maxLength": 253,
        "examples": ["example.com"],
    }
    Handle {
        "type": "string",
        "description": "A name that is unique on its backend",
        "pattern": r"^[a-z0-9_.\-]{2,256}$",
    }
    Name { "type": "string", "description": "A display name", "minLength": 1, "maxLength": 128 }
    Email { "type": "string", "description": "An e-mail address" }
    AccentId { "type": "integer", "format": "int32", "description": "A colour by number; apps choose the colour" }
    RoleName { "type": "string", "description": "A role in a conversation", "pattern": "^[a-z0-9_]{2,128}$" }
    ConversationType {
        "type": "integer",
        "description": "0: group, 1: with oneself, 2: one-to-one, 3: connection pending",
        "enum": [0, 1, 2, 3],
    }
    Timestamp {
        "type": "string",
        "format": "date-time",
        "description": "A time in UTC with three decimals",
        "examples": ["2025-03-01T12:34:56.789Z"],
    }
    LegacyAccessRole { "type": "string", "enum": ["private", "team", "activated", "non_activated"] }
}

impl<T: JsonSchema> JsonSchema for Qualified<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Qualified{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let domain = generator.subschema_for::<Domain>();
        let id = generator.subschema_for::<T>();
        json_schema!({
            "type": "object",
            "properties": { "domain": domain, "id": id },
            "required": ["domain", "id"],
        })
    }
}

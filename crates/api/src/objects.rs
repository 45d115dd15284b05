//! JSON objects for what is one in our types. A struct that derives `Deserialize` may come as a list of its fields, in
//! order, as well: compact formats need that. In a body it would be a second spelling that nobody documents, and which a
//! new field breaks.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

/// Reads JSON; structs are read from objects alone, however deep they lie.
pub fn read_json<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(Objects(&mut reader))?;
    reader.end()?;
    Ok(value)
}

/// A deserializer, and each thing that a deserializer hands on, with structs read from maps.
struct Objects<T>(T);

macro_rules! hand_on {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {
        $(
            fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
                self.0.$method($($argument,)* Objects(visitor))
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    hand_on! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_str() deserialize_string()
        deserialize_bytes() deserialize_byte_buf() deserialize_option() deserialize_unit() deserialize_seq()
        deserialize_map() deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Objects(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! pass {
    ($($method:ident: $type:ty),*) => {
        $(
            fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
                self.0.$method(value)
            }
        )*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Objects<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    pass! {
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64,
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Objects(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Objects(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Objects(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Objects(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        // Keys as they are: the reader of JSON has its own way with ids and numbers there.
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Objects<A> {
    type Error = A::Error;
    type Variant = Objects<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(seed)?;
        Ok((value, Objects(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Objects(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Objects(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Fields(visitor))
    }
}

/// Reads the fields of a variant, which come as a map alone.
struct Fields<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<V::Value, A::Error> {
        Err(A::Error::invalid_type(Unexpected::Seq, &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aldis_types::{ClientId, Qualified, UserId};
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Inner {
        number: u8,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Newtype(Inner);

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Plain,
        One(Inner),
        Fields { number: u8 },
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Outer {
        inner: Inner,
        maybe: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        map: BTreeMap<UserId, Inner>,
        #[serde(default)]
        newtype: Option<Newtype>,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        pair: Option<(u8, Inner)>,
    }

    #[test]
    fn objects_are_read_as_always() {
        let user = "99db9768-04e3-4b5d-9268-831b6a25c4ab";
        for json in [
            r#"{"inner":{"number":1}}"#.to_owned(),
            r#"{"inner":{"number":1},"maybe":null,"list":[],"map":{},"more":[1,{"a":[2]}]}"#.to_owned(),
            format!(
                r#"{{"inner":{{"number":1}},"maybe":{{"number":2}},"list":[{{"number":3}},{{"number":4}}],
                "map":{{"{user}":{{"number":5}}}},"newtype":{{"number":6}},"kind":{{"one":{{"number":7}}}},
                "pair":[8,{{"number":9}}]}}"#
            ),
            r#"{"inner":{"number":1},"kind":"plain"}"#.to_owned(),
            r#"{"inner":{"number":1},"kind":{"fields":{"number":2}}}"#.to_owned(),
        ] {
            assert_eq!(read_json::<Outer>(json.as_bytes()).unwrap(), serde_json::from_str(&json).unwrap());
        }
        let id: Qualified<UserId> = read_json(format!(r#"{{"id":"{user}","domain":"a.test"}}"#).as_bytes()).unwrap();
        assert_eq!(id.domain.as_str(), "a.test");
        let clients: BTreeMap<UserId, Vec<ClientId>> =
            read_json(format!(r#"{{"{user}":["b17","c0"]}}"#).as_bytes()).unwrap();
        assert_eq!(clients.into_values().next().unwrap(), [ClientId(0xb17), ClientId(0xc0)]);
        let any: Value = read_json(br#"[1,-2,3.5,"x",null,true,{"a":[]}]"#).unwrap();
        assert_eq!(any, serde_json::json!([1, -2, 3.5, "x", null, true, { "a": [] }]));
    }

    #[test]
    fn a_list_of_fields_is_no_object() {
        for json in [
            r#"[{"number":1},null]"#,
            r#"{"inner":[1]}"#,
            r#"{"inner":{"number":1},"maybe":[2]}"#,
            r#"{"inner":{"number":1},"list":[[3]]}"#,
            r#"{"inner":{"number":1},"map":{"99db9768-04e3-4b5d-9268-831b6a25c4ab":[5]}}"#,
            r#"{"inner":{"number":1},"newtype":[6]}"#,
            r#"{"inner":{"number":1},"kind":{"one":[7]}}"#,
            r#"{"inner":{"number":1},"kind":{"fields":[7]}}"#,
            r#"{"inner":{"number":1},"pair":[8,[9]]}"#,
        ] {
            let error = read_json::<Outer>(json.as_bytes()).unwrap_err();
            assert!(error.is_data() && error.line() == 1, "{json}: {error}");
            // Both forms of it are there to be read.
            assert!(serde_json::from_str::<Outer>(json).is_ok() || json.starts_with('['), "{json}");
        }
        assert!(read_json::<Qualified<UserId>>(br#"["99db9768-04e3-4b5d-9268-831b6a25c4ab","a.test"]"#).is_err());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for json in ["", "{", r#"{"inner":{"number":1}} x"#, r#"{"inner":{"number":1}}{}"#, "\u{feff}{}"] {
            assert!(read_json::<Outer>(json.as_bytes()).unwrap_err().line() <= 1, "{json}");
        }
        let deep = "[".repeat(100_000);
        assert!(read_json::<Value>(deep.as_bytes()).is_err());
        assert!(read_json::<Outer>(format!(r#"{{"inner":{{"number":1}},"more":{deep}"#).as_bytes()).is_err());
    }
}

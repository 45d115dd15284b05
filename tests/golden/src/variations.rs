//! Samples that are spoilt: every field left out, of another kind, out of range, nested, a few at a time.

use std::hash::{DefaultHasher, Hash, Hasher};

use aldis_api::{label, routes::Table};
use serde_json::{Map, Value, json};

/// Fields and items of a sample that are spoilt.
const MAX_PLACES: usize = 48;

/// One way from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

type Place = Vec<Step>;

/// The sample with one thing spoilt, in every way and at every place; then `pairs` times with two things.
pub fn variations(sample: &Value, pairs: usize) -> Vec<Value> {
    let mut found = Vec::new();
    places(sample, &mut Vec::new(), &mut found);
    let mut all: Vec<Value> = found.iter().flat_map(|place| spoilt(sample, place)).collect();
    let ways = all.len();
    for number in 0..pairs.min(ways) {
        let first = all[pick(&(number, 1), ways)].clone();
        let mut found = Vec::new();
        places(&first, &mut Vec::new(), &mut found);
        let second = spoilt(&first, &found[pick(&(number, 2), found.len())]);
        if !second.is_empty() {
            all.push(second[pick(&(number, 3), second.len())].clone());
        }
    }
    // Two changes may undo each other.
    all.retain(|variation| variation != sample);
    all
}

/// The same at each run, and as good as chosen at random.
fn pick(seed: &impl Hash, below: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    usize::try_from(hasher.finish() % (below.max(1) as u64)).unwrap_or(0)
}

fn places(value: &Value, at: &mut Place, found: &mut Vec<Place>) {
    if found.len() >= MAX_PLACES {
        return;
    }
    found.push(at.clone());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                at.push(Step::Field(name.clone()));
                places(field, at, found);
                at.pop();
            }
        }
        Value::Array(items) => {
            // The others are like the first.
            for (number, item) in items.iter().enumerate().take(1) {
                at.push(Step::Item(number));
                places(item, at, found);
                at.pop();
            }
        }
        _ => {}
    }
}

/// The sample with every other value at a place.
fn spoilt(sample: &Value, place: &[Step]) -> Vec<Value> {
    let mut all = Vec::new();
    let Some(old) = place.iter().try_fold(sample, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Item(number) => value.get(number),
    }) else {
        return all;
    };
    for new in others(old) {
        all.push(replaced(sample, place, Some(new)));
    }
    if !place.is_empty() {
        all.push(replaced(sample, place, None));
    }
    all
}

/// The sample with another value at a place, or nothing there.
fn replaced(sample: &Value, place: &[Step], new: Option<Value>) -> Value {
    let Some((step, rest)) = place.split_first() else { return new.unwrap_or(Value::Null) };
    let mut sample = sample.clone();
    let gone = rest.is_empty() && new.is_none();
    match (&mut sample, step) {
        (Value::Object(fields), Step::Field(name)) => {
            if gone {
                fields.remove(name);
            } else if let Some(field) = fields.get_mut(name) {
                *field = replaced(field, rest, new);
            }
        }
        (Value::Array(items), Step::Item(number)) if *number < items.len() => {
            if gone {
                items.remove(*number);
            } else {
                items[*number] = replaced(&items[*number], rest, new);
            }
        }
        _ => {}
    }
    sample
}

fn others(old: &Value) -> Vec<Value> {
    let mut all = vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("0"),
        json!("\u{0}\u{202e}\u{feff}\u{1f4a5}e\u{301}"),
        json!("ä".repeat(5000)),
        json!("00000000-0000-0000-0000-000000000000"),
        json!([]),
        json!({}),
        json!([old]),
        json!({ "x": old }),
        (0..64).fold(old.clone(), |inner, _| json!([inner])),
    ];
    match old {
        Value::Array(items) => {
            let many = items.first().cloned().unwrap_or(json!("x"));
            all.push(vec![many; 1100].into());
            all.push(items.iter().chain(items).cloned().collect());
        }
        Value::Object(fields) => {
            let mut more = fields.clone();
            more.insert("unknown".to_owned(), json!([{}]));
            all.push(Value::Object(more));
            // A second spelling that formats without names allow.
            all.push(fields.values().cloned().collect());
            let shouted: Map<_, _> = fields.iter().map(|(name, field)| (name.to_uppercase(), field.clone())).collect();
            all.push(Value::Object(shouted));
        }
        Value::String(text) => {
            all.push(json!(format!(" {text}")));
            all.push(json!(text.to_uppercase()));
        }
        Value::Number(number) => {
            all.push(json!(number.to_string()));
            all.push(json!(number.as_i64().map(|number| number.saturating_add(1))));
        }
        _ => {}
    }
    all.retain(|new| new != old);
    all
}

/// Whether the table says of a route that it can answer so.
///
/// # Panics
/// When it does not, or when there is no such route.
pub fn expect_documented(table: &Table, (method, path): (&str, &str), sent: &Value, (status, body): (u16, &Value)) {
    let rows = || table.rows().iter().filter(|row| row.method == method && row.path == path);
    assert!(rows().next().is_some(), "no route {method} {path}");
    let name = body["label"].as_str().unwrap_or_default();
    let general = label::GENERAL.iter().filter(|label| label.status != 500);
    let general = general.chain(&[label::BAD_REQUEST, label::TOO_LARGE, label::INVALID_TOKEN_401]);
    let known = rows().flat_map(|row| &row.errors).chain(general);
    let documented = (200..300).contains(&status)
        || known.into_iter().any(|label| label.status == status && label.label == name)
        || rows().flat_map(|row| &row.deviations).any(|(deviating, _)| *deviating == status);
    assert!(documented, "{method} {path} answers {status} {name:?} to {sent}: {body}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spoilt_everywhere() {
        let sample = json!({ "name": "Ann", "list": [{ "size": 1 }], "more": null });
        let all = variations(&sample, 100);
        for expected in [
            json!({ "list": [{ "size": 1 }], "more": null }),
            json!({ "name": "Ann", "list": [{}], "more": null }),
            json!({ "name": "Ann", "list": [], "more": null }),
            json!({ "name": "Ann", "list": [{ "size": -1 }], "more": null }),
            json!({ "name": ["Ann"], "list": [{ "size": 1 }], "more": null }),
            json!({ "name": "Ann", "list": [[1]], "more": null }),
            json!({ "name": "Ann", "list": [{ "size": 1 }], "more": null, "unknown": [{}] }),
        ] {
            assert!(all.contains(&expected), "{expected} is not tried");
        }
        assert!(!all.contains(&sample), "the sample itself is no variation");
        assert!(all.len() > 150, "{}", all.len());
        assert_eq!(all, variations(&sample, 100), "the same each time");
    }
}

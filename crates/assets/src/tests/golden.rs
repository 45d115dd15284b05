//! Our JSON against samples of the client API's types; see `aldis-golden`.

use aldis_golden::{Golden, Part, read};
use http::Method;
use serde_json::json;

use super::world::{ALPHA, Form, World};
use crate::{
    Config,
    objects::{multipart::Description, token::MAX_TOKEN_BYTES},
};

#[tokio::test]
async fn golden_types_are_read_and_written() {
    let mut golden = Golden::of(Part::Assets);
    golden.check("AssetSettings_user", |sample| {
        let ours: Description = read(sample);
        assert_eq!(
            (json!(ours.public), json!(ours.retention)),
            (sample["public"].clone(), sample["retention"].clone())
        );
    });
    golden.check("AssetToken_user", |sample| assert!(sample.as_str().unwrap().len() <= MAX_TOKEN_BYTES));
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let form = Form { description: json!({ "retention": "expiring" }), ..Form::of("x") };
    let stored = alpha.post(1, form.body()).await.expect(201).json();
    golden.has_shape("Asset_asset", &[("", &stored)]);
    let path = format!("/assets/{}/token", stored["key"].as_str().unwrap());
    let renewed = alpha.call(1, Method::POST, &path).await.expect(200).json();
    golden.has_shape("NewAssetToken_user", &[("", &renewed)]);
    golden.finish();
}

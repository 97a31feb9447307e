//! The envelope of errors.

use serde_json::{Value, json};

use crate::oci::error_code::{ErrorCode, envelope};

#[test]
fn the_envelope_escapes_and_leaves_an_absent_detail_out() {
    let body = |detail: Value| -> Value {
        serde_json::from_slice(&envelope(ErrorCode::NameInvalid, "no \"such\"\n", &detail)).unwrap()
    };
    let error = json!({ "code": "NAME_INVALID", "message": "no \"such\"\n" });
    assert_eq!(body(Value::Null), json!({ "errors": [error] }));
    let detail = json!({ "name": "A" });
    assert_eq!(body(detail.clone())["errors"][0]["detail"], detail);
}

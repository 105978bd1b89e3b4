//! The four kinds of messages of JSON-RPC 1.0, as RFC 7047 4 and Open vSwitch use them.
//!
//! A message is told by its members: `method` with an `id` is a request, with a null or no id a notification; a
//! `result` that is not null is a reply, an `error` that is not null a failed one. A reply whose result and error are both
//! null (to `cancel` or to `monitor_cancel`, say) is a reply too. Other members are refused, as Open vSwitch does.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// One message.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// Wants a reply.
    Request {
        /// What to do.
        method: String,
        /// With what.
        params: Vec<Value>,
        /// Comes back in the reply; not null.
        id: Value,
    },
    /// Wants none.
    Notify {
        /// What to do.
        method: String,
        /// With what.
        params: Vec<Value>,
    },
    /// A request was carried out.
    Reply {
        /// What came of it.
        result: Value,
        /// That of the request.
        id: Value,
    },
    /// A request failed.
    Error {
        /// Why; not null.
        error: Value,
        /// That of the request; null when the request could not be read.
        id: Value,
    },
}

/// Why bytes are not a message.
#[derive(thiserror::Error, Debug)]
pub enum MessageError {
    /// Not JSON.
    #[error("syntax error: malformed JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but no message.
    #[error("{0}")]
    Shape(String),
}

/// The members as they came; a null is as good as an absent one.
#[derive(Default)]
struct Members {
    method: Option<Value>,
    params: Option<Value>,
    result: Option<Value>,
    error: Option<Value>,
    id: Option<Value>,
    other: Option<String>,
    /// `result` or `error` was there, if only as null.
    answers: bool,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON-RPC message, which is an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut m = Members::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let member = match key.as_ref() {
                        "method" => &mut m.method,
                        "params" => &mut m.params,
                        "result" => {
                            m.answers = true;
                            &mut m.result
                        }
                        "error" => {
                            m.answers = true;
                            &mut m.error
                        }
                        "id" => &mut m.id,
                        other => {
                            m.other = Some(other.to_owned());
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = map.next_value()?;
                }
                Ok(m)
            }
        }
        d.deserialize_map(V)
    }
}

impl Message {
    /// Takes a message apart.
    ///
    /// # Errors
    /// [`MessageError`]. The connection is of no more use then: nobody knows what the peer waits for.
    pub fn parse(bytes: &[u8]) -> Result<Message, MessageError> {
        let shape = |text: String| Err(MessageError::Shape(text));
        let m: Members = serde_json::from_slice(bytes)?;
        if let Some(other) = m.other {
            return shape(format!("message has unexpected member \"{other}\""));
        }
        let is_answer = m.result.is_some() || m.error.is_some() || (m.answers && m.method.is_none());
        let kind = match (is_answer, &m.error, &m.id) {
            (true, Some(_), _) => "error",
            (true, None, _) => "reply",
            (false, _, Some(_)) => "request",
            (false, _, None) => "notification",
        };
        let surplus = |what: &str| shape(format!("{kind} must not have \"{what}\""));
        let missing = |what: &str| shape(format!("{kind} must have \"{what}\""));
        if is_answer {
            return match (m.method, m.params, m.result, m.error, m.id) {
                (Some(_), ..) => surplus("method"),
                (_, Some(_), ..) => surplus("params"),
                (_, _, Some(_), Some(_), _) => surplus("result"),
                (_, _, None, Some(error), id) => Ok(Message::Error { error, id: id.unwrap_or_default() }),
                (.., None) => missing("id"),
                (_, _, result, None, Some(id)) => {
                    Ok(Message::Reply { result: result.unwrap_or_default(), id })
                }
            };
        }
        let method = match m.method {
            Some(Value::String(s)) => s,
            Some(_) => return shape("\"method\" must be a string".to_owned()),
            None => return missing("method"),
        };
        let params = match m.params {
            Some(Value::Array(a)) => a,
            Some(_) => return shape("\"params\" must be an array".to_owned()),
            None => return missing("params"),
        };
        Ok(match m.id {
            Some(id) => Message::Request { method, params, id },
            None => Message::Notify { method, params },
        })
    }

    /// Appends the message as JSON text.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_json(out, self);
    }
}

/// Appends a value as JSON text.
pub(super) fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Cannot fail for what is sent here: keys are strings, and a Vec takes everything.
    if let Err(e) = serde_json::to_writer(out, value) {
        tracing::error!(target: "jsonrpc", "a message could not be written: {e}");
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(Some(3))?;
        match self {
            Message::Request { method, params, id } => {
                m.serialize_entry("method", method)?;
                m.serialize_entry("params", params)?;
                m.serialize_entry("id", id)?;
            }
            Message::Notify { method, params } => {
                m.serialize_entry("method", method)?;
                m.serialize_entry("params", params)?;
                // RFC 7047 4: required, and null.
                m.serialize_entry("id", &())?;
            }
            Message::Reply { result, id } => {
                m.serialize_entry("id", id)?;
                m.serialize_entry("result", result)?;
                m.serialize_entry("error", &())?;
            }
            Message::Error { error, id } => {
                m.serialize_entry("id", id)?;
                m.serialize_entry("result", &())?;
                m.serialize_entry("error", error)?;
            }
        }
        m.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(v: Value) -> Message {
        Message::parse(v.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn messages_are_told_apart() {
        let request = Message::Request { method: "echo".into(), params: vec![json!(1)], id: json!("x") };
        assert_eq!(parsed(json!({ "method": "echo", "params": [1], "id": "x" })), request);
        assert_eq!(
            parsed(json!({ "method": "echo", "params": [1], "id": "x", "error": null, "result": null })),
            request
        );
        let notify = Message::Notify { method: "cancel".into(), params: vec![] };
        assert_eq!(parsed(json!({ "method": "cancel", "params": [], "id": null })), notify);
        assert_eq!(parsed(json!({ "method": "cancel", "params": [] })), notify);
        let reply = |result| Message::Reply { result, id: json!(7) };
        assert_eq!(parsed(json!({ "result": [], "error": null, "id": 7 })), reply(json!([])));
        assert_eq!(parsed(json!({ "result": null, "error": null, "id": 7 })), reply(Value::Null));
        let error = |id| Message::Error { error: json!("no"), id };
        assert_eq!(parsed(json!({ "result": null, "error": "no", "id": 7 })), error(json!(7)));
        assert_eq!(parsed(json!({ "error": "no", "id": null })), error(Value::Null));
    }

    #[test]
    fn what_is_written_reads_back() {
        for m in [
            Message::Request {
                method: "a\"b".into(),
                params: vec![json!({ "x": [1, 2.5, null] })],
                id: json!(0),
            },
            Message::Notify { method: "update".into(), params: vec![json!("é\n")] },
            Message::Reply { result: Value::Null, id: json!("id") },
            Message::Error { error: json!({ "error": "e", "details": "d" }), id: json!([1]) },
        ] {
            let mut out = Vec::new();
            m.write(&mut out);
            assert_eq!(Message::parse(&out).unwrap(), m, "{}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn what_is_no_message_says_why() {
        for (text, why) in [
            ("{]", "malformed JSON"),
            ("[]", "is an object"),
            ("{}", "notification must have \"method\""),
            (r#"{"method":1,"params":[],"id":1}"#, "\"method\" must be a string"),
            (r#"{"method":"m","params":{},"id":1}"#, "\"params\" must be an array"),
            (r#"{"method":"m","id":1}"#, "request must have \"params\""),
            (r#"{"params":[],"id":1}"#, "request must have \"method\""),
            (r#"{"result":1}"#, "reply must have \"id\""),
            (r#"{"result":1,"error":1,"id":1}"#, "error must not have \"result\""),
            (r#"{"result":1,"method":"x","id":1}"#, "reply must not have \"method\""),
            (r#"{"error":1,"params":[],"id":1}"#, "error must not have \"params\""),
            (
                r#"{"method":"m","params":[],"id":1,"jsonrpc":"2.0"}"#,
                "message has unexpected member \"jsonrpc\"",
            ),
        ] {
            let e = Message::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
    }
}

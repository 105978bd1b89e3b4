//! The error object of RFC 7047 3.1, with the members that Open vSwitch adds.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::json;

/// What went wrong, in the form that clients receive.
///
/// `tag` is one of the strings of RFC 7047 (or of Open vSwitch's additions, such as `permission error`); programs may
/// compare it. `details` is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Member `error`.
    pub tag: Cow<'static, str>,
    /// Member `details`; left out of the object if empty.
    pub details: String,
    /// Member `syntax`: the JSON that is wrong, as text. An extension of Open vSwitch.
    pub syntax: Option<String>,
    /// Member `io-error`: the operating system's text of an I/O error. An extension of Open vSwitch.
    pub io_error: Option<String>,
}

impl Error {
    /// An error with a tag and details.
    pub fn new(tag: impl Into<Cow<'static, str>>, details: impl Into<String>) -> Self {
        Self { tag: tag.into(), details: details.into(), syntax: None, io_error: None }
    }

    /// `syntax error`: JSON of the wrong shape. The offending text travels in `syntax`.
    pub fn syntax(json: &Value, details: impl Into<String>) -> Self {
        Self::new("syntax error", details).with_syntax(json)
    }

    /// `constraint violation`: a value that the schema forbids.
    pub fn constraint(details: impl Into<String>) -> Self {
        Self::new("constraint violation", details)
    }

    /// `referential integrity violation`: a strong reference to a row that is not there.
    pub fn referential(details: impl Into<String>) -> Self {
        Self::new("referential integrity violation", details)
    }

    /// `permission error`: forbidden to this client's role.
    pub fn permission(details: impl Into<String>) -> Self {
        Self::new("permission error", details)
    }

    /// `I/O error`: the transaction could not be written.
    pub fn io(error: &std::io::Error, details: impl Into<String>) -> Self {
        let mut e = Self::new("I/O error", details);
        e.io_error = Some(match error.raw_os_error() {
            // The text of the C library, without Rust's " (os error N)".
            Some(_) => {
                let text = error.to_string();
                text.split(" (os error").next().unwrap_or_default().to_string()
            }
            None => error.to_string(),
        });
        e
    }

    /// An error without a tag of its own, as Open vSwitch names it.
    pub(crate) fn other(details: impl Into<String>) -> Self {
        Self::new("ovsdb error", details)
    }

    /// The same error, with the offending JSON.
    pub fn with_syntax(mut self, json: &Value) -> Self {
        self.syntax = Some(json::canonical(json));
        self
    }

    /// The same error, with `context: ` before its details.
    pub fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.details = if self.details.is_empty() {
            context.to_string()
        } else {
            format!("{context}: {}", self.details)
        };
        self
    }

    /// The `<error>` object.
    pub fn to_json(&self) -> Value {
        let mut o = Map::new();
        o.insert("error".into(), Value::String(self.tag.clone().into_owned()));
        if !self.details.is_empty() {
            o.insert("details".into(), Value::String(self.details.clone()));
        }
        if let Some(s) = &self.syntax {
            o.insert("syntax".into(), Value::String(s.clone()));
        }
        if let Some(s) = &self.io_error {
            o.insert("io-error".into(), Value::String(s.clone()));
        }
        Value::Object(o)
    }

    /// Reads an `<error>` object that a server sent; `None` if it is none.
    pub fn from_json(json: &Value) -> Option<Self> {
        let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_string);
        Some(Self {
            tag: text("error")?.into(),
            details: text("details").unwrap_or_default(),
            syntax: text("syntax"),
            io_error: text("io-error"),
        })
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(s) = &self.syntax {
            write!(f, "syntax \"{s}\": ")?;
        }
        f.write_str(&self.tag)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        if let Some(s) = &self.io_error {
            write!(f, " ({s})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn error_object_round_trips_and_leaves_out_what_it_has_not() {
        let e = Error::syntax(&json!({"b": 1, "a": 2.0}), "expected string");
        let j = e.to_json();
        assert_eq!(
            j,
            json!({"error": "syntax error", "details": "expected string", "syntax": "{\"a\":2,\"b\":1}"})
        );
        assert_eq!(Error::from_json(&j), Some(e.clone()));
        assert_eq!(e.to_string(), "syntax \"{\"a\":2,\"b\":1}\": syntax error: expected string");
        assert_eq!(Error::new("aborted", "").to_json(), json!({"error": "aborted"}));
        assert_eq!(Error::from_json(&json!({"details": "no tag"})), None);
    }

    #[test]
    fn io_error_carries_the_system_text() {
        let e = Error::io(&std::io::Error::from_raw_os_error(28), "cannot write");
        assert_eq!(
            e.to_json(),
            json!({"error": "I/O error", "details": "cannot write", "io-error": "No space left on device"})
        );
    }
}

//! Reading JSON the way OVSDB does: numbers that are whole are integers, objects may hold only what is asked for.

use std::fmt::Display;

use serde_json::{Map, Number, Value};
use smallvec::SmallVec;

use crate::Error;

/// A JSON number as OVSDB sees it: `1`, `1.0` and `10e-1` are the same integer (RFC 7047 takes no notice of the
/// notation, Open vSwitch's parser makes it so).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Num {
    /// Whole and within 64 bits.
    Integer(i64),
    /// All others; never negative zero.
    Real(f64),
}

/// 2^63: the first `f64` above every `i64`.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// Classifies a JSON number.
pub fn number(n: &Number) -> Num {
    if let Some(i) = n.as_i64() {
        return Num::Integer(i);
    }
    let f = n.as_f64().unwrap_or(f64::MAX);
    if f.fract() == 0.0 && (-TWO_63..TWO_63).contains(&f) { Num::Integer(f as i64) } else { Num::Real(f) }
}

/// The integer in `json`, if that is what it is.
pub fn integer(json: &Value) -> Option<i64> {
    match json {
        Value::Number(n) => match number(n) {
            Num::Integer(i) => Some(i),
            Num::Real(_) => None,
        },
        _ => None,
    }
}

/// The number in `json` as a real.
pub fn real(json: &Value) -> Option<f64> {
    match json {
        Value::Number(n) => Some(match number(n) {
            Num::Integer(i) => i as f64,
            Num::Real(f) => f,
        }),
        _ => None,
    }
}

/// JSON of a real: whole values are written without a fraction, as Open vSwitch writes them.
pub fn from_real(f: f64) -> Value {
    // Beyond 2^53 the integer's digits would claim a precision that is not there.
    if f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0 {
        return Value::from(f as i64);
    }
    Number::from_f64(f).map_or(Value::Null, Value::Number)
}

/// Compact text with sorted members and whole numbers without a fraction: equal JSON has equal text.
pub fn canonical(json: &Value) -> String {
    fn put(v: &Value, out: &mut String) {
        match v {
            Value::Number(n) => match number(n) {
                Num::Integer(i) => out.push_str(&i.to_string()),
                Num::Real(f) => out.push_str(&format_g(f)),
            },
            Value::Array(a) => {
                out.push('[');
                for (i, e) in a.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    put(e, out);
                }
                out.push(']');
            }
            Value::Object(o) => {
                out.push('{');
                let mut all: Vec<_> = o.iter().collect();
                all.sort_by_key(|(k, _)| *k);
                for (i, (k, e)) in all.into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(&quoted(k));
                    out.push(':');
                    put(e, out);
                }
                out.push('}');
            }
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    put(json, &mut out);
    out
}

/// A string as a JSON string literal.
pub fn quoted(s: &str) -> String {
    Value::from(s).to_string()
}

/// Appends a string as a JSON string literal.
pub(crate) fn push_quoted(out: &mut String, s: &str) {
    if s.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        out.push_str(&quoted(s));
    } else {
        out.push('"');
        out.push_str(s);
        out.push('"');
    }
}

/// `printf("%.15g")`: 15 significant digits, exponent only where it is needed. Open vSwitch prints reals so.
pub fn format_g(f: f64) -> String {
    const DIGITS: i32 = 15;
    if f == 0.0 {
        return "0".into();
    }
    let sci = format!("{f:.14e}");
    let Some((mantissa, exponent)) = sci.split_once('e') else { return sci };
    let Ok(exponent) = exponent.parse::<i32>() else { return sci };
    let trim = |s: &str| {
        if s.contains('.') {
            s.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            s.to_string()
        }
    };
    if (-4..DIGITS).contains(&exponent) {
        trim(&format!("{f:.*}", (DIGITS - 1 - exponent).max(0) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    }
}

/// True for an `<id>` of RFC 7047 3.1: a letter or underscore, then letters, digits and underscores.
pub fn is_id(s: &str) -> bool {
    let mut b = s.bytes();
    b.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        && b.all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// The members of an object, taken one by one; [`Members::finish`] complains about what nobody asked for.
///
/// The first error is kept and later calls return nothing, so that a caller can take all members and ask once.
pub struct Members<'a, N: Display> {
    json: &'a Value,
    map: Option<&'a Map<String, Value>>,
    name: N,
    used: SmallVec<[&'static str; 8]>,
    error: Option<Error>,
}

impl<'a, N: Display> Members<'a, N> {
    /// Starts on `json`; `name` is what error texts call it.
    pub fn new(json: &'a Value, name: N) -> Self {
        let mut m = Self { json, map: json.as_object(), name, used: SmallVec::new(), error: None };
        if m.map.is_none() {
            m.fail("Object expected.");
        }
        m
    }

    /// The object itself.
    pub fn json(&self) -> &'a Value {
        self.json
    }

    /// Notes an error about the object as a whole, unless there is one already.
    pub fn fail(&mut self, message: impl Display) {
        if self.error.is_none() {
            let what = format!("Parsing {} failed: {message}", self.name);
            let mut e = Error::new("syntax error", what);
            // Like the original, text that is no object at all is not repeated.
            if self.map.is_some() {
                e = e.with_syntax(self.json);
            }
            self.error = Some(e);
        }
    }

    /// The first error so far.
    pub fn check(&self) -> Result<(), Error> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// A member that may be missing; `pick` returns `None` for a wrong type.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.map?.get(name)?;
        let picked = pick(value);
        if picked.is_some() {
            if !self.used.contains(&name) {
                self.used.push(name);
            }
        } else {
            self.fail(format_args!("Type mismatch for member '{name}'."));
        }
        picked
    }

    /// A member that must be there.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        if self.map?.contains_key(name) {
            self.optional(name, pick)
        } else {
            self.fail(format_args!("Required '{name}' member is missing."));
            None
        }
    }

    /// Ends: the first error, or a complaint about members that were not asked for.
    pub fn finish(mut self) -> Result<(), Error> {
        if self.error.is_none()
            && let Some(map) = self.map
            && map.len() > self.used.len()
        {
            let mut extra = map.keys().filter(|k| !self.used.contains(&k.as_str()));
            let first = extra.next().cloned().unwrap_or_default();
            let more = extra.count();
            match more {
                0 => self.fail(format_args!("Member '{first}' is present but not allowed here.")),
                _ => self.fail(format_args!(
                    "Member '{first}' and {more} other member{} are present but not allowed here.",
                    if more > 1 { "s" } else { "" }
                )),
            }
        }
        self.error.map_or(Ok(()), Err)
    }
}

/// Pickers for [`Members`].
pub mod pick {
    use serde_json::{Map, Value};

    /// A string.
    pub fn string(v: &Value) -> Option<&str> {
        v.as_str()
    }
    /// An `<id>`.
    pub fn id(v: &Value) -> Option<&str> {
        v.as_str().filter(|s| super::is_id(s))
    }
    /// A boolean.
    pub fn boolean(v: &Value) -> Option<bool> {
        v.as_bool()
    }
    /// A whole number.
    pub fn integer(v: &Value) -> Option<i64> {
        super::integer(v)
    }
    /// Any number.
    pub fn number(v: &Value) -> Option<f64> {
        super::real(v)
    }
    /// An array.
    pub fn array(v: &Value) -> Option<&Vec<Value>> {
        v.as_array()
    }
    /// An object.
    pub fn object(v: &Value) -> Option<&Map<String, Value>> {
        v.as_object()
    }
    /// An array, as the value that it is.
    pub fn array_value(v: &Value) -> Option<&Value> {
        v.is_array().then_some(v)
    }
    /// An object, as the value that it is.
    pub fn object_value(v: &Value) -> Option<&Value> {
        v.is_object().then_some(v)
    }
    /// A string or an object.
    pub fn string_or_object(v: &Value) -> Option<&Value> {
        (v.is_string() || v.is_object()).then_some(v)
    }
    /// Whatever is there.
    pub fn any(v: &Value) -> Option<&Value> {
        Some(v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn num(text: &str) -> Num {
        match serde_json::from_str(text).unwrap() {
            Value::Number(n) => number(&n),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn whole_numbers_are_integers_whatever_their_notation() {
        assert_eq!(num("1"), Num::Integer(1));
        assert_eq!(num("1.0"), Num::Integer(1));
        assert_eq!(num("-1e3"), Num::Integer(-1000));
        assert_eq!(num("-0.0"), Num::Integer(0));
        assert_eq!(num("9223372036854775807"), Num::Integer(i64::MAX));
        assert_eq!(num("-9223372036854775808"), Num::Integer(i64::MIN));
        assert_eq!(num("9223372036854775808"), Num::Real(TWO_63));
        assert_eq!(num("1e300"), Num::Real(1e300));
        assert_eq!(num("0.5"), Num::Real(0.5));
    }

    #[test]
    fn reals_print_as_printf_g_with_15_digits() {
        for (f, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (123456789012345680.0, "1.23456789012346e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.0 / 3.0, "0.333333333333333"),
            (f64::MAX, "1.79769313486232e+308"),
        ] {
            assert_eq!(format_g(f), text);
        }
    }

    #[test]
    fn leftover_members_are_counted() {
        let j = json!({"a": 1, "b": 2, "c": 3, "d": 4});
        let mut m = Members::new(&j, "thing");
        assert_eq!(m.required("a", pick::integer), Some(1));
        let e = m.finish().unwrap_err();
        assert_eq!(
            e.details,
            "Parsing thing failed: Member 'b' and 2 other members are present but not allowed here."
        );
        let mut m = Members::new(&j, "thing");
        m.required("a", pick::string);
        m.required("z", pick::string);
        assert_eq!(m.finish().unwrap_err().details, "Parsing thing failed: Type mismatch for member 'a'.");
        let e = Members::new(&json!([1]), "thing").finish().unwrap_err();
        assert_eq!((e.details.as_str(), e.syntax), ("Parsing thing failed: Object expected.", None));
    }

    #[test]
    fn ids_are_letters_digits_and_underscores() {
        assert!(is_id("_a9") && is_id("x"));
        assert!(!is_id("") && !is_id("0") && !is_id("a-b") && !is_id("é"));
    }
}

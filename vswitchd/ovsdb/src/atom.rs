//! Atoms: the five kinds of scalar (RFC 7047 5.1), from and to JSON and text.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use crate::datum::Symbols;
use crate::json::{self, Num};
use crate::types::{BaseType, Constraint};
use crate::{Error, Uuid};

/// `<atomic-type>` of RFC 7047 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtomType {
    /// 64 bits, signed.
    Integer,
    /// A finite double.
    Real,
    /// true or false.
    Boolean,
    /// UTF-8 without NUL.
    String,
    /// 128 bits; usually names a row.
    Uuid,
}

impl AtomType {
    /// The name in schemas.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Uuid => "uuid",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "integer" => Self::Integer,
            "real" => Self::Real,
            "boolean" => Self::Boolean,
            "string" => Self::String,
            "uuid" => Self::Uuid,
            _ => return None,
        })
    }

    /// Reads an `<atomic-type>`.
    ///
    /// # Errors
    /// `syntax error` if it is not one of the five names.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        match json.as_str() {
            Some(s) => Self::from_name(s)
                .ok_or_else(|| Error::syntax(json, format!("\"{s}\" is not an atomic-type"))),
            None => Err(Error::syntax(json, "atomic-type expected")),
        }
    }
}

/// A scalar value.
///
/// Ordered like Open vSwitch's atoms, which decides the order of sets and maps in JSON. Reals are finite and never
/// negative zero, so equality is an equivalence and agrees with the hash.
#[derive(Debug, Clone)]
pub enum Atom {
    /// An integer.
    Integer(i64),
    /// A real.
    Real(f64),
    /// A boolean.
    Boolean(bool),
    /// A string; shared, since rows share their parts.
    String(Arc<str>),
    /// A UUID.
    Uuid(Uuid),
}

impl Atom {
    /// The default value of a type (RFC 7047 5.2.1).
    pub fn default_of(t: AtomType) -> Self {
        match t {
            AtomType::Integer => Self::Integer(0),
            AtomType::Real => Self::Real(0.0),
            AtomType::Boolean => Self::Boolean(false),
            AtomType::String => Self::String(Arc::from("")),
            AtomType::Uuid => Self::Uuid(Uuid::ZERO),
        }
    }

    /// Which type it is of.
    pub fn kind(&self) -> AtomType {
        match self {
            Self::Integer(_) => AtomType::Integer,
            Self::Real(_) => AtomType::Real,
            Self::Boolean(_) => AtomType::Boolean,
            Self::String(_) => AtomType::String,
            Self::Uuid(_) => AtomType::Uuid,
        }
    }

    /// True for the default value of its type.
    pub fn is_default(&self) -> bool {
        match self {
            Self::Integer(i) => *i == 0,
            Self::Real(r) => *r == 0.0,
            Self::Boolean(b) => !b,
            Self::String(s) => s.is_empty(),
            Self::Uuid(u) => u.is_zero(),
        }
    }

    /// A string atom.
    pub fn string(s: &str) -> Self {
        Self::String(Arc::from(s))
    }

    /// A real atom; negative zero becomes zero.
    pub fn real(r: f64) -> Self {
        Self::Real(if r == 0.0 { 0.0 } else { r })
    }

    /// The string inside.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    /// The integer inside.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(i) => Some(*i),
            _ => None,
        }
    }

    /// The boolean inside.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(b) => Some(*b),
            _ => None,
        }
    }

    /// The UUID inside.
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Self::Uuid(u) => Some(*u),
            _ => None,
        }
    }

    /// Reads an `<atom>` of a base type and checks its constraints.
    ///
    /// `symbols` resolves `["named-uuid", ...]`; without it that form is refused.
    ///
    /// # Errors
    /// `syntax error` for the wrong shape, `constraint violation` for a value that the type forbids.
    pub fn from_json(json: &Value, base: &BaseType, symbols: Option<&mut Symbols>) -> Result<Self, Error> {
        let atom = Self::parse(json, base.kind, symbols)?;
        base.check(&atom)?;
        Ok(atom)
    }

    fn parse(json: &Value, kind: AtomType, symbols: Option<&mut Symbols>) -> Result<Self, Error> {
        let parsed = match (kind, json) {
            (AtomType::Integer, Value::Number(n)) => match json::number(n) {
                Num::Integer(i) => Some(Self::Integer(i)),
                Num::Real(_) => None,
            },
            (AtomType::Real, Value::Number(_)) => json::real(json).map(Self::real),
            (AtomType::Boolean, Value::Bool(b)) => Some(Self::Boolean(*b)),
            (AtomType::String, Value::String(s)) => {
                if s.contains('\0') {
                    // C clients could not read it back.
                    return Err(Error::syntax(json, "null bytes not supported in strings"));
                }
                Some(Self::string(s))
            }
            (AtomType::Uuid, _) => return Self::parse_uuid(json, symbols),
            _ => None,
        };
        parsed.ok_or_else(|| Error::syntax(json, format!("expected {}", kind.name())))
    }

    fn parse_uuid(json: &Value, symbols: Option<&mut Symbols>) -> Result<Self, Error> {
        if let Some([Value::String(tag), Value::String(text)]) = json.as_array().map(Vec::as_slice) {
            if tag == "uuid" {
                return text
                    .parse()
                    .map(Self::Uuid)
                    .map_err(|_| Error::syntax(json, format!("\"{text}\" is not a valid UUID")));
            }
            if tag == "named-uuid"
                && let Some(symbols) = symbols
            {
                if !json::is_id(text) {
                    return Err(Error::syntax(json, "named-uuid string is not a valid <id>"));
                }
                return Ok(Self::Uuid(symbols.refer(text)));
            }
        }
        Err(Error::syntax(json, "expected [\"uuid\", <string>]"))
    }

    /// The `<atom>` as JSON.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Integer(i) => Value::from(*i),
            Self::Real(r) => json::from_real(*r),
            Self::Boolean(b) => Value::Bool(*b),
            Self::String(s) => Value::from(&**s),
            Self::Uuid(u) => Value::Array(vec![Value::from("uuid"), Value::String(u.to_text())]),
        }
    }

    /// Appends the `<atom>` as JSON text: what [`Atom::to_json`] would print, without the detour.
    pub fn push_json(&self, out: &mut String) {
        match self {
            Self::Integer(i) => {
                let _ = write!(out, "{i}");
            }
            Self::Real(r) => {
                let _ = write!(out, "{}", json::from_real(*r));
            }
            Self::Boolean(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::String(s) => json::push_quoted(out, s),
            Self::Uuid(u) => {
                out.push_str("[\"uuid\",\"");
                u.push_to(out);
                out.push_str("\"]");
            }
        }
    }

    /// Appends the form in which error texts and the command-line tools show values: strings are quoted only where
    /// they could be taken for something else.
    pub fn push_text(&self, out: &mut String) {
        match self {
            Self::Integer(i) => {
                let _ = write!(out, "{i}");
            }
            Self::Real(r) => out.push_str(&json::format_g(*r)),
            Self::Boolean(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::String(s) if needs_quotes(s) => out.push_str(&json::quoted(s)),
            Self::String(s) => out.push_str(s),
            Self::Uuid(u) => u.push_to(out),
        }
    }

    /// [`Atom::push_text`] as a string.
    pub fn to_text(&self) -> String {
        let mut s = String::new();
        self.push_text(&mut s);
        s
    }
}

fn needs_quotes(s: &str) -> bool {
    let mut b = s.bytes();
    let plain = b.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        && b.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'));
    !plain || s == "true" || s == "false" || s.parse::<Uuid>().is_ok()
}

impl BaseType {
    /// Checks an atom of this type's kind against enum, range and length.
    ///
    /// # Errors
    /// `constraint violation`.
    pub fn check(&self, atom: &Atom) -> Result<(), Error> {
        if let Some(allowed) = &self.allowed {
            if allowed.has_key(atom) {
                return Ok(());
            }
            return Err(Error::constraint(format!(
                "{} is not one of the allowed values ({})",
                atom.to_text(),
                allowed.to_text(&crate::ColumnType::enumeration(self.kind))
            )));
        }
        match (&self.constraint, atom) {
            (Constraint::Integer { min, max }, Atom::Integer(i)) => {
                check_range(i, min, max, (&i64::MIN, &i64::MAX), |v| v.to_string())
            }
            (Constraint::Real { min, max }, Atom::Real(r)) => {
                check_range(r, min, max, (&-f64::MAX, &f64::MAX), |v| json::format_g(*v))
            }
            (Constraint::Length { min, max }, Atom::String(s)) => {
                if *min == 0 && (s.len() as u64) <= u64::from(*max) {
                    return Ok(());
                }
                let n = s.chars().count() as u64;
                let (word, limit) = match () {
                    () if n < u64::from(*min) => ("less than minimum", min),
                    () if n > u64::from(*max) => ("greater than maximum", max),
                    () => return Ok(()),
                };
                Err(Error::constraint(format!("\"{s}\" length {n} is {word} allowed length {limit}")))
            }
            _ => Ok(()),
        }
    }
}

fn check_range<T: PartialOrd>(
    v: &T,
    min: &T,
    max: &T,
    (lowest, highest): (&T, &T),
    text: impl Fn(&T) -> String,
) -> Result<(), Error> {
    if v >= min && v <= max {
        return Ok(());
    }
    let v = text(v);
    Err(Error::constraint(match (min != lowest, max != highest) {
        (true, true) => format!("{v} is not in the valid range {} to {} (inclusive)", text(min), text(max)),
        (true, false) => format!("{v} is less than minimum allowed value {}", text(min)),
        (false, _) => format!("{v} is greater than maximum allowed value {}", text(max)),
    }))
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Uuid(a), Self::Uuid(b)) => a == b,
            (Self::String(a), Self::String(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => self.cmp(other) == Ordering::Equal,
        }
    }
}

impl Eq for Atom {}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Real(a), Self::Real(b)) => a.total_cmp(b),
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            // Different types never meet in one column; the order only has to be one.
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl Atom {
    fn rank(&self) -> u8 {
        match self {
            Self::Integer(_) => 0,
            Self::Real(_) => 1,
            Self::Boolean(_) => 2,
            Self::String(_) => 3,
            Self::Uuid(_) => 4,
        }
    }
}

impl Hash for Atom {
    fn hash<H: Hasher>(&self, h: &mut H) {
        match self {
            Self::Integer(i) => i.hash(h),
            Self::Real(r) => r.to_bits().hash(h),
            Self::Boolean(b) => b.hash(h),
            Self::String(s) => s.hash(h),
            Self::Uuid(u) => u.hash(h),
        }
    }
}

impl From<i64> for Atom {
    fn from(i: i64) -> Self {
        Self::Integer(i)
    }
}

impl From<bool> for Atom {
    fn from(b: bool) -> Self {
        Self::Boolean(b)
    }
}

impl From<&str> for Atom {
    fn from(s: &str) -> Self {
        Self::string(s)
    }
}

impl From<Uuid> for Atom {
    fn from(u: Uuid) -> Self {
        Self::Uuid(u)
    }
}

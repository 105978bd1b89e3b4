//! Types of columns: `<base-type>` and `<type>` of RFC 7047 3.2.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::datum::Bounds;
use crate::json::{self, Members, pick};
use crate::{Atom, AtomType, Datum, Error};

/// The `n_max` of a set or map without a limit.
pub const UNLIMITED: u32 = u32::MAX;

/// Whether a reference keeps its row alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// The row must exist, and lives at least as long as the reference.
    Strong,
    /// The reference disappears with the row.
    Weak,
}

/// What a base type demands beyond its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Nothing more.
    None,
    /// Inclusive bounds; the extremes of `i64` mean unbounded.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// Inclusive bounds; the finite extremes of `f64` mean unbounded.
    Real {
        /// Least value.
        min: f64,
        /// Greatest value.
        max: f64,
    },
    /// Inclusive bounds on the number of characters.
    Length {
        /// Least length.
        min: u32,
        /// Greatest length; [`UNLIMITED`] for no limit.
        max: u32,
    },
    /// The UUID is that of a row.
    Ref {
        /// Name of the table.
        table: Arc<str>,
        /// Position of the table in its [`Schema`](crate::Schema); set once the schema is whole.
        index: usize,
        /// Strong or weak.
        kind: RefKind,
    },
}

/// `<base-type>`: the type of a key or value.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseType {
    /// Which kind of atom.
    pub kind: AtomType,
    /// The only values allowed (`enum`), as a set.
    pub allowed: Option<Arc<Datum>>,
    /// Range, length or reference.
    pub constraint: Constraint,
}

impl From<AtomType> for BaseType {
    fn from(kind: AtomType) -> Self {
        Self { kind, allowed: None, constraint: Constraint::None }
    }
}

impl BaseType {
    /// The table referred to and how, if this is a reference.
    pub fn reference(&self) -> Option<(usize, RefKind)> {
        match &self.constraint {
            Constraint::Ref { index, kind, .. } => Some((*index, *kind)),
            _ => None,
        }
    }

    /// The name of the table referred to.
    pub fn ref_table(&self) -> Option<&str> {
        match &self.constraint {
            Constraint::Ref { table, .. } => Some(table),
            _ => None,
        }
    }

    /// The same kind without enum, range, length or reference.
    pub fn unconstrained(&self) -> Self {
        self.kind.into()
    }

    fn has_constraints(&self) -> bool {
        self.allowed.is_some()
            || match self.constraint {
                Constraint::None => false,
                Constraint::Integer { min, max } => min != i64::MIN || max != i64::MAX,
                Constraint::Real { min, max } => min != -f64::MAX || max != f64::MAX,
                Constraint::Length { min, max } => min != 0 || max != UNLIMITED,
                Constraint::Ref { .. } => true,
            }
    }

    /// Reads a `<base-type>`. References are unresolved until the schema is whole.
    ///
    /// # Errors
    /// `syntax error`, or what a bad `enum` value causes.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        if json.is_string() {
            return AtomType::from_json(json).map(Self::from);
        }
        let mut m = Members::new(json, "ovsdb type");
        let kind = m.required("type", |v| v.is_string().then_some(v));
        m.check()?;
        let kind = AtomType::from_json(kind.unwrap_or(&Value::Null))?;
        let mut base = Self::from(kind);
        if let Some(e) = m.optional("enum", pick::any) {
            let any = Self::from(kind);
            base.allowed = Some(Arc::new(Datum::parse(e, &any, None, Bounds::enumeration(), None)?));
        } else {
            base.constraint = Self::constraint_from_json(json, kind, &mut m)?;
        }
        m.finish()?;
        Ok(base)
    }

    fn constraint_from_json<'a>(
        json: &'a Value,
        kind: AtomType,
        m: &mut Members<'a, &'static str>,
    ) -> Result<Constraint, Error> {
        let refuse = |ok: bool, text: &str| if ok { Ok(()) } else { Err(Error::syntax(json, text)) };
        Ok(match kind {
            AtomType::Integer => {
                let min = m.optional("minInteger", pick::integer).unwrap_or(i64::MIN);
                let max = m.optional("maxInteger", pick::integer).unwrap_or(i64::MAX);
                refuse(min <= max, "minInteger exceeds maxInteger")?;
                Constraint::Integer { min, max }
            }
            AtomType::Real => {
                let min = m.optional("minReal", pick::number).unwrap_or(-f64::MAX);
                let max = m.optional("maxReal", pick::number).unwrap_or(f64::MAX);
                refuse(min <= max, "minReal exceeds maxReal")?;
                Constraint::Real { min, max }
            }
            AtomType::Boolean => Constraint::None,
            AtomType::String => {
                let mut length = |name, default| match m.optional(name, |v| json::integer(v).map(|i| (i, v)))
                {
                    Some((i, v)) => u32::try_from(i).map_err(|_| {
                        Error::syntax(v, format!("{name} out of valid range 0 to {}", u32::MAX))
                    }),
                    None => Ok(default),
                };
                let min = length("minLength", 0)?;
                let max = length("maxLength", UNLIMITED)?;
                refuse(min <= max, "minLength exceeds maxLength")?;
                Constraint::Length { min, max }
            }
            AtomType::Uuid => {
                let Some(table) = m.optional("refTable", pick::id) else { return Ok(Constraint::None) };
                let kind = match m.optional("refType", pick::id) {
                    None | Some("strong") => RefKind::Strong,
                    Some("weak") => RefKind::Weak,
                    Some(other) => {
                        let text = format!("refType must be \"strong\" or \"weak\" (not \"{other}\")");
                        return Err(Error::syntax(json, text));
                    }
                };
                Constraint::Ref { table: table.into(), index: usize::MAX, kind }
            }
        })
    }

    /// The `<base-type>` as JSON, in its shortest form.
    pub fn to_json(&self) -> Value {
        if !self.has_constraints() {
            return self.kind.name().into();
        }
        let mut o = Map::new();
        let mut put = |name: &str, v: Value| {
            o.insert(name.into(), v);
        };
        put("type", self.kind.name().into());
        if let Some(allowed) = &self.allowed {
            put("enum", allowed.to_json(&ColumnType::enumeration(self.kind)));
        }
        match &self.constraint {
            Constraint::None => {}
            Constraint::Integer { min, max } => {
                if *min != i64::MIN {
                    put("minInteger", (*min).into());
                }
                if *max != i64::MAX {
                    put("maxInteger", (*max).into());
                }
            }
            Constraint::Real { min, max } => {
                if *min != -f64::MAX {
                    put("minReal", json::from_real(*min));
                }
                if *max != f64::MAX {
                    put("maxReal", json::from_real(*max));
                }
            }
            Constraint::Length { min, max } => {
                if *min != 0 {
                    put("minLength", (*min).into());
                }
                if *max != UNLIMITED {
                    put("maxLength", (*max).into());
                }
            }
            Constraint::Ref { table, kind, .. } => {
                put("refTable", (&**table).into());
                if *kind == RefKind::Weak {
                    put("refType", "weak".into());
                }
            }
        }
        Value::Object(o)
    }
}

/// `<type>`: what a column holds.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnType {
    /// Type of the elements, or of a map's keys.
    pub key: BaseType,
    /// Type of a map's values; `None` for sets and scalars.
    pub value: Option<BaseType>,
    /// Least number of elements, 0 or 1.
    pub min: u32,
    /// Greatest number of elements; [`UNLIMITED`] for no limit.
    pub max: u32,
}

impl From<AtomType> for ColumnType {
    fn from(kind: AtomType) -> Self {
        Self { key: kind.into(), value: None, min: 1, max: 1 }
    }
}

impl ColumnType {
    /// The type of the set of allowed values of an `enum`.
    pub(crate) fn enumeration(kind: AtomType) -> Self {
        Self { key: kind.into(), value: None, min: 1, max: UNLIMITED }
    }

    /// Exactly one atom.
    pub fn is_scalar(&self) -> bool {
        self.value.is_none() && self.min == 1 && self.max == 1
    }

    /// None or one atom.
    pub fn is_optional_scalar(&self) -> bool {
        self.value.is_none() && self.min == 0 && self.max == 1
    }

    /// A set that is not a scalar.
    pub fn is_set(&self) -> bool {
        self.value.is_none() && !(self.min == 1 && self.max == 1)
    }

    /// A map.
    pub fn is_map(&self) -> bool {
        self.value.is_some()
    }

    /// May hold more than one element: such columns are sent and logged as differences.
    pub fn is_composite(&self) -> bool {
        self.max > 1
    }

    /// True if a set or map of `n` elements is allowed.
    pub fn allows_size(&self, n: usize) -> bool {
        n >= self.min as usize && n <= self.max as usize
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { min: self.min, max: self.max }
    }

    /// The default value (RFC 7047 5.2.1): empty if that is allowed, else one default atom or pair.
    pub fn default_value(&self) -> Datum {
        if self.min == 0 {
            return Datum::Empty;
        }
        let key = Atom::default_of(self.key.kind);
        match &self.value {
            None => Datum::One(key),
            Some(v) => Datum::from_pairs(vec![(key, Atom::default_of(v.kind))]),
        }
    }

    /// Reads a `<type>`.
    ///
    /// # Errors
    /// `syntax error`.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        if json.is_string() {
            return Ok(Self { key: BaseType::from_json(json)?, value: None, min: 1, max: 1 });
        }
        if !json.is_object() {
            return Err(Error::syntax(json, "ovsdb type expected"));
        }
        let mut m = Members::new(json, "ovsdb type");
        let key = m.required("key", pick::string_or_object);
        let value = m.optional("value", pick::string_or_object);
        let min = m.optional("min", |v| json::integer(v).map(|i| (i, v)));
        let max = m.optional("max", |v| (v.is_string() || json::integer(v).is_some()).then_some(v));
        m.finish()?;
        let key = BaseType::from_json(key.unwrap_or(&Value::Null))?;
        let value = value.map(BaseType::from_json).transpose()?;
        let limit = |i: Option<i64>, v: &Value| {
            i.and_then(|i| u32::try_from(i).ok())
                .filter(|n| *n != UNLIMITED)
                .ok_or_else(|| Error::syntax(v, "bad min or max value"))
        };
        let min = min.map_or(Ok(1), |(i, v)| limit(Some(i), v))?;
        let max = match max {
            None => 1,
            Some(v) if v.as_str() == Some("unlimited") => UNLIMITED,
            Some(v) => limit(json::integer(v), v)?,
        };
        if min > 1 || max < 1 {
            return Err(Error::syntax(json, "ovsdb type fails constraint checks"));
        }
        Ok(Self { key, value, min, max })
    }

    /// The `<type>` as JSON, in its shortest form.
    pub fn to_json(&self) -> Value {
        if self.is_scalar() && !self.key.has_constraints() {
            return self.key.to_json();
        }
        let mut o = Map::new();
        o.insert("key".into(), self.key.to_json());
        if let Some(v) = &self.value {
            o.insert("value".into(), v.to_json());
        }
        if self.min != 1 {
            o.insert("min".into(), self.min.into());
        }
        if self.max == UNLIMITED {
            o.insert("max".into(), "unlimited".into());
        } else if self.max != 1 {
            o.insert("max".into(), self.max.into());
        }
        Value::Object(o)
    }

    /// What error texts call it: `integer`, `set of 1 to 2 integers`, `map of (string, string) pairs`.
    pub fn to_english(&self) -> String {
        let key = self.key.kind.name();
        if self.is_scalar() {
            return key.to_string();
        }
        let mut s = String::from(if self.is_map() { "map" } else { "set" });
        let _ = match (self.min, self.max) {
            (0, UNLIMITED) => write!(s, " of"),
            (min, UNLIMITED) => write!(s, " of {min} or more"),
            (0, max) => write!(s, " of up to {max}"),
            (min, max) => write!(s, " of {min} to {max}"),
        };
        let _ = match &self.value {
            Some(v) => write!(s, " ({key}, {}) pairs", v.kind.name()),
            None => write!(s, " {key}s"),
        };
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ty(j: Value) -> Result<ColumnType, Error> {
        ColumnType::from_json(&j)
    }

    #[test]
    fn types_print_in_their_shortest_form() {
        for (from, to) in [
            (json!("integer"), json!("integer")),
            (json!({"key": "integer"}), json!("integer")),
            (json!({"key": {"type": "integer"}, "min": 1, "max": 1}), json!("integer")),
            (
                json!({"key": {"type": "integer", "minInteger": 1}}),
                json!({"key": {"type": "integer", "minInteger": 1}}),
            ),
            (
                json!({"key": {"type": "string", "enum": ["set", ["b", "a"]]}, "min": 0}),
                json!({"key": {"type": "string", "enum": ["set", ["a", "b"]]}, "min": 0}),
            ),
            (
                json!({"key": "string", "value": "string", "min": 0, "max": "unlimited"}),
                json!({"key": "string", "value": "string", "min": 0, "max": "unlimited"}),
            ),
            (
                json!({"key": {"type": "uuid", "refTable": "t", "refType": "strong"}}),
                json!({"key": {"type": "uuid", "refTable": "t"}}),
            ),
            (
                json!({"key": {"type": "real", "minReal": -1.5, "maxReal": 2.0}}),
                json!({"key": {"type": "real", "minReal": -1.5, "maxReal": 2}}),
            ),
            (json!({"key": "string", "enum": 3}), Value::Null),
        ] {
            match ty(from.clone()) {
                Ok(t) => assert_eq!(t.to_json(), to, "{from}"),
                Err(e) => assert_eq!(to, Value::Null, "{from}: {e}"),
            }
        }
    }

    #[test]
    fn bad_types_are_refused_with_the_reason() {
        for (j, text) in [
            (json!(1), "ovsdb type expected"),
            (json!("int"), "\"int\" is not an atomic-type"),
            (json!({}), "Parsing ovsdb type failed: Required 'key' member is missing."),
            (json!({"key": "integer", "min": 2}), "ovsdb type fails constraint checks"),
            (json!({"key": "integer", "max": 0}), "ovsdb type fails constraint checks"),
            (json!({"key": "integer", "max": "many"}), "bad min or max value"),
            (json!({"key": "integer", "min": -1}), "bad min or max value"),
            (
                json!({"key": {"type": "integer", "minInteger": 2, "maxInteger": 1}}),
                "minInteger exceeds maxInteger",
            ),
            (json!({"key": {"type": "real", "minReal": 2, "maxReal": 1}}), "minReal exceeds maxReal"),
            (
                json!({"key": {"type": "string", "minLength": 2, "maxLength": 1}}),
                "minLength exceeds maxLength",
            ),
            (
                json!({"key": {"type": "string", "maxLength": 5_000_000_000_i64}}),
                "maxLength out of valid range 0 to 4294967295",
            ),
            (
                json!({"key": {"type": "uuid", "refTable": "a", "refType": "soft"}}),
                "refType must be \"strong\" or \"weak\" (not \"soft\")",
            ),
            (
                json!({"key": {"type": "boolean", "minInteger": 1}}),
                "Parsing ovsdb type failed: Member 'minInteger' is present but not allowed here.",
            ),
        ] {
            assert_eq!(ty(j.clone()).unwrap_err().details, text, "{j}");
        }
    }

    #[test]
    fn english_names() {
        for (j, text) in [
            (json!("real"), "real"),
            (json!({"key": "integer", "min": 1, "max": 2}), "set of 1 to 2 integers"),
            (json!({"key": "integer", "min": 0, "max": 2}), "set of up to 2 integers"),
            (json!({"key": "string", "min": 1, "max": "unlimited"}), "set of 1 or more strings"),
            (
                json!({"key": "string", "value": "uuid", "min": 0, "max": "unlimited"}),
                "map of (string, uuid) pairs",
            ),
        ] {
            assert_eq!(ty(j).unwrap().to_english(), text);
        }
    }
}

//! Data: what a column of a row holds. A scalar is a set of one; sets and maps are sorted by key.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::types::UNLIMITED;
use crate::{Atom, BaseType, ColumnType, Error, Uuid};

/// A value of a column.
///
/// Each value has one representation: no elements is `Empty`, one element without a value is `One`, so that equality
/// is structural. 24 bytes; scalars are inline, and copies share sets, maps and strings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Datum {
    /// The empty set or map.
    #[default]
    Empty,
    /// A scalar, or a set of one element.
    One(Atom),
    /// A set of two or more elements, sorted and distinct.
    Set(Arc<Vec<Atom>>),
    /// A map of one or more pairs, sorted by distinct keys.
    Map(Arc<Vec<(Atom, Atom)>>),
}

/// How many elements are allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Bounds {
    pub(crate) const fn enumeration() -> Self {
        Self { min: 1, max: UNLIMITED }
    }

    pub(crate) const fn any() -> Self {
        Self { min: 0, max: UNLIMITED }
    }
}

/// The names that `insert` operations of one transaction gave to rows (`uuid-name`), and those that `named-uuid`
/// mentions. A name may be mentioned before its row is inserted; it has its UUID from the first mention on.
#[derive(Debug, Default)]
pub struct Symbols {
    names: HashMap<String, Symbol>,
}

#[derive(Debug, Clone, Copy)]
struct Symbol {
    uuid: Uuid,
    inserted: bool,
}

impl Symbols {
    /// No names yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The UUID behind a name; a name not met before gets a random one.
    pub fn refer(&mut self, name: &str) -> Uuid {
        if let Some(s) = self.names.get(name) {
            return s.uuid;
        }
        let uuid = Uuid::random();
        self.names.insert(name.to_string(), Symbol { uuid, inserted: false });
        uuid
    }

    /// Binds a name to the row of an `insert`, with the UUID wanted for it or the name's own; `None` if an earlier
    /// `insert` took the name.
    pub fn define(&mut self, name: &str, wanted: Option<Uuid>) -> Option<Uuid> {
        self.refer(name);
        let s = self.names.get_mut(name).filter(|s| !s.inserted)?;
        s.inserted = true;
        if let Some(u) = wanted {
            s.uuid = u;
        }
        Some(s.uuid)
    }

    /// The UUID that a name has, if it was mentioned.
    pub fn get(&self, name: &str) -> Option<Uuid> {
        self.names.get(name).map(|s| s.uuid)
    }
}

impl Datum {
    /// A set of atoms in any order; duplicates are dropped.
    pub fn from_atoms(mut atoms: Vec<Atom>) -> Self {
        atoms.sort_unstable();
        atoms.dedup();
        Self::from_sorted(atoms)
    }

    /// A map of pairs in any order; of pairs with one key the one with the least value stays.
    pub fn from_pairs(mut pairs: Vec<(Atom, Atom)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup_by(|a, b| a.0 == b.0);
        Self::from_sorted_pairs(pairs)
    }

    pub(crate) fn from_sorted(mut atoms: Vec<Atom>) -> Self {
        match atoms.len() {
            0 => Self::Empty,
            1 => atoms.pop().map_or(Self::Empty, Self::One),
            _ => Self::Set(Arc::new(atoms)),
        }
    }

    pub(crate) fn from_sorted_pairs(pairs: Vec<(Atom, Atom)>) -> Self {
        if pairs.is_empty() { Self::Empty } else { Self::Map(Arc::new(pairs)) }
    }

    /// Number of elements or pairs.
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Set(s) => s.len(),
            Self::Map(m) => m.len(),
        }
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The elements of a set or scalar; empty for a map.
    pub fn atoms(&self) -> &[Atom] {
        match self {
            Self::Empty | Self::Map(_) => &[],
            Self::One(a) => std::slice::from_ref(a),
            Self::Set(s) => s,
        }
    }

    /// The pairs of a map; empty for a set.
    pub fn pairs(&self) -> &[(Atom, Atom)] {
        match self {
            Self::Map(m) => m,
            _ => &[],
        }
    }

    /// The elements of a set, or the keys of a map.
    pub fn keys(&self) -> impl Iterator<Item = &Atom> {
        self.atoms().iter().chain(self.pairs().iter().map(|(k, _)| k))
    }

    /// The only atom of a scalar or of a set of one.
    pub fn scalar(&self) -> Option<&Atom> {
        match self {
            Self::One(a) => Some(a),
            _ => None,
        }
    }

    /// The value that a map has for a key.
    pub fn value_of(&self, key: &Atom) -> Option<&Atom> {
        let m = self.pairs();
        m.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|i| &m[i].1)
    }

    /// The value that a map from strings to strings has for a key.
    pub fn text_value(&self, key: &str) -> Option<&str> {
        let m = self.pairs();
        let at = m.binary_search_by(|(k, _)| k.as_str().unwrap_or_default().cmp(key)).ok()?;
        m[at].1.as_str()
    }

    /// True if a set has the element, or a map the key.
    pub fn has_key(&self, key: &Atom) -> bool {
        match self {
            Self::Map(_) => self.value_of(key).is_some(),
            _ => self.atoms().binary_search(key).is_ok(),
        }
    }

    /// Reads a value of a column and checks it: shape, size, constraints, duplicates. It comes out sorted.
    ///
    /// # Errors
    /// `syntax error`, `constraint violation`, or `ovsdb error` for duplicates (as in Open vSwitch).
    pub fn from_json(json: &Value, ty: &ColumnType, symbols: Option<&mut Symbols>) -> Result<Self, Error> {
        Self::parse(json, &ty.key, ty.value.as_ref(), ty.bounds(), symbols)
    }

    /// Reads a difference of two values of a column: like a value, of any size.
    ///
    /// # Errors
    /// As [`Datum::from_json`].
    pub fn diff_from_json(json: &Value, ty: &ColumnType) -> Result<Self, Error> {
        let bounds = if ty.is_composite() { Bounds::any() } else { ty.bounds() };
        Self::parse(json, &ty.key, ty.value.as_ref(), bounds, None)
    }

    pub(crate) fn parse(
        json: &Value,
        key: &BaseType,
        value: Option<&BaseType>,
        bounds: Bounds,
        mut symbols: Option<&mut Symbols>,
    ) -> Result<Self, Error> {
        let Some(value) = value else {
            let tagged = json.as_array().filter(|a| a.first().and_then(Value::as_str) == Some("set"));
            let Some(tagged) = tagged else { return Atom::from_json(json, key, symbols).map(Self::One) };
            let inner = unwrap(json, tagged, "set", bounds)?;
            let mut atoms = Vec::with_capacity(inner.len());
            for e in inner {
                atoms.push(Atom::from_json(e, key, symbols.as_deref_mut())?);
            }
            if !atoms.is_sorted() {
                atoms.sort_unstable();
            }
            if atoms.windows(2).any(|w| w[0] == w[1]) {
                return Err(Error::other("set contains duplicate"));
            }
            return Ok(Self::from_sorted(atoms));
        };
        let inner = unwrap(json, json.as_array().map_or(&[], Vec::as_slice), "map", bounds)?;
        let mut pairs = Vec::with_capacity(inner.len());
        for e in inner {
            let Some([k, v]) = e.as_array().map(Vec::as_slice) else {
                return Err(Error::syntax(e, "expected 2-element array"));
            };
            let k = Atom::from_json(k, key, symbols.as_deref_mut())?;
            pairs.push((k, Atom::from_json(v, value, symbols.as_deref_mut())?));
        }
        if !pairs.is_sorted_by(|a, b| a.0 <= b.0) {
            pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
        if pairs.windows(2).any(|w| w[0].0 == w[1].0) {
            return Err(Error::other("map contains duplicate key"));
        }
        Ok(Self::from_sorted_pairs(pairs))
    }

    /// The value as JSON: an atom, `["set", [...]]` or `["map", [...]]`.
    pub fn to_json(&self, ty: &ColumnType) -> Value {
        let wrap = |name: &str, inner| Value::Array(vec![Value::from(name), Value::Array(inner)]);
        if ty.is_map() {
            let pair = |(k, v): &(Atom, Atom)| Value::Array(vec![k.to_json(), v.to_json()]);
            return wrap("map", self.pairs().iter().map(pair).collect());
        }
        match self {
            Self::One(a) => a.to_json(),
            _ => wrap("set", self.atoms().iter().map(Atom::to_json).collect()),
        }
    }

    /// Appends the value as JSON text: what [`Datum::to_json`] would print, without the detour.
    pub fn push_json(&self, ty: &ColumnType, out: &mut String) {
        if let (false, Self::One(a)) = (ty.is_map(), self) {
            return a.push_json(out);
        }
        out.push_str(if ty.is_map() { "[\"map\",[" } else { "[\"set\",[" });
        for (i, a) in self.atoms().iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            a.push_json(out);
        }
        for (i, (k, v)) in self.pairs().iter().enumerate() {
            out.push_str(if i > 0 { ",[" } else { "[" });
            k.push_json(out);
            out.push(',');
            v.push_json(out);
            out.push(']');
        }
        out.push_str("]]");
    }

    /// The form of error texts and command-line tools: `1`, `[1, 2]`, `{a=b}`.
    pub fn to_text(&self, ty: &ColumnType) -> String {
        let mut s = String::new();
        let brackets = if ty.is_map() { ['{', '}'] } else { ['[', ']'] };
        let bracketed = ty.max > 1 || self.is_empty();
        if bracketed {
            s.push(brackets[0]);
        }
        for (i, a) in self.atoms().iter().enumerate() {
            if i > 0 {
                s.push_str(", ");
            }
            a.push_text(&mut s);
        }
        for (i, (k, v)) in self.pairs().iter().enumerate() {
            if i > 0 {
                s.push_str(", ");
            }
            k.push_text(&mut s);
            s.push('=');
            v.push_text(&mut s);
        }
        if bracketed {
            s.push(brackets[1]);
        }
        s
    }

    /// Checks every atom against the type's constraints (not the number of elements).
    ///
    /// # Errors
    /// `constraint violation`.
    pub fn check(&self, ty: &ColumnType) -> Result<(), Error> {
        self.keys().try_for_each(|k| ty.key.check(k))?;
        match &ty.value {
            Some(base) => self.pairs().iter().try_for_each(|(_, v)| base.check(v)),
            None => Ok(()),
        }
    }
}

/// The inner array of `[tag, [...]]`, of an allowed size.
fn unwrap<'a>(json: &Value, outer: &'a [Value], tag: &str, bounds: Bounds) -> Result<&'a [Value], Error> {
    let [Value::String(t), Value::Array(inner)] = outer else {
        return Err(Error::syntax(json, format!("expected [\"{tag}\", <array>]")));
    };
    if t != tag {
        return Err(Error::syntax(json, format!("expected [\"{tag}\", <array>]")));
    }
    let (n, Bounds { min, max }) = (inner.len(), bounds);
    if n < min as usize || n > max as usize {
        return Err(Error::syntax(
            json,
            if (min, max) == (1, 1) {
                format!("{tag} must have exactly one member but {n} are present")
            } else {
                format!("{tag} must have {min} to {max} members but {n} are present")
            },
        ));
    }
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn ty(j: Value) -> ColumnType {
        ColumnType::from_json(&j).unwrap()
    }

    fn set_of(kind: &str) -> ColumnType {
        ty(json!({"key": kind, "min": 0, "max": "unlimited"}))
    }

    fn details(j: Value, t: &ColumnType) -> String {
        Datum::from_json(&j, t, None).unwrap_err().details
    }

    #[test]
    fn a_datum_is_small() {
        assert_eq!(std::mem::size_of::<Datum>(), 24);
    }

    #[test]
    fn values_come_out_sorted_and_in_their_shortest_form() {
        for (t, from, to) in [
            (set_of("integer"), json!(["set", [3, 1, 2.0]]), json!(["set", [1, 2, 3]])),
            (set_of("integer"), json!(["set", [3]]), json!(3)),
            (set_of("integer"), json!(3), json!(3)),
            (set_of("integer"), json!(["set", []]), json!(["set", []])),
            (set_of("real"), json!(["set", [0.5, -0.0]]), json!(["set", [0, 0.5]])),
            (set_of("boolean"), json!(["set", [true, false]]), json!(["set", [false, true]])),
            (
                ty(json!({"key": "string", "value": "integer", "min": 0, "max": "unlimited"})),
                json!(["map", [["b", 1], ["a", 2]]]),
                json!(["map", [["a", 2], ["b", 1]]]),
            ),
            (
                set_of("uuid"),
                json!(["uuid", "FFFFFFFF-971b-4cba-bf42-520515973b7e"]),
                json!(["uuid", "ffffffff-971b-4cba-bf42-520515973b7e"]),
            ),
        ] {
            let d = Datum::from_json(&from, &t, None).unwrap();
            assert_eq!(d.to_json(&t), to);
            let mut text = String::new();
            d.push_json(&t, &mut text);
            assert_eq!(text, to.to_string());
            assert_eq!(Datum::from_json(&to, &t, None).unwrap(), d);
        }
    }

    #[test]
    fn shape_errors_name_what_was_expected() {
        let map = ty(json!({"key": "string", "value": "integer", "min": 1, "max": 2}));
        for (t, j, text) in [
            (set_of("integer"), json!("x"), "expected integer"),
            (set_of("integer"), json!(1.5), "expected integer"),
            (set_of("integer"), json!(["set", 1]), "expected [\"set\", <array>]"),
            (set_of("integer"), json!(["set", [1], 2]), "expected [\"set\", <array>]"),
            (set_of("integer"), json!(["set", [1, 1]]), "set contains duplicate"),
            (set_of("uuid"), json!("x"), "expected [\"uuid\", <string>]"),
            (set_of("uuid"), json!(["named-uuid", "x"]), "expected [\"uuid\", <string>]"),
            (set_of("uuid"), json!(["uuid", "x"]), "\"x\" is not a valid UUID"),
            (set_of("string"), json!("a\u{0}b"), "null bytes not supported in strings"),
            (map.clone(), json!({}), "expected [\"map\", <array>]"),
            (map.clone(), json!(["map", [["a"]]]), "expected 2-element array"),
            (map.clone(), json!(["map", []]), "map must have 1 to 2 members but 0 are present"),
            (map.clone(), json!(["map", [["a", 1], ["a", 2]]]), "map contains duplicate key"),
            (ty(json!("integer")), json!(["set", []]), "set must have exactly one member but 0 are present"),
        ] {
            assert_eq!(details(j, &t), text);
        }
    }

    #[test]
    fn constraints_say_which_bound_was_broken() {
        let base = |j: Value| ty(json!({"key": j, "min": 0, "max": "unlimited"}));
        for (t, j, text) in [
            (json!({"type": "integer", "minInteger": 1}), json!(0), "0 is less than minimum allowed value 1"),
            (
                json!({"type": "integer", "maxInteger": 1}),
                json!(2),
                "2 is greater than maximum allowed value 1",
            ),
            (
                json!({"type": "integer", "minInteger": 1, "maxInteger": 5}),
                json!(6),
                "6 is not in the valid range 1 to 5 (inclusive)",
            ),
            (
                json!({"type": "real", "minReal": -1.25, "maxReal": 1.25}),
                json!(1.5),
                "1.5 is not in the valid range -1.25 to 1.25 (inclusive)",
            ),
            (
                json!({"type": "string", "minLength": 2}),
                json!("é"),
                "\"é\" length 1 is less than minimum allowed length 2",
            ),
            (
                json!({"type": "string", "maxLength": 2}),
                json!("abc"),
                "\"abc\" length 3 is greater than maximum allowed length 2",
            ),
            (
                json!({"type": "integer", "enum": ["set", [4, 1, 9]]}),
                json!(2),
                "2 is not one of the allowed values ([1, 4, 9])",
            ),
            (
                json!({"type": "string", "enum": ["set", ["a b", "c"]]}),
                json!(""),
                "\"\" is not one of the allowed values ([\"a b\", c])",
            ),
        ] {
            let e = Datum::from_json(&j, &base(t), None).unwrap_err();
            assert_eq!((&*e.tag, &*e.details), ("constraint violation", text));
        }
        assert!(
            Datum::from_json(&json!("éé"), &base(json!({"type": "string", "maxLength": 2})), None).is_ok()
        );
    }

    #[test]
    fn names_keep_their_uuid_and_belong_to_one_row() {
        let mut s = Symbols::new();
        let t = set_of("uuid");
        let before = Datum::from_json(&json!(["named-uuid", "x"]), &t, Some(&mut s)).unwrap();
        let u = s.define("x", None).unwrap();
        assert_eq!(before, Datum::One(Atom::Uuid(u)));
        assert_eq!(s.define("x", None), None);
        let wanted = Uuid::random();
        assert_eq!(s.define("y", Some(wanted)), Some(wanted));
        assert_eq!(s.refer("y"), wanted);
        let e = Datum::from_json(&json!(["named-uuid", "0"]), &t, Some(&mut s)).unwrap_err();
        assert_eq!(e.details, "named-uuid string is not a valid <id>");
    }

    #[test]
    fn text_form_quotes_what_could_be_mistaken() {
        let t = set_of("string");
        let d = Datum::from_atoms(["a-b", "true", "", "9", "x y"].map(Atom::from).to_vec());
        assert_eq!(d.to_text(&t), "[\"\", \"9\", a-b, \"true\", \"x y\"]");
        let m = ty(json!({"key": "string", "value": "integer", "min": 0, "max": 5}));
        let d = Datum::from_pairs(vec![("k".into(), 1.into())]);
        assert_eq!((d.to_text(&m).as_str(), Datum::Empty.to_text(&m).as_str()), ("{k=1}", "{}"));
        assert_eq!(Datum::One(3.into()).to_text(&ty(json!("integer"))), "3");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "(set|map|uuid|named-uuid|[a-z]{0,3})".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                (prop_oneof![Just("set"), Just("map")], prop::collection::vec(inner.clone(), 0..4))
                    .prop_map(|(t, v)| json!([t, v])),
                prop::collection::btree_map("(type|key|value|min|max|enum|columns|tables|name)", inner, 0..4)
                    .prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_a_value_or_an_error_never_a_panic(j in any_json()) {
            let mut s = Symbols::new();
            for kind in ["integer", "real", "boolean", "string", "uuid"] {
                let map = ty(json!({"key": kind, "value": kind, "min": 0, "max": 2}));
                for t in [set_of(kind), ty(json!(kind)), map] {
                    if let Ok(d) = Datum::from_json(&j, &t, Some(&mut s)) {
                        let back = Datum::from_json(&d.to_json(&t), &t, None);
                        prop_assert_eq!(back, Ok(d));
                    }
                }
            }
            let _ = ColumnType::from_json(&j).map(|t| {
                assert_eq!(ColumnType::from_json(&t.to_json()), Ok(t));
            });
            let _ = crate::Schema::from_json(&j);
            let _ = crate::json::canonical(&j);
        }
    }
}

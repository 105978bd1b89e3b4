//! Mutations: changes of columns in terms of their old values (RFC 7047 5.1, `<mutation>`).

use serde_json::Value;

use crate::datum::{Bounds, Symbols};
use crate::types::UNLIMITED;
use crate::{Atom, AtomType, BaseType, Datum, Error, Row, TableSchema};

/// `<mutator>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutator {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Insert,
    Delete,
}

impl Mutator {
    fn from_name(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "+=" => Self::Add,
            "-=" => Self::Sub,
            "*=" => Self::Mul,
            "/=" => Self::Div,
            "%=" => Self::Mod,
            "insert" => Self::Insert,
            "delete" => Self::Delete,
            _ => return Err(Error::new("unknown mutator", format!("No mutator named {name}."))),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Add => "+=",
            Self::Sub => "-=",
            Self::Mul => "*=",
            Self::Div => "/=",
            Self::Mod => "%=",
            Self::Insert => "insert",
            Self::Delete => "delete",
        }
    }
}

/// A parsed `[column, mutator, value]`.
#[derive(Debug, Clone)]
pub(crate) struct Mutation {
    pub(crate) column: usize,
    mutator: Mutator,
    arg: Datum,
}

impl Mutation {
    fn from_json(json: &Value, schema: &TableSchema, symbols: &mut Symbols) -> Result<Self, Error> {
        let Some([Value::String(name), Value::String(mutator), arg]) = json.as_array().map(Vec::as_slice)
        else {
            return Err(Error::syntax(json, "Parse error in mutation."));
        };
        let Some(column) = schema.column_index(name) else {
            let text = format!("No column {name} in table {}.", schema.name);
            return Err(Error::new("unknown column", text).with_syntax(json));
        };
        if !schema.columns[column].mutable {
            let text = format!("Cannot mutate immutable column {name} in table {}.", schema.name);
            return Err(Error::constraint(text).with_syntax(json));
        }
        let ty = &schema.columns[column].ty;
        let mutator = Mutator::from_name(mutator)?;
        let mismatch = || {
            Error::syntax(
                json,
                format!(
                    "Type mismatch: \"{}\" operator may not be applied to column {name} of type {}.",
                    mutator.name(),
                    ty.to_english()
                ),
            )
        };
        let arg = match mutator {
            Mutator::Insert | Mutator::Delete => {
                if !ty.is_set() && !ty.is_map() {
                    return Err(mismatch());
                }
                let max = if mutator == Mutator::Delete { UNLIMITED } else { ty.max };
                let bounds = Bounds { min: 0, max };
                let parsed = Datum::parse(arg, &ty.key, ty.value.as_ref(), bounds, Some(symbols));
                match parsed {
                    // Pairs are deleted by key alone, too.
                    Err(_) if mutator == Mutator::Delete && ty.is_map() => {
                        Datum::parse(arg, &ty.key, None, bounds, Some(symbols))?
                    }
                    other => other?,
                }
            }
            _ => {
                let ok = match ty.key.kind {
                    AtomType::Integer => true,
                    AtomType::Real => mutator != Mutator::Mod,
                    _ => false,
                };
                if !ok || ty.is_map() {
                    return Err(mismatch());
                }
                Datum::parse(arg, &ty.key.unconstrained(), None, Bounds { min: 1, max: 1 }, Some(symbols))?
            }
        };
        Ok(Self { column, mutator, arg })
    }

    /// Reads a list of mutations.
    pub(crate) fn list_from_json(
        json: &[Value],
        schema: &TableSchema,
        symbols: &mut Symbols,
    ) -> Result<Vec<Self>, Error> {
        json.iter().map(|j| Self::from_json(j, schema, symbols)).collect()
    }

    /// Applies it to a row. After an error the row is not to be used.
    pub(crate) fn apply(&self, row: &mut Row, schema: &TableSchema) -> Result<(), Error> {
        let ty = &schema.columns[self.column].ty;
        let mut value = row.take(schema, self.column);
        match self.mutator {
            Mutator::Insert => value.union(&self.arg),
            Mutator::Delete => value.subtract(&self.arg),
            _ => {
                let Some(arg) = self.arg.scalar() else { return Ok(()) };
                let results: Result<Vec<Atom>, Error> =
                    value.atoms().iter().map(|a| self.arithmetic(a, arg, &ty.key)).collect();
                let mut results = results?;
                results.iter().try_for_each(|a| ty.key.check(a))?;
                results.sort_unstable();
                if results.windows(2).any(|w| w[0] == w[1]) {
                    let text =
                        format!("Result of \"{}\" operation contains duplicates.", self.mutator.name());
                    return Err(Error::constraint(text));
                }
                value = Datum::from_sorted(results);
            }
        }
        if !ty.allows_size(value.len()) {
            let text = format!("Attempted to store {} elements in {}.", value.len(), ty.to_english());
            return Err(Error::constraint(text));
        }
        row.set(schema, self.column, value);
        Ok(())
    }

    fn arithmetic(&self, x: &Atom, y: &Atom, base: &BaseType) -> Result<Atom, Error> {
        let out_of_range = || {
            Error::new(
                "range error",
                format!("Result of \"{}\" operation is out of range.", self.mutator.name()),
            )
        };
        let by_zero = || Error::new("domain error", "Division by zero.");
        match (base.kind, x, y) {
            (AtomType::Integer, Atom::Integer(x), Atom::Integer(y)) => match self.mutator {
                Mutator::Add => x.checked_add(*y),
                Mutator::Sub => x.checked_sub(*y),
                Mutator::Mul => x.checked_mul(*y),
                Mutator::Div | Mutator::Mod if *y == 0 => return Err(by_zero()),
                Mutator::Div => x.checked_div(*y),
                _ => x.checked_rem(*y),
            }
            .map(Atom::Integer)
            .ok_or_else(out_of_range),
            (_, Atom::Real(x), Atom::Real(y)) => {
                let r = match self.mutator {
                    Mutator::Add => x + y,
                    Mutator::Sub => x - y,
                    Mutator::Mul => x * y,
                    _ if *y == 0.0 => return Err(by_zero()),
                    _ => x / y,
                };
                if r.is_finite() { Ok(Atom::real(r)) } else { Err(out_of_range()) }
            }
            // Parsing made both of the column's kind.
            _ => Err(out_of_range()),
        }
    }
}

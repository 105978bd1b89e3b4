//! Conditions: `where` of operations (all clauses) and of monitors (any clause); RFC 7047 5.1, ovsdb-server(7).

use std::cmp::Ordering;

use serde_json::Value;

use crate::datum::{Bounds, Symbols};
use crate::schema::UUID_COLUMN;
use crate::types::UNLIMITED;
use crate::{AtomType, Datum, Error, Row, TableSchema, Uuid};

/// `<function>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `includes`
    Includes,
    /// `excludes`
    Excludes,
}

impl Function {
    fn from_name(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "==" => Self::Eq,
            "!=" => Self::Ne,
            "<" => Self::Lt,
            "<=" => Self::Le,
            ">" => Self::Gt,
            ">=" => Self::Ge,
            "includes" => Self::Includes,
            "excludes" => Self::Excludes,
            _ => return Err(Error::new("unknown function", format!("No function named {name}."))),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Includes => "includes",
            Self::Excludes => "excludes",
        }
    }

    fn is_order(self) -> bool {
        matches!(self, Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Eq | Self::Includes => order.is_eq(),
            Self::Ne | Self::Excludes => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
        }
    }
}

/// One clause.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clause {
    /// `true` or `false`, an extension of Open vSwitch.
    Constant(bool),
    /// `[column, function, value]`.
    Test {
        /// How to compare.
        function: Function,
        /// Position of the column.
        column: usize,
        /// What to compare with.
        value: Datum,
    },
}

/// A list of clauses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Condition {
    clauses: Vec<Clause>,
}

impl Clause {
    fn from_json(json: &Value, schema: &TableSchema, symbols: Option<&mut Symbols>) -> Result<Self, Error> {
        if let Value::Bool(b) = json {
            return Ok(Self::Constant(*b));
        }
        let Some([Value::String(name), Value::String(function), arg]) = json.as_array().map(Vec::as_slice)
        else {
            return Err(Error::syntax(json, "Parse error in condition."));
        };
        let Some(column) = schema.column_index(name) else {
            let text = format!("No column {name} in table {}.", schema.name);
            return Err(Error::new("unknown column", text).with_syntax(json));
        };
        let ty = &schema.columns[column].ty;
        let function = Function::from_name(function)?;
        let mut bounds = Bounds { min: ty.min, max: ty.max };
        match function {
            Function::Lt | Function::Le | Function::Gt | Function::Ge => {
                let numeric = matches!(ty.key.kind, AtomType::Integer | AtomType::Real);
                if !numeric || !(ty.is_scalar() || ty.is_optional_scalar()) {
                    return Err(Error::syntax(
                        json,
                        format!(
                            "Type mismatch: \"{}\" operator may not be applied to column {name} of type {}.",
                            function.name(),
                            ty.to_english()
                        ),
                    ));
                }
                bounds.min = 1;
            }
            Function::Excludes if !ty.is_scalar() => bounds = Bounds { min: 0, max: UNLIMITED },
            Function::Includes if !ty.is_scalar() => bounds.min = 0,
            _ => {}
        }
        let value = Datum::parse(arg, &ty.key, ty.value.as_ref(), bounds, symbols)?;
        Ok(Self::Test { function, column, value })
    }

    /// True if the row satisfies the clause.
    pub fn matches(&self, row: &Row, schema: &TableSchema) -> bool {
        let (function, column, value) = match self {
            Self::Constant(b) => return *b,
            Self::Test { function, column, value } => (*function, *column, value),
        };
        let field = row.get(schema, column);
        if let (Some(a), Some(b)) = (field.scalar(), value.scalar())
            && schema.columns[column].ty.max == 1
        {
            return function.holds(a.cmp(b));
        }
        match function {
            Function::Eq => field == value,
            Function::Ne => field != value,
            Function::Includes => value.is_subset(field),
            Function::Excludes => value.is_disjoint(field),
            // An optional number that is not there is neither less nor more.
            _ => {
                debug_assert!(function.is_order());
                false
            }
        }
    }

    fn to_json(&self, schema: &TableSchema) -> Value {
        match self {
            Self::Constant(b) => Value::Bool(*b),
            Self::Test { function, column, value } => {
                let c = &schema.columns[*column];
                Value::Array(vec![(&*c.name).into(), function.name().into(), value.to_json(&c.ty)])
            }
        }
    }
}

impl Condition {
    /// Reads a list of clauses.
    ///
    /// # Errors
    /// `syntax error`, `unknown column`, `unknown function`, or what [`Datum::from_json`] finds.
    pub fn from_json(
        json: &[Value],
        schema: &TableSchema,
        mut symbols: Option<&mut Symbols>,
    ) -> Result<Self, Error> {
        let mut clauses = Vec::with_capacity(json.len());
        for j in json {
            clauses.push(Clause::from_json(j, schema, symbols.as_deref_mut())?);
        }
        Ok(Self { clauses })
    }

    /// The condition of a monitor: clauses in a fixed order, so that equal conditions are equal.
    pub(crate) fn normalized(mut self) -> Self {
        self.clauses.sort();
        self.clauses.dedup();
        if self.is_always_true() {
            self.clauses = vec![];
        }
        self
    }

    /// Adds the clauses of another condition.
    pub(crate) fn extend(&mut self, other: Self) {
        self.clauses.extend(other.clauses);
    }

    /// The clauses as JSON.
    pub fn to_json(&self, schema: &TableSchema) -> Value {
        self.clauses.iter().map(|c| c.to_json(schema)).collect()
    }

    /// True if the row satisfies every clause: the meaning of `where` in operations.
    pub fn matches_all(&self, row: &Row, schema: &TableSchema) -> bool {
        self.clauses.iter().all(|c| c.matches(row, schema))
    }

    /// True if the row satisfies a clause, or there is none: the meaning of `where` in monitors.
    pub fn matches_any(&self, row: &Row, schema: &TableSchema) -> bool {
        self.clauses.is_empty() || self.clauses.iter().any(|c| c.matches(row, schema))
    }

    /// True if [`Condition::matches_any`] holds for every row.
    pub fn is_always_true(&self) -> bool {
        self.clauses.is_empty() || self.clauses.contains(&Clause::Constant(true))
    }

    /// The row that `_uuid ==` asks for, if a clause does; no other row satisfies all clauses.
    pub(crate) fn wanted_uuid(&self) -> Option<Uuid> {
        self.wanted(UUID_COLUMN).and_then(|d| d.scalar()).and_then(|a| a.as_uuid())
    }

    /// The value that a clause `column ==` demands.
    pub(crate) fn wanted(&self, wanted: usize) -> Option<&Datum> {
        self.clauses.iter().find_map(|c| match c {
            Clause::Test { function: Function::Eq, column, value } if *column == wanted => Some(value),
            _ => None,
        })
    }
}

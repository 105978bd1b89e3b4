//! A database as plainly as it can be written: maps of maps, copied whole for each transaction, every rule checked by
//! looking at everything. Slow and obvious; the library has to agree with it.
//!
//! Values are read by the library ([`Datum`]), and are maps from elements to nothing or from keys to values here.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::{Atom, ColumnType, Datum, Error, RefKind, Schema, TableSchema, Uuid};
use serde_json::{Value, json};

type Val = BTreeMap<Atom, Option<Atom>>;
type Row = Vec<Val>;
type RowId = (usize, Uuid);

#[derive(Clone, PartialEq)]
pub struct Model {
    schema: Schema,
    tables: Vec<BTreeMap<Uuid, Row>>,
}

/// The results, each a value or the tag of an error; after it nothing.
pub type Results = Vec<Result<Value, String>>;

fn val(d: &Datum) -> Val {
    let single = d.atoms().iter().map(|a| (a.clone(), None));
    single.chain(d.pairs().iter().map(|(k, v)| (k.clone(), Some(v.clone())))).collect()
}

fn to_json(v: &Val, ty: &ColumnType) -> Value {
    if ty.is_map() {
        let pairs: Vec<Value> =
            v.iter().map(|(k, v)| json!([k.to_json(), v.as_ref().unwrap().to_json()])).collect();
        return json!(["map", pairs]);
    }
    let atoms: Vec<Value> = v.keys().map(Atom::to_json).collect();
    match atoms.as_slice() {
        [one] => one.clone(),
        _ => json!(["set", atoms]),
    }
}

fn fail<T>(tag: &str) -> Result<T, String> {
    Err(tag.to_string())
}

fn tag(e: Error) -> String {
    e.tag.into_owned()
}

impl Model {
    pub fn new(schema: &Schema) -> Self {
        Self { schema: schema.clone(), tables: vec![BTreeMap::new(); schema.tables.len()] }
    }

    pub fn dump(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (t, rows) in self.schema.tables.iter().zip(&self.tables) {
            let row = |r: &Row| -> Value {
                let columns = t.columns.iter().enumerate().filter(|(i, c)| *i != 1 && c.persistent);
                columns.map(|(i, c)| (c.name.to_string(), to_json(&r[i], &c.ty))).collect()
            };
            out.insert(t.name.to_string(), rows.values().map(row).collect());
        }
        Value::Object(out)
    }

    /// Runs a transaction; a wait that does not hold counts as timed out.
    pub fn transact(&mut self, ops: &[Value]) -> Results {
        let mut new = self.clone();
        let mut names = BTreeMap::new();
        let mut gone = BTreeSet::new();
        let mut results = Vec::new();
        for op in ops {
            let r = new.operation(op, &mut names, &mut gone, self);
            let failed = r.is_err();
            results.push(r);
            if failed {
                return results;
            }
        }
        match new.end() {
            Ok(()) => *self = new,
            Err(e) => results.push(Err(e)),
        }
        results
    }

    fn operation(
        &mut self,
        op: &Value,
        names: &mut BTreeMap<String, Uuid>,
        gone: &mut BTreeSet<(usize, Uuid)>,
        before: &Self,
    ) -> Result<Value, String> {
        let name = op["op"].as_str().unwrap();
        if name == "abort" {
            return fail("aborted");
        }
        let Some(table) = op["table"].as_str() else { return Ok(json!({})) };
        let table = self.schema.table_index(table).unwrap();
        let ts = self.schema.tables[table].clone();
        match name {
            "insert" => {
                let uuid: Uuid = op["uuid"].as_str().unwrap().parse().unwrap();
                if self.tables[table].contains_key(&uuid) || gone.contains(&(table, uuid)) {
                    return fail("duplicate uuid");
                }
                if let Some(n) = op["uuid-name"].as_str() {
                    names.insert(n.to_string(), uuid);
                }
                let mut row: Row = ts.columns.iter().map(|c| val(&c.default)).collect();
                let given = values(&op["row"], &ts, names)?;
                for (i, c) in ts.columns.iter().enumerate() {
                    match given.get(&i) {
                        Some(v) => row[i] = v.clone(),
                        None => c.default.check(&c.ty).map_err(tag)?,
                    }
                }
                row[0] = val(&Datum::from_atoms(vec![Atom::Uuid(uuid)]));
                self.tables[table].insert(uuid, row);
                Ok(json!({"uuid": ["uuid", uuid.to_text()]}))
            }
            "select" => {
                let found = self.matching(table, &op["where"], names)?;
                let columns: Vec<&str> =
                    op["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
                let mut rows: Vec<Value> = Vec::new();
                for u in found {
                    let r = &self.tables[table][&u];
                    let at = |c: &str| ts.column_index(c).unwrap();
                    let row: Value = columns
                        .iter()
                        .map(|c| (c.to_string(), to_json(&r[at(c)], &ts.columns[at(c)].ty)))
                        .collect();
                    if !rows.contains(&row) {
                        rows.push(row);
                    }
                }
                rows.sort_by_key(Value::to_string);
                Ok(json!({"rows": rows}))
            }
            "update" => {
                let new = values(&op["row"], &ts, names)?;
                if new.keys().any(|c| !ts.columns[*c].mutable) {
                    return fail("constraint violation");
                }
                let found = self.matching(table, &op["where"], names)?;
                for u in &found {
                    for (c, v) in &new {
                        self.tables[table].get_mut(u).unwrap()[*c] = v.clone();
                    }
                }
                Ok(json!({"count": found.len()}))
            }
            "mutate" => {
                let mutations = op["mutations"].as_array().unwrap();
                let mutations: Result<Vec<_>, String> =
                    mutations.iter().map(|m| mutation(m, &ts, names)).collect();
                let mutations = mutations?;
                let found = self.matching(table, &op["where"], names)?;
                for u in &found {
                    for (c, mutator, arg) in &mutations {
                        let field = &mut self.tables[table].get_mut(u).unwrap()[*c];
                        *field = mutated(field, mutator, arg, &ts.columns[*c].ty)?;
                    }
                }
                Ok(json!({"count": found.len()}))
            }
            "delete" => {
                let found = self.matching(table, &op["where"], names)?;
                for u in &found {
                    self.tables[table].remove(u);
                    // The UUID of a row that was there before may not be used again.
                    if before.tables[table].contains_key(u) {
                        gone.insert((table, *u));
                    }
                }
                Ok(json!({"count": found.len()}))
            }
            "wait" => {
                let found = self.matching(table, &op["where"], names)?;
                let columns: Vec<usize> = op["columns"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|c| ts.column_index(c.as_str().unwrap()).unwrap())
                    .collect();
                let mut expected = BTreeSet::new();
                for row in op["rows"].as_array().unwrap() {
                    let given = values(row, &ts, names)?;
                    let value =
                        |c: &usize| given.get(c).cloned().unwrap_or_else(|| val(&ts.columns[*c].default));
                    expected.insert(columns.iter().map(value).collect::<Vec<Val>>());
                }
                let actual: BTreeSet<Vec<Val>> = found
                    .iter()
                    .map(|u| columns.iter().map(|c| self.tables[table][u][*c].clone()).collect())
                    .collect();
                if (actual == expected) == (op["until"] == "==") { Ok(json!({})) } else { fail("timed out") }
            }
            other => panic!("{other}"),
        }
    }

    fn matching(
        &self,
        table: usize,
        clauses: &Value,
        names: &BTreeMap<String, Uuid>,
    ) -> Result<Vec<Uuid>, String> {
        let ts = &self.schema.tables[table];
        let mut found: Vec<Uuid> = self.tables[table].keys().copied().collect();
        let clauses = clauses.as_array().unwrap();
        // All clauses are read before any is applied.
        let read: Result<Vec<_>, String> = clauses.iter().map(|c| clause(c, ts, names)).collect();
        for c in read? {
            found.retain(|u| match &c {
                Clause::Constant(b) => *b,
                Clause::Test(column, function, arg) => {
                    holds(&self.tables[table][u][*column], function, arg, &ts.columns[*column].ty)
                }
            });
        }
        Ok(found)
    }

    /// Each reference of each row: source, target, kind.
    fn references(&self) -> Vec<(RowId, RowId, RefKind)> {
        let mut out = Vec::new();
        for (t, rows) in self.tables.iter().enumerate() {
            for (u, row) in rows {
                for (c, v) in self.schema.tables[t].columns.iter().zip(row) {
                    for (k, v) in v {
                        for (base, atom) in [(Some(&c.ty.key), Some(k)), (c.ty.value.as_ref(), v.as_ref())] {
                            if let (Some((table, kind)), Some(a)) = (base.and_then(|b| b.reference()), atom) {
                                out.push(((t, *u), (table, a.as_uuid().unwrap()), kind));
                            }
                        }
                    }
                }
            }
        }
        out
    }

    fn has(&self, row: &(usize, Uuid)) -> bool {
        self.tables[row.0].contains_key(&row.1)
    }

    /// What RFC 7047 asks of a database between transactions.
    fn end(&mut self) -> Result<(), String> {
        let strong = |m: &Self| -> Vec<_> {
            m.references().into_iter().filter(|(s, t, k)| *k == RefKind::Strong && s != t).collect()
        };
        if strong(self).iter().any(|(_, t, _)| !self.has(t)) {
            return fail("referential integrity violation");
        }
        loop {
            let wanted: BTreeSet<_> = strong(self).into_iter().map(|(_, t, _)| t).collect();
            let before = self.clone();
            for (t, rows) in self.tables.iter_mut().enumerate() {
                let root = self.schema.tables[t].is_root;
                rows.retain(|u, _| root || wanted.contains(&(t, *u)));
            }
            if before == *self {
                break;
            }
        }
        for (t, rows) in self.schema.tables.iter().zip(&self.tables) {
            if rows.len() > t.max_rows as usize {
                return fail("constraint violation");
            }
        }
        let there: Vec<BTreeSet<Uuid>> = self.tables.iter().map(|t| t.keys().copied().collect()).collect();
        for (t, rows) in self.tables.iter_mut().enumerate() {
            for row in rows.values_mut() {
                for (c, v) in self.schema.tables[t].columns.iter().zip(row) {
                    let lost = |base: Option<&ovsdb::BaseType>, a: Option<&Atom>| match base
                        .and_then(|b| b.reference())
                    {
                        Some((table, RefKind::Weak)) => {
                            !there[table].contains(&a.unwrap().as_uuid().unwrap())
                        }
                        _ => false,
                    };
                    v.retain(|k, v| {
                        !lost(Some(&c.ty.key), Some(k)) && !lost(c.ty.value.as_ref(), v.as_ref())
                    });
                    if v.len() < c.ty.min as usize {
                        return fail("constraint violation");
                    }
                }
            }
        }
        for (t, rows) in self.schema.tables.iter().zip(&self.tables) {
            for index in &t.indexes {
                let keys: BTreeSet<Vec<&Val>> =
                    rows.values().map(|r| index.iter().map(|c| &r[*c]).collect()).collect();
                if keys.len() < rows.len() {
                    return fail("constraint violation");
                }
            }
        }
        Ok(())
    }
}

enum Clause {
    Constant(bool),
    Test(usize, String, Val),
}

/// Replaces names by UUIDs, so that the library can read values without names.
fn resolved(v: &Value, names: &BTreeMap<String, Uuid>) -> Value {
    match v {
        Value::Array(a) => match a.as_slice() {
            [t, Value::String(n)] if t == "named-uuid" => json!(["uuid", names[n].to_text()]),
            _ => a.iter().map(|e| resolved(e, names)).collect(),
        },
        other => other.clone(),
    }
}

fn value(v: &Value, ty: &ColumnType, names: &BTreeMap<String, Uuid>) -> Result<Val, String> {
    Datum::from_json(&resolved(v, names), ty, None).map(|d| val(&d)).map_err(tag)
}

fn values(
    row: &Value,
    ts: &TableSchema,
    names: &BTreeMap<String, Uuid>,
) -> Result<BTreeMap<usize, Val>, String> {
    let mut out = BTreeMap::new();
    for (n, v) in row.as_object().unwrap() {
        let c = ts.column_index(n).unwrap();
        out.insert(c, value(v, &ts.columns[c].ty, names)?);
    }
    Ok(out)
}

fn clause(c: &Value, ts: &TableSchema, names: &BTreeMap<String, Uuid>) -> Result<Clause, String> {
    if let Some(b) = c.as_bool() {
        return Ok(Clause::Constant(b));
    }
    let column = ts.column_index(c[0].as_str().unwrap()).unwrap();
    let function = c[1].as_str().unwrap();
    let mut ty = ts.columns[column].ty.clone();
    match function {
        "<" | "<=" | ">" | ">=" => {
            let number = matches!(ty.key.kind, ovsdb::AtomType::Integer | ovsdb::AtomType::Real);
            if !number || ty.max != 1 || ty.is_map() {
                return fail("syntax error");
            }
            ty.min = 1;
        }
        "includes" if !ty.is_scalar() => ty.min = 0,
        "excludes" if !ty.is_scalar() => (ty.min, ty.max) = (0, u32::MAX),
        _ => {}
    }
    Ok(Clause::Test(column, function.to_string(), value(&c[2], &ty, names)?))
}

fn holds(field: &Val, function: &str, arg: &Val, ty: &ColumnType) -> bool {
    let order = || {
        debug_assert_eq!(ty.max, 1);
        let (a, b) = (field.keys().next()?, arg.keys().next()?);
        Some(a.cmp(b))
    };
    match function {
        "==" => field == arg,
        "!=" => field != arg,
        "includes" => arg.iter().all(|(k, v)| field.get(k) == Some(v)),
        "excludes" => !arg.iter().any(|(k, v)| field.get(k) == Some(v)),
        "<" => order().is_some_and(|o| o.is_lt()),
        "<=" => order().is_some_and(|o| o.is_le()),
        ">" => order().is_some_and(|o| o.is_gt()),
        ">=" => order().is_some_and(|o| o.is_ge()),
        other => panic!("{other}"),
    }
}

fn mutation(
    m: &Value,
    ts: &TableSchema,
    names: &BTreeMap<String, Uuid>,
) -> Result<(usize, String, Val), String> {
    let c = ts.column_index(m[0].as_str().unwrap()).unwrap();
    let column = &ts.columns[c];
    if !column.mutable {
        return fail("constraint violation");
    }
    let mutator = m[1].as_str().unwrap();
    let ty = &column.ty;
    let arg = match mutator {
        "insert" | "delete" => {
            if ty.is_scalar() {
                return fail("syntax error");
            }
            let max = if mutator == "delete" { u32::MAX } else { ty.max };
            let wide = ColumnType { min: 0, max, ..ty.clone() };
            match value(&m[2], &wide, names) {
                Err(_) if mutator == "delete" && ty.is_map() => {
                    value(&m[2], &ColumnType { value: None, ..wide }, names)?
                }
                other => other?,
            }
        }
        _ => {
            let real = ty.key.kind == ovsdb::AtomType::Real;
            if ty.is_map() || !(real || ty.key.kind == ovsdb::AtomType::Integer) || real && mutator == "%=" {
                return fail("syntax error");
            }
            value(&m[2], &ColumnType::from(ty.key.kind), names)?
        }
    };
    Ok((c, mutator.to_string(), arg))
}

fn mutated(field: &Val, mutator: &str, arg: &Val, ty: &ColumnType) -> Result<Val, String> {
    let mut new = field.clone();
    match mutator {
        "insert" => arg.iter().for_each(|(k, v)| {
            new.entry(k.clone()).or_insert(v.clone());
        }),
        "delete" => new.retain(|k, v| match arg.get(k) {
            None => true,
            // A key alone takes its pair whatever the value; a pair takes only itself.
            Some(None) => false,
            Some(Some(w)) => v.as_ref() != Some(w),
        }),
        _ => {
            let y = arg.keys().next().unwrap();
            new = BTreeMap::new();
            let mut results = Vec::new();
            for x in field.keys() {
                results.push(arithmetic(x, mutator, y)?);
            }
            for r in results {
                ty.key.check(&r).map_err(tag)?;
                if new.insert(r, None).is_some() {
                    return fail("constraint violation");
                }
            }
        }
    }
    let n = new.len();
    if n < ty.min as usize || n > ty.max as usize { fail("constraint violation") } else { Ok(new) }
}

fn arithmetic(x: &Atom, mutator: &str, y: &Atom) -> Result<Atom, String> {
    match (x, y) {
        (Atom::Integer(x), Atom::Integer(y)) => {
            // Wide enough for any of them.
            let (x, y) = (i128::from(*x), i128::from(*y));
            let r = match mutator {
                "+=" => x + y,
                "-=" => x - y,
                "*=" => x * y,
                _ if y == 0 => return fail("domain error"),
                "/=" => x / y,
                _ => x % y,
            };
            i64::try_from(r).map(Atom::Integer).or_else(|_| fail("range error"))
        }
        (Atom::Real(x), Atom::Real(y)) => {
            let r = match mutator {
                "+=" => x + y,
                "-=" => x - y,
                "*=" => x * y,
                _ if *y == 0.0 => return fail("domain error"),
                _ => x / y,
            };
            if r.is_finite() { Ok(Atom::real(r)) } else { fail("range error") }
        }
        _ => panic!("{x:?} {y:?}"),
    }
}

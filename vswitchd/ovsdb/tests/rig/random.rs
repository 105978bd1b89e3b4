//! Random schemas and transactions, from a seed. Domains are small, so that rows collide, refer to each other and match
//! conditions; some requests are wrong on purpose.
#![allow(dead_code)]

use ovsdb::{AtomType, BaseType, ColumnType, Schema, TableSchema};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

pub struct Random {
    pub rng: StdRng,
    pub schema: Schema,
    /// Generate requests that are malformed.
    pub malformed: bool,
}

const STRINGS: [&str; 6] = ["", "a", "b", "c d", "true", "é\"\n"];
const REALS: [f64; 6] = [0.0, 0.5, 1.0, -1.5, 2.0, 0.1];
/// Rows that a table may have.
pub const POOL: usize = 7;

pub fn uuid(table: usize, n: usize) -> String {
    format!("{n:08x}-0000-4000-8000-{table:012x}")
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let json = schema(&mut rng);
        let schema = Schema::from_json(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
        Self { rng, schema, malformed: false }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn table(&mut self) -> usize {
        self.rng.random_range(0..self.schema.tables.len())
    }

    fn atom(&mut self, base: &BaseType, names: &[String]) -> Value {
        if let Some(allowed) = &base.allowed
            && self.chance(90)
        {
            return allowed.atoms().choose(&mut self.rng).unwrap().to_json();
        }
        match base.kind {
            AtomType::Integer => json!(self.rng.random_range(-3..7)),
            AtomType::Real => json!(REALS.choose(&mut self.rng)),
            AtomType::Boolean => json!(self.chance(50)),
            AtomType::String => json!(STRINGS.choose(&mut self.rng)),
            AtomType::Uuid => {
                let table = base.ref_table().and_then(|t| self.schema.table_index(t));
                let table = table.unwrap_or_else(|| self.table());
                let local = format!("t{table}_");
                let name: Vec<&String> = names.iter().filter(|n| n.starts_with(&local)).collect();
                if let Some(n) = name.choose(&mut self.rng).map(|n| n.to_string())
                    && self.chance(50)
                {
                    return json!(["named-uuid", n]);
                }
                json!(["uuid", uuid(table, self.rng.random_range(0..POOL))])
            }
        }
    }

    fn sized(&mut self, ty: &ColumnType, min: u32, max: u32, names: &[String]) -> Value {
        let max = max.min(4);
        let n = if self.chance(95) {
            self.rng.random_range(min.min(max)..=max)
        } else {
            self.rng.random_range(0..=4)
        };
        let mut keys: Vec<Value> = Vec::new();
        for _ in 0..n {
            let k = self.atom(&ty.key, names);
            if !keys.contains(&k) || self.chance(2) {
                keys.push(k);
            }
        }
        if let Some(value) = &ty.value {
            let pairs: Vec<Value> = keys.into_iter().map(|k| json!([k, self.atom(value, names)])).collect();
            return json!(["map", pairs]);
        }
        match keys.pop() {
            Some(k) if keys.is_empty() && self.chance(80) => k,
            last => json!(["set", keys.into_iter().chain(last).collect::<Vec<_>>()]),
        }
    }

    pub fn value(&mut self, ty: &ColumnType, names: &[String]) -> Value {
        self.sized(ty, ty.min, ty.max, names)
    }

    fn column(&mut self, t: &TableSchema) -> usize {
        if self.chance(3) { 0 } else { self.rng.random_range(2..t.columns.len()) }
    }

    fn row(&mut self, t: &TableSchema, names: &[String]) -> Value {
        let mut o = Map::new();
        for _ in 0..self.rng.random_range(0..4) {
            let c = self.rng.random_range(2..t.columns.len());
            let c = &t.columns[c];
            o.insert(c.name.to_string(), self.value(&c.ty, names));
        }
        // Columns whose default their own type forbids have to be given.
        for c in &t.columns[2..] {
            if c.default.check(&c.ty).is_err() && self.chance(90) {
                o.insert(c.name.to_string(), self.value(&c.ty, names));
            }
        }
        Value::Object(o)
    }

    pub fn clauses(&mut self, t: &TableSchema, names: &[String], most: usize) -> Value {
        let n = self.rng.random_range(0..=most);
        let clause = |s: &mut Self| {
            if s.chance(3) {
                return json!(s.chance(70));
            }
            let c = s.column(t);
            let c = &t.columns[c];
            let number = matches!(c.ty.key.kind, AtomType::Integer | AtomType::Real) && c.ty.max == 1;
            let mut functions = vec!["==", "!=", "includes", "excludes"];
            if number || s.chance(2) {
                functions.extend(["<", "<=", ">", ">="]);
            }
            let f = *functions.choose(&mut s.rng).unwrap();
            let min = if f.contains("cludes") && !c.ty.is_scalar() { 0 } else { c.ty.min };
            json!([&*c.name, f, s.sized(&c.ty, min, c.ty.max, names)])
        };
        (0..n).map(|_| clause(self)).collect()
    }

    fn mutation(&mut self, t: &TableSchema, names: &[String]) -> Value {
        let c = self.column(t);
        let c = &t.columns[c];
        let number = matches!(c.ty.key.kind, AtomType::Integer | AtomType::Real);
        if number && c.ty.value.is_none() && self.chance(60) {
            let m = *["+=", "-=", "*=", "/=", "%="].choose(&mut self.rng).unwrap();
            return json!([&*c.name, m, self.atom(&BaseType::from(c.ty.key.kind), names)]);
        }
        let m = if self.chance(50) { "insert" } else { "delete" };
        let ty = if m == "delete" && c.ty.is_map() && self.chance(50) {
            ColumnType { value: None, ..c.ty.clone() }
        } else {
            c.ty.clone()
        };
        json!([&*c.name, m, self.sized(&ty, 0, ty.max, names)])
    }

    fn columns(&mut self, t: &TableSchema) -> Value {
        let all = t.columns.iter().filter(|c| &*c.name != "_version");
        let names: Vec<Value> = all.map(|c| json!(&*c.name)).collect();
        names.into_iter().filter(|_| self.chance(60)).collect()
    }

    /// A transaction's operations.
    pub fn transaction(&mut self) -> Vec<Value> {
        let n = self.rng.random_range(1..6);
        let mut plan: Vec<(usize, String)> = Vec::new();
        for i in 0..n {
            let t = self.table();
            plan.push((t, if self.chance(50) { format!("t{t}_{i}") } else { String::new() }));
        }
        // A name that is used before its insert has a UUID at random until then.
        let mut names: Vec<String> = Vec::new();
        let mut ops: Vec<Value> = Vec::new();
        for (t, name) in plan {
            let insert = if name.is_empty() { None } else { Some(name) };
            names.extend(insert.clone());
            let op = self.operation(t, insert, &names);
            ops.push(op);
        }
        if self.malformed && self.chance(30) {
            let i = self.rng.random_range(0..ops.len());
            let kept = ["uuid", "uuid-name"].map(|n| (n, ops[i].get(n).cloned()));
            self.spoil(&mut ops[i]);
            // A UUID that the server chooses would be another one each time.
            for (name, value) in kept {
                if let (Some(o), Some(v)) = (ops[i].as_object_mut(), value) {
                    o.insert(name.into(), v);
                }
            }
        }
        ops
    }

    fn operation(&mut self, table: usize, insert: Option<String>, names: &[String]) -> Value {
        let t = self.schema.tables[table].clone();
        let name = &*t.name;
        if let Some(n) = insert {
            let u = uuid(table, self.rng.random_range(0..POOL));
            return json!({"op": "insert", "table": name, "uuid": u, "uuid-name": n, "row": self.row(&t, names)});
        }
        match self.rng.random_range(0..20) {
            0..5 => {
                let clauses = self.clauses(&t, names, 1);
                json!({"op": "update", "table": name, "where": clauses, "row": self.row(&t, names)})
            }
            5..10 => {
                let clauses = self.clauses(&t, names, 1);
                let n = self.rng.random_range(1..3);
                let mutations: Vec<_> = (0..n).map(|_| self.mutation(&t, names)).collect();
                json!({"op": "mutate", "table": name, "where": clauses, "mutations": mutations})
            }
            10..13 => json!({"op": "delete", "table": name, "where": self.clauses(&t, names, 2)}),
            13..17 => {
                let clauses = self.clauses(&t, names, 2);
                json!({"op": "select", "table": name, "where": clauses, "columns": self.columns(&t)})
            }
            17 => {
                let clauses = self.clauses(&t, names, 1);
                let until = if self.chance(30) { "==" } else { "!=" };
                let rows: Vec<_> = (0..self.rng.random_range(0..3)).map(|_| self.row(&t, names)).collect();
                json!({"op": "wait", "table": name, "where": clauses, "columns": self.columns(&t), "until": until,
                       "rows": rows, "timeout": 0})
            }
            18 => json!({"op": "comment", "comment": STRINGS.choose(&mut self.rng)}),
            _ if self.chance(20) => json!({"op": "abort"}),
            _ => json!({"op": "commit", "durable": self.chance(10)}),
        }
    }

    fn junk(&mut self) -> Value {
        [
            json!(null),
            json!(true),
            json!(-1),
            json!(0.5),
            json!("x y"),
            json!("0"),
            json!([]),
            json!({}),
            json!(["set", [1, 1]]),
            json!(["set", [1, "x"]]),
            json!(["map", [["a", "b"]]]),
            json!(["map", [1]]),
            json!(["uuid", "x"]),
            json!([["a"], "==", 1]),
            json!({"a": ["b"]}),
        ]
        .choose(&mut self.rng)
        .unwrap()
        .clone()
    }

    /// Makes something in it wrong.
    fn spoil(&mut self, v: &mut Value) {
        let junk = self.junk();
        let deeper = self.chance(60);
        match v {
            Value::Object(o) if !o.is_empty() => {
                let at = self.rng.random_range(0..o.len());
                let key = o.keys().nth(at).unwrap().clone();
                match self.rng.random_range(0..4) {
                    0 => drop(o.remove(&key)),
                    1 => drop(o.insert("extra".into(), junk)),
                    _ if deeper => self.spoil(&mut o[&key]),
                    _ => o[&key] = junk,
                }
            }
            Value::Array(a) if !a.is_empty() => {
                let at = self.rng.random_range(0..a.len());
                match self.rng.random_range(0..4) {
                    0 => drop(a.remove(at)),
                    1 => a.push(junk),
                    _ if deeper => self.spoil(&mut a[at]),
                    _ => a[at] = junk,
                }
            }
            other => *other = junk,
        }
    }
}

fn base(rng: &mut StdRng, tables: usize) -> Value {
    match rng.random_range(0..14) {
        0 | 1 => json!("integer"),
        2 => {
            json!({"type": "integer", "minInteger": rng.random_range(-2..1), "maxInteger": rng.random_range(3..6)})
        }
        3 => json!("real"),
        4 => json!({"type": "real", "maxReal": 1.5}),
        5 => json!("boolean"),
        6 => json!("string"),
        7 => json!({"type": "string", "maxLength": 2}),
        8 => json!({"type": "string", "enum": ["set", ["", "a", "b"]]}),
        9 => json!({"type": "integer", "enum": ["set", [0, 1, 3]]}),
        10 => json!("uuid"),
        n => {
            let kind = if n == 11 { "weak" } else { "strong" };
            json!({"type": "uuid", "refTable": format!("t{}", rng.random_range(0..tables)), "refType": kind})
        }
    }
}

fn column_type(rng: &mut StdRng, tables: usize) -> Value {
    let key = base(rng, tables);
    // Not both: when a weak key goes with its row, Open vSwitch 3.1 keeps counting the strong value of the pair, and
    // later refuses to delete a row that nothing refers to.
    let mut value = base(rng, tables);
    while !key["refTable"].is_null() && !value["refTable"].is_null() {
        value = base(rng, tables);
    }
    match rng.random_range(0..8) {
        0..3 if key["refTable"].is_null() => json!({"key": key}),
        3 => json!({"key": key, "min": 0, "max": 1}),
        4 => json!({"key": key, "value": value, "min": 0, "max": "unlimited"}),
        5 => json!({"key": key, "value": value, "min": 0, "max": 2}),
        6 => json!({"key": key, "min": 0, "max": rng.random_range(2..4)}),
        7 if key["refTable"].is_null() => json!({"key": key, "min": 1, "max": 2}),
        _ => json!({"key": key, "min": 0, "max": "unlimited"}),
    }
}

fn schema(rng: &mut StdRng) -> Value {
    let tables = rng.random_range(2..5);
    let mut all = Map::new();
    for t in 0..tables {
        let n = rng.random_range(2..7);
        let mut columns = Map::new();
        for c in 0..n {
            let mut column = json!({"type": column_type(rng, tables)});
            match rng.random_range(0..12) {
                0 => column["mutable"] = json!(false),
                1 => column["ephemeral"] = json!(true),
                _ => {}
            }
            columns.insert(format!("c{c}"), column);
        }
        let mut table = json!({"isRoot": rng.random_range(0..3) > 0, "columns": columns});
        if rng.random_range(0..6) == 0 {
            table["maxRows"] = json!(rng.random_range(1..4));
        }
        if rng.random_range(0..2) == 0 {
            // No reals: in Open vSwitch 3.1 the index tells 0 from -0, which its division makes.
            let lasting = |c: &usize| {
                let column = &table["columns"][format!("c{c}")];
                column["ephemeral"].is_null() && !column["type"].to_string().contains("real")
            };
            let kept: Vec<usize> = (0..n).filter(lasting).collect();
            if let Some(c) = kept.choose(rng) {
                let mut index = vec![json!(format!("c{c}"))];
                if let Some(d) = kept.choose(rng).filter(|d| *d != c) {
                    index.push(json!(format!("c{d}")));
                }
                table["indexes"] = json!([index]);
            }
        }
        all.insert(format!("t{t}"), table);
    }
    json!({"name": "db", "version": "1.0.0", "tables": all})
}

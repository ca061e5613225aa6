//! A compiled mapping and its evaluation, which is total: whatever the record holds, there is an answer.

use std::borrow::Cow;
use std::sync::Arc;

use windfall_schemas::asset::{FieldType, FieldValue};

use crate::identity::{self, Identity, Rules};
use crate::mapping::format::Format;
use crate::mapping::lookup::Table;
use crate::mapping::parse::Take;
use crate::mapping::source::{Row, SourceTable};
use crate::value::Value;

/// A mapping, checked against its source and its collection, ready to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The mapping's name.
    pub name: String,
    /// Name of the mapping, and a hash of it and of its collection, as `__mapping` holds it.
    pub version: String,
    /// The source table that the mapping reads.
    pub table: Arc<SourceTable>,
    pub(crate) conditions: Vec<Test>,
    pub(crate) fields: Fields,
    pub(crate) identity: Arc<Rules>,
}

/// One expression for each field of the collection, in its order; a field that the mapping leaves out is `Const(Null)`.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    expressions: Vec<Expr>,
    /// For each expression the source field that it takes over unchanged, unless a later expression takes the same field. Most
    /// expressions do so, and such a value is moved instead of copied.
    moved: Vec<Option<usize>>,
}

impl Fields {
    pub(crate) fn new(expressions: Vec<Expr>) -> Self {
        let plain = |expression: &Expr| match expression {
            Expr::Field(field) => Some(*field),
            _ => None,
        };
        let last = |(place, expression): (usize, &Expr)| {
            plain(expression).filter(|field| expressions[place + 1..].iter().all(|other| plain(other) != Some(*field)))
        };
        let moved = expressions.iter().enumerate().map(last).collect();
        Self { expressions, moved }
    }

    fn evaluate(&self, mut row: Row) -> Vec<FieldValue> {
        let compute = |(expression, moved): (&Expr, &Option<usize>)| match moved {
            Some(_) => FieldValue::Null,
            None => expression.evaluate(&row).into_owned().into_field(),
        };
        let mut values: Vec<FieldValue> = self.expressions.iter().zip(&self.moved).map(compute).collect();
        // Values are moved last, when nothing reads the row any more.
        for (value, moved) in values.iter_mut().zip(&self.moved) {
            if let Some(field) = moved {
                *value = row.take(*field).into_field();
            }
        }
        values
    }
}

/// What a mapping makes of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    /// A value for each field of the collection, in its order.
    pub values: Vec<FieldValue>,
    /// The asset that the record speaks of; `None` when it has no identifier that can be used.
    pub identity: Option<Identity>,
    /// Whether the source has let the device go.
    pub released: bool,
}

impl Program {
    /// Maps a record; `None` when `where` leaves it out.
    #[must_use]
    pub fn evaluate(&self, row: Row) -> Option<Mapped> {
        if !self.conditions.iter().all(|test| test.holds(&row)) {
            return None;
        }
        let released = self.table.released(&row);
        let mut values = self.fields.evaluate(row);
        let identity = identity::identify(&self.identity, &mut values);
        Some(Mapped { values, identity, released })
    }
}

/// A condition on one source field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Test {
    pub(crate) field: usize,
    pub(crate) any_of: Vec<Value>,
}

impl Test {
    fn holds(&self, row: &Row) -> bool {
        match row.value(self.field) {
            Value::List(items) => self.any_of.iter().any(|wanted| match wanted {
                Value::Text(text) => items.contains(text),
                _ => false,
            }),
            value => self.any_of.contains(value),
        }
    }
}

/// How one value comes about.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Field(usize),
    Const(Value),
    Take(Box<Expr>, Take),
    Lookup(Box<Expr>, Arc<Table>),
    Format(Box<Expr>, Format),
    Convert(Box<Expr>, FieldType),
    Coalesce(Vec<Expr>),
    Template(Vec<TemplatePart>),
    When { only_if: Vec<Test>, unless: Vec<Test>, then: Box<Expr> },
    Default(Box<Expr>, Value),
}

/// A piece of a template.
#[derive(Debug, Clone)]
pub(crate) enum TemplatePart {
    Text(String),
    Field(usize),
}

/// What stands between the items of a list that `take: join` makes one text of.
pub(crate) const JOINED_BY: &str = ", ";

impl Expr {
    pub(crate) fn evaluate<'a>(&'a self, row: &'a Row) -> Cow<'a, Value> {
        const NOTHING: Cow<'_, Value> = Cow::Owned(Value::Null);
        match self {
            Self::Field(field) => Cow::Borrowed(row.value(*field)),
            Self::Const(value) => Cow::Borrowed(value),
            Self::Take(list, take) => Cow::Owned(taken(&list.evaluate(row), *take)),
            Self::Lookup(key, table) => match &*key.evaluate(row) {
                Value::Text(key) => Cow::Owned(table.get(key).map_or(Value::Null, Value::text)),
                _ => NOTHING,
            },
            Self::Format(value, format) => Cow::Owned(format.apply(value.evaluate(row).into_owned())),
            Self::Convert(value, kind) => converted(value.evaluate(row), *kind),
            Self::Coalesce(operands) => {
                operands.iter().map(|operand| operand.evaluate(row)).find(|value| !value.is_null()).unwrap_or(NOTHING)
            }
            Self::Template(parts) => Cow::Owned(template(parts, row)),
            Self::When { only_if, unless, then } => {
                let excluded = !unless.is_empty() && unless.iter().all(|test| test.holds(row));
                if excluded || !only_if.iter().all(|test| test.holds(row)) { NOTHING } else { then.evaluate(row) }
            }
            Self::Default(value, default) => match value.evaluate(row) {
                value if value.is_null() => Cow::Borrowed(default),
                value => value,
            },
        }
    }
}

fn taken(value: &Value, take: Take) -> Value {
    let Value::List(items) = value else { return Value::Null };
    let item = match take {
        Take::First => items.first().cloned(),
        Take::Last => items.last().cloned(),
        Take::Nth(place) => place.checked_sub(1).and_then(|index| items.get(index)).cloned(),
        Take::Join => Some(items.join(JOINED_BY)),
    };
    item.map_or(Value::Null, Value::Text)
}

fn converted(value: Cow<'_, Value>, kind: FieldType) -> Cow<'_, Value> {
    match (kind, &*value) {
        // Whole numbers beyond 2^53 lose digits as decimals; that is what the collection asked for.
        #[allow(clippy::cast_precision_loss)]
        (FieldType::Decimal, Value::Integer(number)) => Cow::Owned(Value::Decimal(*number as f64)),
        (FieldType::String, Value::Null | Value::Text(_)) => value,
        (FieldType::String, other) => Cow::Owned(Value::text(&other.to_text())),
        _ => value,
    }
}

/// A template is empty if one of its fields is: half a label misleads.
fn template(parts: &[TemplatePart], row: &Row) -> Value {
    let mut text = String::new();
    for part in parts {
        match part {
            TemplatePart::Text(piece) => text.push_str(piece),
            TemplatePart::Field(field) => match row.value(*field) {
                Value::Null => return Value::Null,
                value => text.push_str(&value.to_text()),
            },
        }
    }
    Value::text(&text)
}

//! Dynamic mapping's arithmetic: how many instances a mapping makes, and what each of them is given (SEMANTICS 15).
//!
//! Knows lists, tables and indexes. Where an XCom comes from, and what a template makes of an element, is asked of a [`Source`];
//! of a pushed value's length alone, [`length`] needs no more. Called by the parser, by the scheduler and by the workers.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::model::Template;
use crate::model::mapping::{Form, Input, Mapping, XcomInput};

/// What elements are read from.
pub trait Source {
    type Error: From<Fault>;

    /// What the task has pushed; of a mapped one the list of what its instances have.
    ///
    /// # Errors
    /// It has pushed nothing, or cannot be asked.
    fn xcom(&mut self, input: &XcomInput) -> Result<Arc<Value>, Self::Error>;

    /// What `map` makes of an element.
    ///
    /// # Errors
    /// The template fails on it.
    fn map(&mut self, template: &Template, element: Value) -> Result<Value, Self::Error>;

    /// Whether `filter` lets an element pass.
    ///
    /// # Errors
    /// The template fails on it.
    fn passes(&mut self, template: &Template, element: &Value) -> Result<bool, Self::Error>;

    /// `filter` has refused the element.
    fn refused(&mut self) -> Self::Error;
}

/// A value that cannot be mapped over, or not so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is neither a list nor a table. What it is instead.
    NotMappable(&'static str),
    /// `zip` or `concat` over a table: its elements have no order that Airflow would know.
    TableIn(&'static str),
    /// An element of `expand_kwargs` is no table. Its place, and what it is instead.
    NoTable { at: u64, found: &'static str },
    /// The value has become shorter since its length was recorded.
    Beyond { at: u64, length: u64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMappable(found) => write!(f, "only a list or a table can be mapped over, and this is {found}"),
            Self::TableIn(form) => write!(f, "`{form}` takes lists, and one of its inputs is a table"),
            Self::NoTable { at, found } => {
                write!(f, "each element of expand_kwargs must be a table, and element {at} is {found}")
            }
            Self::Beyond { at, length } => {
                write!(f, "there is no element {at} any longer: the value to map over now has {length}")
            }
        }
    }
}

impl std::error::Error for Fault {}

/// What a JSON value is, for messages: `a text`.
pub const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// How many elements a value has; None: it cannot be mapped over.
pub fn elements(value: &Value) -> Option<u64> {
    match value {
        Value::Array(items) => Some(items.len() as u64),
        Value::Object(pairs) => Some(pairs.len() as u64),
        _ => None,
    }
}

/// How many instances the mapping makes of one, by the lengths of what was pushed; None: one of them is not known.
pub fn length(mapping: &Mapping, pushed: &mut impl FnMut(&XcomInput) -> Option<u64>) -> Option<u64> {
    match &mapping.form {
        Form::Product(inputs) => {
            inputs.iter().try_fold(1_u64, |product, (_, input)| Some(product.saturating_mul(length_of(input, pushed)?)))
        }
        Form::Kwargs(input) => length_of(input, pushed),
    }
}

fn length_of(input: &Input, pushed: &mut impl FnMut(&XcomInput) -> Option<u64>) -> Option<u64> {
    match input {
        Input::Literal(value) => elements(value),
        Input::Xcom(xcom) => pushed(xcom),
        Input::Zip { inputs, fillvalue } => {
            let lengths = lengths_of(inputs, pushed)?;
            if fillvalue.is_some() { lengths.into_iter().max() } else { lengths.into_iter().min() }
        }
        Input::Concat(inputs) => Some(lengths_of(inputs, pushed)?.into_iter().fold(0, u64::saturating_add)),
        Input::Each { input, .. } => length_of(input, pushed),
    }
}

fn lengths_of(inputs: &[Input], pushed: &mut impl FnMut(&XcomInput) -> Option<u64>) -> Option<Vec<u64>> {
    inputs.iter().map(|input| length_of(input, pushed)).collect()
}

/// Whether what stands in the file itself can be mapped over.
///
/// # Errors
/// The first of its literal values that cannot.
pub fn check(mapping: &Mapping) -> Result<(), Fault> {
    match &mapping.form {
        Form::Product(inputs) => inputs.iter().try_for_each(|(_, input)| check_input(input)),
        Form::Kwargs(input) => {
            check_input(input)?;
            match input {
                Input::Literal(Value::Array(items)) => {
                    (0..).zip(items).try_for_each(|(at, item)| as_table(at, item).map(|_| ()))
                }
                Input::Literal(Value::Object(pairs)) if !pairs.is_empty() => {
                    Err(Fault::NoTable { at: 0, found: "a pair of key and value" })
                }
                _ => Ok(()),
            }
        }
    }
}

fn check_input(input: &Input) -> Result<(), Fault> {
    match input {
        Input::Literal(value) => elements(value).map(|_| ()).ok_or(Fault::NotMappable(kind_of(value))),
        Input::Xcom(_) => Ok(()),
        Input::Zip { inputs, .. } => check_lists(inputs, "zip"),
        Input::Concat(inputs) => check_lists(inputs, "concat"),
        Input::Each { input, .. } => check_input(input),
    }
}

fn check_lists(inputs: &[Input], form: &'static str) -> Result<(), Fault> {
    if inputs.iter().any(|input| matches!(input, Input::Literal(Value::Object(_)))) {
        return Err(Fault::TableIn(form));
    }
    inputs.iter().try_for_each(check_input)
}

fn as_table(at: u64, element: &Value) -> Result<&Map<String, Value>, Fault> {
    element.as_object().ok_or(Fault::NoTable { at, found: kind_of(element) })
}

/// The place in each of several lengths that `index` stands for; the last varies fastest. None: it is beyond their product.
pub fn places(index: u64, lengths: &[u64]) -> Option<Vec<u64>> {
    let mut rest = index;
    let mut places = vec![0; lengths.len()];
    for (place, &length) in places.iter_mut().zip(lengths).rev() {
        *place = rest.checked_rem(length)?;
        rest /= length;
    }
    (rest == 0).then_some(places)
}

/// The names that element `at` of the mapping gives, without `partial`, in the order of the file.
///
/// # Errors
/// What the source says, or a value that cannot be mapped over.
pub fn names<S: Source>(mapping: &Mapping, at: u64, source: &mut S) -> Result<Map<String, Value>, S::Error> {
    match &mapping.form {
        Form::Product(inputs) => {
            let lengths =
                inputs.iter().map(|(_, input)| found_length(input, source)).collect::<Result<Vec<_>, S::Error>>()?;
            let product = lengths.iter().fold(1_u64, |product, &length| product.saturating_mul(length));
            let places = places(at, &lengths).ok_or(Fault::Beyond { at, length: product })?;
            let mut names = Map::new();
            for ((name, input), place) in inputs.iter().zip(places) {
                names.insert(name.clone(), element(input, place, source)?);
            }
            Ok(names)
        }
        Form::Kwargs(input) => match element(input, at, source)? {
            Value::Object(names) => Ok(names),
            other => Err(Fault::NoTable { at, found: kind_of(&other) }.into()),
        },
    }
}

/// The length of the value that there is now.
///
/// # Errors
/// As of [`names`].
pub fn found<S: Source>(mapping: &Mapping, source: &mut S) -> Result<u64, S::Error> {
    match &mapping.form {
        Form::Product(inputs) => inputs
            .iter()
            .try_fold(1_u64, |product, (_, input)| Ok(product.saturating_mul(found_length(input, source)?))),
        Form::Kwargs(input) => found_length(input, source),
    }
}

fn found_length<S: Source>(input: &Input, source: &mut S) -> Result<u64, S::Error> {
    let of_value = |value: &Value| elements(value).ok_or(Fault::NotMappable(kind_of(value)));
    match input {
        Input::Literal(value) => Ok(of_value(value)?),
        Input::Xcom(xcom) => Ok(of_value(&*source.xcom(xcom)?)?),
        Input::Zip { inputs, fillvalue } => {
            let lengths = found_lengths(inputs, "zip", source)?.into_iter();
            Ok(if fillvalue.is_some() { lengths.max() } else { lengths.min() }.unwrap_or(0))
        }
        Input::Concat(inputs) => Ok(found_lengths(inputs, "concat", source)?.into_iter().fold(0, u64::saturating_add)),
        Input::Each { input, .. } => found_length(input, source),
    }
}

fn found_lengths<S: Source>(inputs: &[Input], form: &'static str, source: &mut S) -> Result<Vec<u64>, S::Error> {
    check_lists(inputs, form)?;
    let mut lengths = Vec::with_capacity(inputs.len());
    for input in inputs {
        if let Input::Xcom(xcom) = input
            && source.xcom(xcom)?.is_object()
        {
            return Err(Fault::TableIn(form).into());
        }
        lengths.push(found_length(input, source)?);
    }
    Ok(lengths)
}

fn element<S: Source>(input: &Input, at: u64, source: &mut S) -> Result<Value, S::Error> {
    match input {
        Input::Literal(value) => Ok(element_of(value, at)?),
        Input::Xcom(xcom) => Ok(element_of(&*source.xcom(xcom)?, at)?),
        Input::Zip { inputs, fillvalue } => {
            let lengths = found_lengths(inputs, "zip", source)?;
            let mut tuple = Vec::with_capacity(inputs.len());
            for (input, length) in inputs.iter().zip(lengths) {
                tuple.push(match fillvalue {
                    Some(fill) if at >= length => fill.clone(),
                    _ => element(input, at, source)?,
                });
            }
            Ok(Value::Array(tuple))
        }
        Input::Concat(inputs) => {
            let mut rest = at;
            let lengths = found_lengths(inputs, "concat", source)?;
            let length = lengths.iter().fold(0_u64, |sum, &length| sum.saturating_add(length));
            for (input, length) in inputs.iter().zip(lengths) {
                if rest < length {
                    return element(input, rest, source);
                }
                rest -= length;
            }
            Err(Fault::Beyond { at, length }.into())
        }
        Input::Each { input, map, filter } => {
            let item = element(input, at, source)?;
            if let Some(filter) = filter
                && !source.passes(filter, &item)?
            {
                return Err(source.refused());
            }
            map.as_ref().map_or_else(|| Ok(item.clone()), |map| source.map(map, item.clone()))
        }
    }
}

/// An element of a list, or a pair of a table as `[key, value]`.
fn element_of(value: &Value, at: u64) -> Result<Value, Fault> {
    let place = usize::try_from(at).unwrap_or(usize::MAX);
    let found = match value {
        Value::Array(items) => items.get(place).cloned(),
        Value::Object(pairs) => pairs.iter().nth(place).map(|(key, value)| json!([key, value])),
        other => return Err(Fault::NotMappable(kind_of(other))),
    };
    found.ok_or(Fault::Beyond { at, length: elements(value).unwrap_or(0) })
}

/// What `filter` says by a value: Python's rule; a text that templates print of a false value is false.
pub fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.trim(), "" | "0" | "False" | "false" | "None" | "null" | "[]" | "{}"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(pairs) => !pairs.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskIx;
    use crate::model::dag::Position;

    /// XComs by task; `map` appends to a text, `filter` lets true values pass.
    struct Table(Vec<Value>);

    #[derive(Debug, PartialEq)]
    enum Failure {
        Fault(Fault),
        Refused,
    }

    impl From<Fault> for Failure {
        fn from(fault: Fault) -> Self {
            Self::Fault(fault)
        }
    }

    impl Source for Table {
        type Error = Failure;

        fn xcom(&mut self, input: &XcomInput) -> Result<Arc<Value>, Failure> {
            Ok(Arc::new(self.0[input.task.index()].clone()))
        }

        fn map(&mut self, template: &Template, element: Value) -> Result<Value, Failure> {
            Ok(Value::String(format!("{element}{}", template.text)))
        }

        fn passes(&mut self, _: &Template, element: &Value) -> Result<bool, Failure> {
            Ok(*element != Value::Null)
        }

        fn refused(&mut self) -> Failure {
            Failure::Refused
        }
    }

    fn of(form: Form) -> Mapping {
        Mapping { form, partial: Map::new(), at: Position::default() }
    }

    fn over(input: Input) -> Mapping {
        of(Form::Product(vec![("x".to_owned(), input)]))
    }

    fn xcom(task: u32) -> Input {
        Input::Xcom(XcomInput { task: TaskIx(task), key: "return_value".to_owned() })
    }

    fn all(mapping: &Mapping, source: &mut Table) -> Vec<Value> {
        let count = found(mapping, source).unwrap();
        (0..count).map(|at| Value::Object(names(mapping, at, source).unwrap())).collect()
    }

    #[test]
    fn the_last_name_of_a_product_varies_fastest_and_a_table_gives_pairs() {
        let inputs = vec![("b".to_owned(), Input::Literal(json!({"k": 1, "l": 2}))), ("a".to_owned(), xcom(0))];
        let mapping = of(Form::Product(inputs));
        let mut source = Table(vec![json!([true, null])]);
        let expected = [
            json!({"b": ["k", 1], "a": true}),
            json!({"b": ["k", 1], "a": null}),
            json!({"b": ["l", 2], "a": true}),
            json!({"b": ["l", 2], "a": null}),
        ];
        assert_eq!(all(&mapping, &mut source), expected);
        assert_eq!(length(&mapping, &mut |_| Some(2)), Some(4));
        assert_eq!(length(&mapping, &mut |_| None), None);
        let beyond = Failure::Fault(Fault::Beyond { at: 4, length: 4 });
        assert_eq!(names(&mapping, 4, &mut source), Err(beyond));
    }

    #[test]
    fn zip_is_as_long_as_its_shortest_input_or_filled_up_as_its_longest() {
        let inputs = || vec![Input::Literal(json!([1, 2, 3])), xcom(0)];
        let mut source = Table(vec![json!(["a"])]);
        let short = over(Input::Zip { inputs: inputs(), fillvalue: None });
        assert_eq!(all(&short, &mut source), [json!({"x": [1, "a"]})]);
        let filled = over(Input::Zip { inputs: inputs(), fillvalue: Some(Value::Null) });
        assert_eq!(all(&filled, &mut source)[2], json!({"x": [3, null]}));
        assert_eq!(length(&filled, &mut |_| Some(1)), Some(3));
    }

    #[test]
    fn zip_and_concat_refuse_tables_wherever_they_come_from() {
        let literal = over(Input::Concat(vec![Input::Literal(json!({"a": 1})), xcom(0)]));
        assert_eq!(check(&literal), Err(Fault::TableIn("concat")));
        let pushed = over(Input::Zip { inputs: vec![xcom(0)], fillvalue: None });
        assert_eq!(check(&pushed), Ok(()));
        let mut source = Table(vec![json!({"a": 1})]);
        assert_eq!(names(&pushed, 0, &mut source), Err(Failure::Fault(Fault::TableIn("zip"))));
    }

    #[test]
    fn an_element_is_mapped_and_filtered_by_itself_and_the_length_stays() {
        let suffix = Some(Template { text: "!".to_owned(), at: Position::default() });
        let each = Input::Each { input: Box::new(xcom(0)), map: suffix.clone(), filter: suffix };
        let mapping = over(Input::Concat(vec![each, Input::Literal(json!([7]))]));
        let mut source = Table(vec![json!([1, null])]);
        assert_eq!(found(&mapping, &mut source), Ok(3));
        assert_eq!(names(&mapping, 0, &mut source).unwrap()["x"], "1!");
        assert_eq!(names(&mapping, 1, &mut source), Err(Failure::Refused));
        assert_eq!(names(&mapping, 2, &mut source).unwrap()["x"], 7);
    }

    #[test]
    fn expand_kwargs_wants_tables() {
        let literal = of(Form::Kwargs(Input::Literal(json!([{"a": 1}, 2]))));
        let fault = Fault::NoTable { at: 1, found: "a number" };
        assert_eq!(check(&literal), Err(fault.clone()));
        let mut source = Table(vec![]);
        assert_eq!(Value::Object(names(&literal, 0, &mut source).unwrap()), json!({"a": 1}));
        assert_eq!(names(&literal, 1, &mut source), Err(Failure::Fault(fault)));
    }

    #[test]
    fn what_is_neither_list_nor_table_cannot_be_mapped_over() {
        assert_eq!(check(&over(Input::Literal(json!("abc")))), Err(Fault::NotMappable("a text")));
        let mut source = Table(vec![json!("abc")]);
        assert_eq!(found(&over(xcom(0)), &mut source), Err(Failure::Fault(Fault::NotMappable("a text"))));
    }

    #[test]
    fn lengths_beyond_all_numbers_do_not_wrap_around() {
        let many = of(Form::Product(vec![("a".to_owned(), xcom(0)), ("b".to_owned(), xcom(0))]));
        assert_eq!(length(&many, &mut |_| Some(u64::MAX)), Some(u64::MAX));
        assert_eq!(places(5, &[2, 0]), None);
        assert_eq!(places(5, &[2, 3]), Some(vec![1, 2]));
    }
}

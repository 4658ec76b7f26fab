//! What one instance of a mapped task is given, and what tasks owe to those that are mapped over them (SEMANTICS 15).
//!
//! Resolves a mapping at the start of a try: the values that were pushed, the element of the instance, what `map` and `filter` make
//! of it. Called by the workers and by `tasks render`. How many instances there are is not decided here.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::executor::output::RETURN_VALUE;
use crate::mapping::{self, Fault, Source};
use crate::model::{Dag, Mapping, RunKey, TaskIx, Template, XcomInput};
use crate::scheduler::event::{Outcome, TryEnd};
use crate::template::{self, Context};

/// How many values are kept: those of the maps that run at once, mostly.
const KEPT: usize = 4;
/// The longest name of an instance, in characters (Airflow: the column's width).
const MAX_NAME: usize = 250;
/// How much of an element is shown, in characters.
const MAX_SHOWN: usize = 80;

/// As much of it as a reason has room for.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Whose value it is; `epoch` tells those of one push from those of a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    run: RunKey,
    task: TaskIx,
    key: String,
    epoch: u64,
}

/// Values that were pushed, parsed: a hundred thousand instances must not parse the same megabyte each.
#[derive(Debug, Default)]
pub struct Values(Mutex<VecDeque<(Origin, Arc<Value>)>>);

impl Values {
    fn get(&self, origin: &Origin) -> Option<Arc<Value>> {
        self.0.lock().iter().find(|(known, _)| known == origin).map(|(_, value)| value.clone())
    }

    fn keep(&self, origin: Origin, value: Arc<Value>) {
        let mut values = self.0.lock();
        // A value that was pushed before another is asked for by nobody any longer.
        values.retain(|(known, _)| (known.run, known.task, &known.key) != (origin.run, origin.task, &origin.key));
        values.truncate(KEPT - 1);
        values.push_front((origin, value));
    }
}

/// Why an instance has no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A `filter` refuses its element: it is skipped.
    Refused,
    Fault(String),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault.to_string())
    }
}

/// One mapping of an instance, and the names that it has from those around.
struct Elements<'c> {
    context: &'c Context,
    values: &'c Values,
    epoch: u64,
    given: &'c Map<String, Value>,
    at: u64,
}

impl Elements<'_> {
    fn context_of(&self, element: &Value) -> Context {
        let mut variables = self.given.clone();
        variables.insert("item".to_owned(), element.clone());
        Context { variables: Arc::new(variables), ..self.context.clone() }
    }

    fn failed(&self, what: &str, element: &Value, error: &template::TemplateError) -> Stop {
        let shown = shortened(element.to_string());
        Stop::Fault(format!("the `{what}` of its mapping fails on element {}, `{shown}`: {error}", self.at))
    }
}

impl Source for Elements<'_> {
    type Error = Stop;

    fn xcom(&mut self, input: &XcomInput) -> Result<Arc<Value>, Stop> {
        let run = self.context.run.key;
        let origin = Origin { run, task: input.task, key: input.key.clone(), epoch: self.epoch };
        if let Some(value) = self.values.get(&origin) {
            return Ok(value);
        }
        let dag = &self.context.dag;
        let task_id = &dag.task(input.task).task_id;
        // Of a mapped task the list of what its instances have, in the order of their indexes.
        let found = self.context.lookup.xcoms(run, task_id, &input.key).map(template::joined).map_err(Stop::Fault)?;
        let is_mapped = !dag.graph.node(input.task).mappings.is_empty();
        let value = found.or_else(|| is_mapped.then(|| Value::Array(Vec::new()))).ok_or_else(|| {
            Stop::Fault(format!(
                "it is mapped over the XCom `{}` of task `{task_id}`, which is there no longer: clear that task",
                input.key
            ))
        })?;
        let value = Arc::new(value);
        self.values.keep(origin, value.clone());
        Ok(value)
    }

    fn map(&mut self, template: &Template, element: Value) -> Result<Value, Stop> {
        template::native(template, &self.context_of(&element)).map_err(|error| self.failed("map", &element, &error))
    }

    fn passes(&mut self, template: &Template, element: &Value) -> Result<bool, Stop> {
        let value = template::native(template, &self.context_of(element));
        value.map(|value| mapping::is_true(&value)).map_err(|error| self.failed("filter", element, &error))
    }

    fn refused(&mut self) -> Stop {
        Stop::Refused
    }
}

/// The variables that the instance of `context` has by the mappings of its groups and its own, and `item` if the innermost gives
/// one alone. Empty for a task that is not mapped.
///
/// # Errors
/// Its element is refused, or cannot be had.
pub fn variables(context: &Context, values: &Values, epoch: u64) -> Result<Map<String, Value>, Stop> {
    let dag = &context.dag;
    let chain: Vec<&Mapping> =
        dag.graph.node(context.task).mappings.iter().map(|at| &dag.mappings[at.index()]).collect();
    let mut given = Map::new();
    let Ok(index) = u64::try_from(context.map_index) else { return Ok(given) };
    let none = Map::new();
    let lengths = chain
        .iter()
        .map(|mapping| mapping::found(mapping, &mut Elements { context, values, epoch, given: &none, at: index }))
        .collect::<Result<Vec<_>, _>>()?;
    let product = lengths.iter().fold(1_u64, |product, &length| product.saturating_mul(length));
    let places = mapping::places(index, &lengths).ok_or(Fault::Beyond { at: index, length: product })?;
    let mut single = None;
    for (mapping, at) in chain.iter().zip(places) {
        given.extend(mapping.partial.clone());
        let names = mapping::names(mapping, at, &mut Elements { context, values, epoch, given: &given, at })?;
        single = names.values().next().filter(|_| names.len() == 1).cloned();
        given.extend(names);
    }
    if let Some(item) = single.filter(|_| !given.contains_key("item")) {
        given.insert("item".to_owned(), item);
    }
    Ok(given)
}

/// What `map_index_template` gives, at most 250 characters of it.
///
/// # Errors
/// The template fails.
pub fn name(template: &Template, context: &Context) -> Result<Arc<str>, template::TemplateError> {
    let name = template::render(template, context)?;
    Ok(name.chars().take(MAX_NAME).collect::<String>().into())
}

/// The keys of the XComs of `task` that tasks are mapped over, each with the first of these.
fn promised(dag: &Dag, task: TaskIx) -> Vec<(&str, TaskIx)> {
    let mut keys: Vec<(&str, TaskIx)> = Vec::new();
    for other in dag.graph.indexes() {
        for mapping in &dag.graph.node(other).mappings {
            for xcom in dag.mappings[mapping.index()].xcoms() {
                if xcom.task == task && !keys.iter().any(|(key, _)| *key == xcom.key) {
                    keys.push((&xcom.key, other));
                }
            }
        }
    }
    keys
}

/// The lengths of what a try has pushed for those that are mapped over it. One that succeeded without pushing what they need has
/// failed: a list or a table of at most `max_length` elements; of a mapped task its instances are counted, whatever they push.
pub fn measure(dag: &Dag, task: TaskIx, mut end: TryEnd, max_length: u32) -> TryEnd {
    let is_input = |mapping: &Mapping| mapping.xcoms().iter().any(|xcom| xcom.task == task);
    if end.outcome != Outcome::Exited(0) || !dag.mappings.iter().any(is_input) {
        return end;
    }
    let is_mapped = !dag.graph.node(task).mappings.is_empty();
    let mut lengths = Vec::new();
    for (key, by) in promised(dag, task) {
        let value = end.xcoms.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        let length = match value {
            _ if is_mapped => Ok(value.map(|_| 1)),
            value => length_of(value, key, max_length).map(Some),
        };
        match length {
            Ok(length) => lengths.extend(length.map(|length| (key.to_owned(), length))),
            Err(came) => {
                let what = if key == RETURN_VALUE { String::new() } else { format!(" as XCom `{key}`") };
                let by = &dag.task(by).task_id;
                let reason = format!("`{by}` is mapped over what it gives{what}: that must be {came}");
                return TryEnd { outcome: Outcome::Faulted { reason }, xcoms: Vec::new(), decision: None, ..end };
            }
        }
    }
    end.lengths = lengths;
    end
}

/// Else what was expected, and what came.
fn length_of(value: Option<&Value>, key: &str, max_length: u32) -> Result<u32, String> {
    let wanted = "a list or a table";
    let way = match key {
        RETURN_VALUE => "print it as JSON on the last line, with `output = \"json\"`".to_owned(),
        _ => format!("write it to $MINFLOW_XCOM as JSON: `{{\"{key}\": [1, 2]}}`"),
    };
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Err(format!("{wanted}, and it gave nothing; {way}"));
    };
    let length = mapping::elements(value).ok_or_else(|| {
        let shown = shortened(value.to_string());
        format!("{wanted}, and it gave {}, `{shown}`; {way}", mapping::kind_of(value))
    })?;
    u32::try_from(length).ok().filter(|&length| length <= max_length).ok_or_else(|| {
        format!("at most {max_length} elements long, and it gave {length}; give fewer, or raise core.max_map_length")
    })
}

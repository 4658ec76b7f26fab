//! What tasks and groups are mapped over: `expand`, `expand_kwargs` and `partial` (SEMANTICS 15).

use std::ops::Range;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::edges::Relation;
use super::outline::{Member, Outline};
use super::setup::rule_span;
use super::{Reader, json_object, keys};
use crate::keytable::{self, Fields};
use crate::mapping;
use crate::model::graph::{Node, TaskIx};
use crate::model::mapping::{Form, GroupIx, Input, MAX_INSTANCES, Mapping, MappingIx, XcomInput};
use crate::model::state::TriggerRule;

/// The keys of which one says that a table is no table to map over, but tells where the elements are.
const FORMS: [&str; 4] = ["xcom", "zip", "concat", "values"];

/// What an expression of a template cannot be, whatever it is called.
const WORDS: [&str; 18] = [
    "and", "elif", "else", "false", "False", "for", "if", "in", "is", "loop", "none", "None", "not", "or", "self",
    "super", "true", "True",
];

/// Whose mapping is read, and what it comes after.
struct Owner<'o, 'd, 'r> {
    member: Member,
    outline: &'o Outline<'d>,
    relations: &'r mut Vec<Relation>,
}

impl Reader<'_, '_> {
    /// All mappings, those of groups first. The nodes learn what multiplies them; the arrows from the tasks whose XComs are mapped
    /// over are added to `relations`.
    pub(super) fn mappings(
        &mut self,
        outline: &Outline<'_>,
        nodes: &mut [Node],
        relations: &mut Vec<Relation>,
    ) -> Vec<Mapping> {
        let mut found = Vec::new();
        let mut around: Vec<Vec<MappingIx>> = Vec::with_capacity(outline.groups.len());
        for (group, at) in outline.groups.iter().zip(0..) {
            let mut own = group.parent.map_or(Vec::new(), |parent| around[parent.index()].clone());
            let owner = Owner { member: Member::Group(GroupIx(at)), outline, relations: &mut *relations };
            own.extend(self.mapping(owner, &group.fields).map(|mapping| enter(mapping, &mut found)));
            around.push(own);
        }
        for ((task, node), at) in outline.tasks.iter().zip(nodes).zip(0..) {
            node.mappings = task.group.map_or(Vec::new(), |group| around[group.index()].clone());
            let Some(document) = task.document else { continue };
            let owner = Owner { member: Member::Task(TaskIx(at)), outline, relations: &mut *relations };
            let mapping = self.mapping(owner, &Fields::new(&keys::TASK, document));
            node.mappings.extend(mapping.map(|mapping| enter(mapping, &mut found)));
            self.check_mapped(TaskIx(at), node, &found, outline);
        }
        found
    }

    /// What the mapping of the groups around a task and its own come to together.
    fn check_mapped(&mut self, task: TaskIx, node: &Node, mappings: &[Mapping], outline: &Outline<'_>) {
        let task = &outline.tasks[task.index()];
        let mut over = node.mappings.iter().map(|at| &mappings[at.index()]);
        // Airflow refuses it, too: what is mapped is known only when the task that gives the list is over.
        if node.trigger_rule == TriggerRule::Always && over.clone().any(|mapping| !mapping.xcoms().is_empty()) {
            let message = format!(
                "task `{}` has the rule `always`, which would start it before the list is there that it is mapped over",
                task.id
            );
            let help = "use `all_done`, or map over a list that stands in the file";
            self.faults.add(rule_span(task, outline), "bad-trigger-rule", message, help);
        }
        let instances = over
            .try_fold(1_u64, |product, mapping| Some(product.saturating_mul(mapping::length(mapping, &mut |_| None)?)));
        if let Some(instances) = instances.filter(|&instances| instances > MAX_INSTANCES) {
            let message = match instances {
                u64::MAX => format!("task `{}` would have instances beyond all counting", task.id),
                _ => format!(
                    "task `{}` would have {instances} instances, more than the limit of {MAX_INSTANCES}",
                    task.id
                ),
            };
            let help = "map over fewer elements, or let one instance work on several";
            self.faults.add(task.name.clone(), "too-many-instances", message, help);
        }
    }

    /// None if it is not mapped, or not as it can be.
    fn mapping(&mut self, mut owner: Owner<'_, '_, '_>, fields: &Fields<'_>) -> Option<Mapping> {
        let (expand, kwargs) = (fields.entry("expand"), fields.entry("expand_kwargs"));
        if let (Some(_), Some((span, _))) = (&expand, &kwargs) {
            let message = "`expand` and `expand_kwargs` cannot stand together";
            self.faults.add(
                span.clone(),
                "bad-mapping",
                message,
                "keep one; what is always the same goes into `partial`",
            );
        }
        let Some((key, value)) = expand.or(kwargs) else {
            if let Some((span, _)) = fields.entry("partial").filter(|_| !json_object(fields, "partial").is_empty()) {
                let message = "`partial` is for what is mapped, and here is neither `expand` nor `expand_kwargs`";
                let help = "add one of them, or write the values where they are used";
                self.faults.add(span, "bad-mapping", message, help);
            }
            return None;
        };
        for (name, _) in fields.table("partial").into_iter().flatten() {
            self.check_variable(name.get_ref(), name.span());
        }
        let partial = json_object(fields, "partial");
        let form = match fields.table("expand") {
            Some(table) => self.product(table, key.clone(), &partial, &mut owner),
            None if fields.get("expand").is_some() => None,
            None => {
                let input = self.input(value, &mut owner)?;
                self.check_kwargs(value, &partial);
                Some(Form::Kwargs(input))
            }
        };
        let at = self.faults.source.position(key.start);
        Some(Mapping { form: form?, partial, at })
    }

    fn product(
        &mut self,
        table: &DeTable<'_>,
        key: Range<usize>,
        partial: &Map<String, Value>,
        owner: &mut Owner<'_, '_, '_>,
    ) -> Option<Form> {
        if table.is_empty() {
            let help = "write for example `expand = { file = [\"a.csv\", \"b.csv\"] }`, or remove it";
            self.faults.add(key, "bad-mapping", "`expand` names nothing to map over", help);
        }
        let mut inputs = Vec::with_capacity(table.len());
        for (name, value) in table {
            let variable: &str = name.get_ref();
            self.check_variable(variable, name.span());
            self.check_single(variable, partial, name.span());
            inputs.extend(self.input(value, owner).map(|input| (variable.to_owned(), input)));
        }
        (inputs.len() == table.len()).then_some(Form::Product(inputs))
    }

    /// What stands in the file itself must be tables of variables.
    fn check_kwargs(&mut self, value: &Spanned<DeValue<'_>>, partial: &Map<String, Value>) {
        let list = match value.get_ref().as_table() {
            // What a template makes of the elements is not known.
            Some(table) if table.contains_key("map") => return,
            Some(table) => match table.get("values") {
                Some(values) => values,
                None if is_form(value.get_ref()) => return,
                None => value,
            },
            None => value,
        };
        if list.get_ref().is_table() {
            let message = "`expand_kwargs` must be a list of tables, and this is one table";
            let help = "write it in brackets, or `expand = { … }` for variables with a list each";
            self.faults.add(list.span(), "bad-mapping", message, help);
        }
        for item in list.get_ref().as_array().into_iter().flat_map(|list| list.iter()) {
            let Some(table) = item.get_ref().as_table() else {
                let message = "each element of `expand_kwargs` must be a table of variables";
                self.faults.add(item.span(), "bad-mapping", message, "write for example `{ file = \"a.csv\" }`");
                continue;
            };
            for name in table.keys() {
                self.check_variable(name.get_ref(), name.span());
                self.check_single(name.get_ref(), partial, name.span());
            }
        }
    }

    fn check_variable(&mut self, name: &str, span: Range<usize>) {
        let is_name = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
            && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
        if is_name && !WORDS.contains(&name) {
            return;
        }
        let shown: String = name.chars().take(60).collect();
        let message = format!("`{}` cannot be the name of a variable in templates", shown.escape_debug());
        let help = "use letters, digits and `_`, a letter first, and no word that templates use themselves";
        self.faults.add(span, "bad-mapping", message, help);
    }

    fn check_single(&mut self, name: &str, partial: &Map<String, Value>, span: Range<usize>) {
        if partial.contains_key(name) {
            let message = format!("`{name}` is mapped over, and `partial` gives it, too");
            self.faults.add(span, "bad-mapping", message, "remove one of the two");
        }
    }

    /// None if it has a fault, which has been noted.
    fn input(&mut self, value: &Spanned<DeValue<'_>>, owner: &mut Owner<'_, '_, '_>) -> Option<Input> {
        let table = match value.get_ref() {
            DeValue::Array(_) => return keytable::json(value.get_ref()).map(Input::Literal),
            DeValue::Table(table) => table,
            _ => return None,
        };
        if !is_form(value.get_ref()) {
            return self.check_plain(table).then(|| keytable::json(value.get_ref()).map(Input::Literal))?;
        }
        keytable::check_table(&keys::INPUT, table, self.faults);
        let fields = Fields::new(&keys::INPUT, table);
        let mut given = FORMS.iter().filter_map(|&form| Some((form, fields.entry(form)?)));
        let Some((form, (_, elements))) = given.next() else {
            let message = "an input needs `xcom`, `zip`, `concat` or `values`, to say where its elements are";
            let help = "write for example `{ xcom = \"TASK\", map = \"{{ item }}\" }`; a table that is itself mapped over is written `{ values = { … } }`";
            self.faults.add(value.span(), "bad-mapping", message, help);
            return None;
        };
        for (second, (span, _)) in given {
            let message = format!("`{form}` and `{second}` cannot stand together");
            self.faults.add(span, "bad-mapping", message, "keep one; `concat` puts several inputs one after the other");
        }
        for (key, only) in [("key", "xcom"), ("fillvalue", "zip")] {
            if let (Some((span, _)), true) = (fields.entry(key), form != only) {
                let message = format!("`{key}` means something beside `{only}` alone");
                self.faults.add(span, "bad-mapping", message, format!("remove it, or use `{only}`"));
            }
        }
        let input = match form {
            "xcom" => self.xcom(elements, &fields, owner)?,
            "zip" => Input::Zip {
                inputs: self.inputs("zip", elements, owner)?,
                fillvalue: fields.get("fillvalue").and_then(|value| keytable::json(value.get_ref())),
            },
            "concat" => Input::Concat(self.inputs("concat", elements, owner)?),
            _ => Input::Literal(
                keytable::json(elements.get_ref()).filter(|value| value.is_array() || value.is_object())?,
            ),
        };
        let [map, filter] = ["map", "filter"].map(|name| {
            let value = fields.get(name).filter(|value| value.get_ref().is_str());
            value.map(|value| self.template(value))
        });
        Some(match (&map, &filter) {
            (None, None) => input,
            _ => Input::Each { input: Box::new(input), map, filter },
        })
    }

    /// Whether a table may be meant as it stands. One with a slip in it would be mapped over without a word.
    fn check_plain(&mut self, table: &DeTable<'_>) -> bool {
        for (name, value) in table.iter().take(FORMS.len()) {
            let meant = keytable::suggest(name.get_ref(), FORMS);
            let Some(meant) = meant.filter(|meant| value.get_ref().is_str() == (*meant == "xcom")) else { continue };
            let message = format!("unknown key `{}` of an input", name.get_ref());
            let help = format!(
                "did you mean `{meant}`? a table that is itself mapped over is written `{{ values = {{ … }} }}`"
            );
            self.faults.add(name.span(), "unknown-key", message, help);
            return false;
        }
        true
    }

    /// The inputs of `zip` and `concat`, which are lists (Airflow fails on a table, too).
    fn inputs(&mut self, form: &str, list: &Spanned<DeValue<'_>>, owner: &mut Owner<'_, '_, '_>) -> Option<Vec<Input>> {
        let items = list.get_ref().as_array()?;
        if items.is_empty() {
            let help = format!("write for example `{{ {form} = [{{ xcom = \"TASK\" }}, [1, 2]] }}`");
            self.faults.add(list.span(), "bad-mapping", format!("`{form}` has no inputs"), help);
            return None;
        }
        let mut inputs = Vec::with_capacity(items.len());
        for item in items.iter() {
            let input = self.input(item, owner);
            if let Some(Input::Literal(Value::Object(_))) = input {
                let message = format!("`{form}` takes lists, and this is a table");
                self.faults.add(item.span(), "bad-mapping", message, "make a list of it, such as `[[\"key\", 1]]`");
            }
            inputs.extend(input);
        }
        (inputs.len() == items.len()).then_some(inputs)
    }

    fn xcom(
        &mut self,
        name: &Spanned<DeValue<'_>>,
        fields: &Fields<'_>,
        owner: &mut Owner<'_, '_, '_>,
    ) -> Option<Input> {
        let outline = owner.outline;
        let scope = outline.holder(owner.member);
        let task = self.find_task(outline, name, scope)?;
        let is_mapped = |group: &GroupIx| {
            let fields = &outline.groups[group.index()].fields;
            fields.get("expand").or_else(|| fields.get("expand_kwargs")).is_some()
        };
        let mut shared = outline.around(scope).filter(|&group| outline.holds(group, Member::Task(task)));
        if let Some(group) = shared.find(is_mapped) {
            let message = format!(
                "`{}` is inside the mapped group `{}`, and gives each of its copies another list",
                outline.id(Member::Task(task)),
                outline.id(Member::Group(group)),
            );
            let help = "put it before the group, or work on its whole list in one task";
            self.faults.add(name.span(), "bad-mapping", message, help);
        }
        let relation = Relation { from: Member::Task(task), to: owner.member, span: name.span() };
        self.relate(relation, outline, owner.relations);
        Some(Input::Xcom(XcomInput { task, key: fields.text("key").unwrap_or("return_value").to_owned() }))
    }
}

fn enter(mapping: Mapping, mappings: &mut Vec<Mapping>) -> MappingIx {
    mappings.push(mapping);
    MappingIx(mappings.len() as u32 - 1)
}

/// Whether a table tells where the elements are, and is not itself mapped over.
fn is_form(value: &DeValue<'_>) -> bool {
    let words = FORMS.iter().chain(&["map", "filter", "fillvalue"]);
    value.as_table().is_some_and(|table| words.into_iter().any(|word| table.contains_key(*word)))
}

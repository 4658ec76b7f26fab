//! Jinja's own functions: `range`, `dict`, `namespace`, `cycler`, `joiner`, `lipsum`.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use crate::jinja::arguments::{Args, int_of, size_of_argument};
use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, Res, type_error, value_error};
use crate::jinja::interpreter::Vm;
use crate::jinja::value::{Object, Range, Value, unnest};
use crate::jinja::{Function, meter, print};

/// The longest `range`, as Jinja's sandbox has it.
const MOST_RANGE: usize = 100_000;

/// The function that a name means where nothing else does.
pub fn global(name: &str) -> Option<Value> {
    let (name, call): (&'static str, Call) = match name {
        "range" => ("range", range),
        "dict" => ("dict", dict),
        "namespace" => ("namespace", |_, args| Ok(Value::object(Namespace::new(args)?))),
        "cycler" => ("cycler", cycler),
        "joiner" => ("joiner", joiner),
        "lipsum" => ("lipsum", lipsum),
        _ => return None,
    };
    Some(Value::object(Callable::new(name, call)))
}

type Call = fn(&mut Vm<'_>, Args) -> Res<Value>;

/// A function that is not written in a template.
pub struct Callable {
    name: Cow<'static, str>,
    call: Function,
}

impl Callable {
    pub fn new(name: impl Into<Cow<'static, str>>, call: impl Fn(&mut Vm<'_>, Args) -> Res<Value> + 'static) -> Self {
        Self { name: name.into(), call: Rc::new(call) }
    }
}

impl Object for Callable {
    fn type_name(&self) -> &str {
        "function"
    }

    fn text(&self) -> String {
        format!("<function {}>", self.name)
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn call(&self, vm: &mut Vm<'_>, args: Args) -> Res<Value> {
        (self.call)(vm, args)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn range(_: &mut Vm<'_>, args: Args) -> Res<Value> {
    let [first, second, third] = args.bind("range", ["start", "stop", "step"])?;
    let Some(first) = first else { return type_error("range expected at least 1 argument, got 0") };
    let first = int_of(&first)?;
    let (start, stop) = match second {
        Some(stop) => (first, int_of(&stop)?),
        None => (0, first),
    };
    let step = third.map_or(Ok(1), |step| int_of(&step))?;
    if step == 0 {
        return value_error("range() arg 3 must not be zero");
    }
    let range = Range { start, stop, step };
    if range.len() > MOST_RANGE {
        return Err(Fault::new(
            "OverflowError",
            format!("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MOST_RANGE})."),
        ));
    }
    Ok(Value::Range(range))
}

fn dict(_: &mut Vm<'_>, args: Args) -> Res<Value> {
    let dict = match args.positional.as_slice() {
        [] => Dict::from_pairs([])?,
        [Value::Dict(dict)] => Dict::from_pairs(dict.entries())?,
        [pairs] => {
            let mut entries = Vec::new();
            for pair in pairs.to_vec()? {
                match <[Value; 2]>::try_from(pair.to_vec()?) {
                    Ok([key, value]) => entries.push((key, value)),
                    Err(_) => return value_error("dictionary update sequence element has a length that is not 2"),
                }
            }
            Dict::from_pairs(entries)?
        }
        many => return type_error(format!("dict expected at most 1 argument, got {}", many.len())),
    };
    for (name, value) in args.named {
        dict.insert(Value::text(&*name), value)?;
    }
    Ok(Value::Dict(dict))
}

/// `namespace(…)`: what loops may write to.
pub struct Namespace {
    names: Rc<Dict>,
}

impl Namespace {
    fn new(args: Args) -> Res<Self> {
        let pairs = match args.positional.as_slice() {
            [] => Vec::new(),
            [Value::Dict(dict)] => dict.entries(),
            _ => return type_error("namespace() takes names, or one dict"),
        };
        let names = Dict::from_pairs(pairs)?;
        for (name, value) in args.named {
            names.insert(Value::text(&*name), value)?;
        }
        Ok(Self { names })
    }

    pub fn set(&self, name: &Rc<str>, value: Value) {
        self.names.insert(Value::text(&**name), value).expect("a text is a key");
    }
}

impl Object for Namespace {
    fn type_name(&self) -> &str {
        "Namespace"
    }

    fn text(&self) -> String {
        // Only plain values: a namespace can hold itself.
        let shown = self.names.entries().into_iter().map(|(name, value)| {
            let value = match &value {
                Value::Object(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) => value.type_name().to_owned(),
                _ => print::repr_or_type(&value),
            };
            format!("{}: {value}", print::repr_or_type(&name))
        });
        format!("<Namespace {{{}}}>", shown.collect::<Vec<_>>().join(", "))
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(self.names.get_text(name))
    }

    fn item(&self, key: &Value) -> Res<Option<Value>> {
        self.names.get(key)
    }

    fn forget(&self) {
        self.names.clear();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Cycler {
    items: Vec<Value>,
    at: Cell<usize>,
}

fn cycler(_: &mut Vm<'_>, args: Args) -> Res<Value> {
    if args.positional.is_empty() {
        return Err(Fault::new("RuntimeError", "at least one item has to be provided"));
    }
    Ok(Value::object(Cycler { items: args.positional, at: Cell::new(0) }))
}

impl Drop for Cycler {
    fn drop(&mut self) {
        unnest(std::mem::take(&mut self.items));
    }
}

impl Object for Cycler {
    fn type_name(&self) -> &str {
        "Cycler"
    }

    fn text(&self) -> String {
        "<Cycler>".to_owned()
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok((name == "current").then(|| self.items[self.at.get()].clone()))
    }

    fn methods(&self) -> &'static [&'static str] {
        &["next", "reset"]
    }

    fn call_method(&self, _: &mut Vm<'_>, name: &str, args: Args) -> Res<Value> {
        args.none(name)?;
        if name == "reset" {
            self.at.set(0);
            return Ok(Value::None);
        }
        let item = self.items[self.at.get()].clone();
        self.at.set((self.at.get() + 1) % self.items.len());
        Ok(item)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Joiner {
    separator: Value,
    is_used: Cell<bool>,
}

fn joiner(_: &mut Vm<'_>, args: Args) -> Res<Value> {
    let [separator] = args.bind("joiner", ["sep"])?;
    let separator = separator.unwrap_or_else(|| Value::text(", "));
    Ok(Value::object(Joiner { separator, is_used: Cell::new(false) }))
}

impl Object for Joiner {
    fn type_name(&self) -> &str {
        "Joiner"
    }

    fn text(&self) -> String {
        "<Joiner>".to_owned()
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn call(&self, _: &mut Vm<'_>, args: Args) -> Res<Value> {
        args.none("joiner")?;
        Ok(if self.is_used.replace(true) { self.separator.clone() } else { Value::text("") })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

const WORDS: [&str; 24] = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
    "incididunt",
    "ut",
    "labore",
    "et",
    "dolore",
    "magna",
    "aliqua",
    "enim",
    "minim",
    "veniam",
    "quis",
    "nostrud",
];

/// `lipsum(n=5, html=True, min=20, max=100)`: filler text.
fn lipsum(vm: &mut Vm<'_>, args: Args) -> Res<Value> {
    let [count, html, least, most] = args.bind("lipsum", ["n", "html", "min", "max"])?;
    let count = count.map_or(Ok(5), |count| size_of_argument(&count))?;
    let html = html.map_or(Ok(true), |html| html.is_true())?;
    let least = least.map_or(Ok(20), |least| size_of_argument(&least))?;
    let most = most.map_or(Ok(100), |most| size_of_argument(&most))?.max(least + 1);
    let mut paragraphs = Vec::new();
    for _ in 0..count {
        let length = least + (vm.random() as usize) % (most - least);
        meter::step(length)?;
        let words: Vec<&str> = (0..length).map(|_| WORDS[(vm.random() % 24) as usize]).collect();
        let text = words.join(" ");
        meter::hold(text.len());
        let mut chars = text.chars();
        let first = chars.next().map(|first| first.to_ascii_uppercase().to_string()).unwrap_or_default();
        let paragraph = format!("{first}{}.", chars.as_str());
        paragraphs.push(if html { format!("<p>{paragraph}</p>") } else { paragraph });
    }
    let text = paragraphs.join(if html { "\n" } else { "\n\n" });
    Ok(if html { Value::markup(text) } else { Value::text(text) })
}

impl Vm<'_> {
    /// The next number of the render's own chances (splitmix64): the same template of the same try draws the same ones.
    pub fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

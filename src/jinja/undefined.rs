//! What stands where there is no value, and what may be done with it.

use std::rc::Rc;

use crate::jinja::fault::{Fault, Res, UNDEFINED};

/// Why there is no value.
#[derive(Debug)]
pub struct Undefined {
    /// Jinja's sentence.
    pub message: String,
    /// The expression that asked for it.
    pub name: Rc<str>,
    /// What [`UndefinedKind::Debug`] shows of it.
    pub shown: String,
    pub class: &'static str,
    pub kind: UndefinedKind,
}

/// What may be done with an undefined value (Airflow: `template_undefined`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UndefinedKind {
    /// Ask whether it is defined, nothing else.
    #[default]
    Strict,
    /// Print it as nothing, go over it, compare it.
    Lenient,
    /// The same, and ask for its attributes.
    Chainable,
    /// Print it as the expression that it came from.
    Debug,
}

impl Undefined {
    pub fn fault(&self) -> Box<Fault> {
        let mut fault = Fault::new(self.class, self.message.clone());
        fault.subject = self.name.to_string();
        fault
    }

    /// A use that only `template_undefined = "Undefined"` and its kin allow.
    pub fn lenient(&self) -> Res<()> {
        match self.kind {
            UndefinedKind::Strict => Err(self.fault()),
            _ if self.class != UNDEFINED => Err(self.fault()),
            _ => Ok(()),
        }
    }
}

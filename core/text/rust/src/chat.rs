//! A chat template in the environment that Hugging Face's `apply_chat_template` gives it.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use minijinja::value::Value;
use minijinja::{context, Environment, ErrorKind, Template};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value as Json};

use crate::error::{Code, Error, Result};
use crate::python;
use crate::stack::on_large_stack;

/// Bytes of a template: twice what the longest in use have.
const MAX_TEMPLATE: usize = 64 << 10;

/// Steps of the template language that a rendering may take: about 100 a message is usual.
const FUEL: u64 = 2_000_000;

/// Bytes that a rendering may give.
const MAX_OUTPUT: usize = 64 << 20;

/// Entries of tokenizer_config.json that templates know by name.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Immutable: any number of threads may render.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Value,
}

pub struct Message<'a> {
    pub role: &'a str,
    pub content: &'a str,
}

impl ChatTemplate {
    /// `config`: tokenizer_config.json; `jinja`: chat_template.jinja, which takes precedence over
    /// the config's `chat_template`. `clock`: the time now in a format of C's strftime.
    pub fn new(
        config: Option<&str>,
        jinja: Option<&str>,
        clock: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        let config = match config {
            Some(text) => serde_json::from_str::<Map<String, Json>>(text)
                .map_err(|error| Error::invalid(format_args!("tokenizer_config.json: {error}")))?,
            None => Map::new(),
        };
        let templates = match jinja {
            Some(source) => vec![("default", source)],
            None => named_templates(&config)?,
        };
        if templates.is_empty() {
            return Err(Error::new(
                Code::NotFound,
                "no chat_template.jinja, and no chat_template in tokenizer_config.json",
            ));
        }
        let mut environment = environment(clock);
        for (name, source) in templates {
            if source.len() > MAX_TEMPLATE {
                return Err(Error::invalid(format_args!(
                    "chat template '{name}' has {} bytes, more than {MAX_TEMPLATE}",
                    source.len()
                )));
            }
            let source = without_generation_tags(source);
            on_large_stack(|| {
                environment
                    .add_template_owned(name.to_string(), source.clone())
                    .map_err(|error| Error::invalid(describe(name, &source, &error)))
            })?;
        }
        Ok(ChatTemplate { environment, special_tokens: special_tokens(&config)? })
    }

    /// `tools`: a JSON array, or "" for none. Among named templates it is `tool_use` when there are
    /// tools, else `default`, as in Hugging Face's `get_chat_template`.
    pub fn render(&self, messages: &[Message], tools: &str, prompt: bool) -> Result<String> {
        let template = self.template(!tools.is_empty())?;
        let tools = match tools.is_empty() {
            true => Value::from(()),
            false => serde_json::from_str::<Vec<Json>>(tools)
                .map(Value::from_serialize)
                .map_err(|error| Error::invalid(format_args!("tools: {error}")))?,
        };
        on_large_stack(|| self.render_template(&template, messages, tools, prompt))
    }

    fn render_template(
        &self,
        template: &Template,
        messages: &[Message],
        tools: Value,
        prompt: bool,
    ) -> Result<String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role, content => message.content })
            .collect();
        let context = context! {
            messages,
            tools,
            documents => (),
            add_generation_prompt => prompt,
            ..self.special_tokens.clone()
        };
        let mut output = BoundedOutput { bytes: Vec::new(), full: false };
        match template.render_captured_to(context, &mut output) {
            Ok(_) => String::from_utf8(output.bytes).map_err(|e| Error::new(Code::Internal, e)),
            Err(_) if output.full => Err(Error::new(
                Code::ResourceExhausted,
                format_args!("the chat template gives more than {MAX_OUTPUT} bytes"),
            )),
            Err(error) => Err(rendering_error(template, &error)),
        }
    }

    fn template(&self, has_tools: bool) -> Result<Template<'_, '_>> {
        let named = |name| self.environment.get_template(name).ok();
        let tool_use = if has_tools { named("tool_use") } else { None };
        tool_use.or_else(|| named("default")).ok_or_else(|| {
            Error::new(Code::FailedPrecondition, "the model has no chat template named 'default'")
        })
    }
}

fn environment(clock: impl Fn(&str) -> String + Send + Sync + 'static) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::str(value)?)?));
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("string", python::str);
    environment.add_function("raise_exception", |text: String| -> Outcome<Value> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(text)))
    });
    environment.add_function("strftime_now", move |format: &str| clock(format));
    environment
}

/// The templates of tokenizer_config.json, each with its name.
fn named_templates<'a>(config: &'a Map<String, Json>) -> Result<Vec<(&'a str, &'a str)>> {
    let wrong = || {
        Error::invalid(
        "tokenizer_config.json: chat_template is neither a string nor a list of {name, template}",
    )
    };
    match config.get("chat_template") {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::String(source)) => Ok(vec![("default", source)]),
        Some(Json::Array(entries)) => {
            let text = |value: Option<&'a Json>| value.and_then(Json::as_str).ok_or_else(wrong);
            let named =
                |entry: &'a Json| Ok((text(entry.get("name"))?, text(entry.get("template"))?));
            entries.iter().map(named).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Each special token under its name, and `additional_special_tokens` as a list.
fn special_tokens(config: &Map<String, Json>) -> Result<Value> {
    let text = |key: &str, token: &Json| {
        let text = token.as_str().or_else(|| token.get("content")?.as_str());
        text.map(Value::from).ok_or_else(|| {
            Error::invalid(format_args!(
                "tokenizer_config.json: {key} is neither a string nor an object with `content`"
            ))
        })
    };
    let mut tokens = Vec::new();
    for (key, value) in config.iter().filter(|(_, value)| !value.is_null()) {
        if SPECIAL_TOKENS.contains(&key.as_str()) {
            tokens.push((key.clone(), text(key, value)?));
        } else if key == "additional_special_tokens" {
            let list = value.as_array().map_or(&[][..], Vec::as_slice);
            let list = list.iter().map(|token| text(key, token)).collect::<Result<Vec<_>>>()?;
            tokens.push((key.clone(), Value::from(list)));
        }
    }
    Ok(tokens.into_iter().collect())
}

/// `{% generation %}` marks what an assistant said, for training. Here its block is just its body.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{%") {
        text.push_str(before);
        text.push_str("{%");
        rest = after;
        let Some((tag, after)) = after.split_once("%}") else {
            break;
        };
        let name = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let instead = match name {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => continue,
        };
        text.push_str(&tag.replace(name, instead));
        text.push_str("%}");
        rest = after;
    }
    text + rest
}

type Outcome<T> = std::result::Result<T, minijinja::Error>;

/// What a template gave to `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Raised {}

/// Takes up to MAX_OUTPUT bytes.
struct BoundedOutput {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for BoundedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full |= bytes.len() > MAX_OUTPUT - self.bytes.len();
        if self.full {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn rendering_error(template: &Template, error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(link) = cause {
        if let Some(Raised(text)) = link.downcast_ref() {
            return Error::invalid(text);
        }
        if link.downcast_ref().is_some_and(|e: &minijinja::Error| e.kind() == ErrorKind::OutOfFuel)
        {
            return Error::new(
                Code::ResourceExhausted,
                format_args!("the chat template takes more than {FUEL} steps"),
            );
        }
        cause = link.source();
    }
    let text = describe(template.name(), template.source(), error);
    Error::new(Code::FailedPrecondition, text)
}

/// Where and what: `chat template 'default', line 3, column 7: undefined value`.
fn describe(name: &str, source: &str, error: &minijinja::Error) -> String {
    let mut text = format!("chat template '{name}'");
    if let Some(line) = error.line() {
        text += &format!(", line {line}");
    }
    if let Some(before) = error.range().and_then(|range| source.get(..range.start)) {
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        text += &format!(", column {column}");
    }
    text += &format!(": {}", error.kind());
    if let Some(detail) = error.detail() {
        text += &format!(": {detail}");
    }
    text
}

//! The functions of `pregate_text.h`, which documents them.

use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::Arc;

use crate::chat::{ChatTemplate, Message};
use crate::detokenizer::Detokenizer;
use crate::error::{guard, Code, Error, Result};
use crate::tokenizer::Tokenizer;

/// Borrowed bytes; `data` may be null when `size` is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PregateBytes {
    data: *const u8,
    size: usize,
}

/// Where results go: `put` is called at most once a call, with bytes that are valid during it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PregateSink {
    target: *mut c_void,
    put: extern "C" fn(target: *mut c_void, data: *const c_void, size: usize),
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PregateMessage {
    role: PregateBytes,
    content: PregateBytes,
}

/// Writes the time now in the strftime format given first to the sink.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PregateClock {
    target: *mut c_void,
    format_now: extern "C" fn(target: *mut c_void, format: PregateBytes, time: PregateSink),
}

// The header asks for a clock that any thread may call.
unsafe impl Send for PregateClock {}
unsafe impl Sync for PregateClock {}

impl PregateBytes {
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        slice_of(self.data, self.size)
    }

    unsafe fn text<'a>(self, what: &str) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()).map_err(|error| {
            Error::invalid(format_args!("{what} is not UTF-8 at byte {}", error.valid_up_to()))
        })
    }
}

impl PregateSink {
    fn put<T>(self, items: &[T]) {
        (self.put)(self.target, items.as_ptr().cast(), items.len());
    }
}

impl PregateClock {
    fn now(self, format: &str) -> String {
        extern "C" fn put(target: *mut c_void, data: *const c_void, size: usize) {
            // SAFETY: `target` is the String below, and the clock gives valid bytes.
            let (text, bytes) =
                unsafe { (&mut *target.cast::<String>(), slice_of(data.cast(), size)) };
            text.push_str(&String::from_utf8_lossy(bytes));
        }
        let mut text = String::new();
        let format = PregateBytes { data: format.as_ptr(), size: format.len() };
        let sink = PregateSink { target: ptr::from_mut(&mut text).cast(), put };
        (self.format_now)(self.target, format, sink);
        text
    }
}

unsafe fn slice_of<'a, T>(data: *const T, size: usize) -> &'a [T] {
    match size {
        0 => &[],
        _ => slice::from_raw_parts(data, size),
    }
}

/// Runs `body`: 0, or the code of its error, whose message goes to `error`.
fn call(error: PregateSink, body: impl FnOnce() -> Result<()>) -> i32 {
    match guard(Code::Internal, body) {
        Ok(()) => 0,
        Err(failure) => {
            error.put(failure.message.as_bytes());
            failure.code as i32
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn pregate_tokenizer_new(
    json: PregateBytes,
    tokenizer: *mut *mut Arc<Tokenizer>,
    error: PregateSink,
) -> i32 {
    call(error, || {
        let loaded = Arc::new(Tokenizer::from_json(json.bytes())?);
        *tokenizer = Box::into_raw(Box::new(loaded));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn pregate_tokenizer_free(tokenizer: *mut Arc<Tokenizer>) {
    drop(Box::from_raw(tokenizer));
}

#[no_mangle]
pub unsafe extern "C" fn pregate_tokenizer_vocab_size(tokenizer: *const Arc<Tokenizer>) -> usize {
    (*tokenizer).vocab_size()
}

#[no_mangle]
pub unsafe extern "C" fn pregate_tokenizer_is_special(
    tokenizer: *const Arc<Tokenizer>,
    id: u32,
) -> bool {
    (*tokenizer).is_special(id)
}

#[no_mangle]
pub unsafe extern "C" fn pregate_tokenizer_token_to_id(
    tokenizer: *const Arc<Tokenizer>,
    token: PregateBytes,
    id: *mut u32,
) -> bool {
    let found = token.text("token").ok().and_then(|token| (*tokenizer).token_to_id(token));
    found.inspect(|&found| *id = found).is_some()
}

#[no_mangle]
pub unsafe extern "C" fn pregate_tokenizer_encode(
    tokenizer: *const Arc<Tokenizer>,
    text: PregateBytes,
    add_special_tokens: bool,
    ids: PregateSink,
    error: PregateSink,
) -> i32 {
    call(error, || {
        ids.put(&(*tokenizer).encode(text.text("text")?, add_special_tokens)?);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn pregate_tokenizer_decode(
    tokenizer: *const Arc<Tokenizer>,
    ids: *const u32,
    size: usize,
    skip_special_tokens: bool,
    text: PregateSink,
    error: PregateSink,
) -> i32 {
    call(error, || {
        text.put((*tokenizer).decode(slice_of(ids, size), skip_special_tokens)?.as_bytes());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn pregate_detokenizer_new(
    tokenizer: *const Arc<Tokenizer>,
    skip_special_tokens: bool,
) -> *mut Detokenizer {
    Box::into_raw(Box::new(Detokenizer::new(Arc::clone(&*tokenizer), skip_special_tokens)))
}

#[no_mangle]
pub unsafe extern "C" fn pregate_detokenizer_free(detokenizer: *mut Detokenizer) {
    drop(Box::from_raw(detokenizer));
}

#[no_mangle]
pub unsafe extern "C" fn pregate_detokenizer_append(
    detokenizer: *mut Detokenizer,
    id: u32,
    text: PregateSink,
    error: PregateSink,
) -> i32 {
    call(error, || {
        text.put((*detokenizer).append(id)?.as_bytes());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn pregate_detokenizer_flush(
    detokenizer: *mut Detokenizer,
    text: PregateSink,
    error: PregateSink,
) -> i32 {
    call(error, || {
        text.put((*detokenizer).flush()?.as_bytes());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn pregate_chat_template_new(
    config: *const PregateBytes,
    jinja: *const PregateBytes,
    clock: PregateClock,
    chat_template: *mut *mut ChatTemplate,
    error: PregateSink,
) -> i32 {
    call(error, || {
        let text = |file: *const PregateBytes, name| match file.as_ref() {
            Some(bytes) => bytes.text(name).map(Some),
            None => Ok(None),
        };
        let config = text(config, "tokenizer_config.json")?;
        let jinja = text(jinja, "chat_template.jinja")?;
        let loaded = ChatTemplate::new(config, jinja, move |format| clock.now(format))?;
        *chat_template = Box::into_raw(Box::new(loaded));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn pregate_chat_template_free(chat_template: *mut ChatTemplate) {
    drop(Box::from_raw(chat_template));
}

#[no_mangle]
pub unsafe extern "C" fn pregate_chat_template_render(
    chat_template: *const ChatTemplate,
    messages: *const PregateMessage,
    size: usize,
    tools: PregateBytes,
    add_generation_prompt: bool,
    text: PregateSink,
    error: PregateSink,
) -> i32 {
    call(error, || {
        let mut conversation = Vec::with_capacity(size);
        for (index, message) in slice_of(messages, size).iter().enumerate() {
            conversation.push(Message {
                role: message.role.text(&format!("messages[{index}].role"))?,
                content: message.content.text(&format!("messages[{index}].content"))?,
            });
        }
        let tools = tools.text("tools")?;
        let rendered = (*chat_template).render(&conversation, tools, add_generation_prompt)?;
        text.put(rendered.as_bytes());
        Ok(())
    })
}

//! One error type, and the guard that keeps panics on this side of the C boundary.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// Status codes as absl and gRPC number them; 0 is OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Internal = 13,
}

#[derive(Debug)]
pub struct Error {
    pub code: Code,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Error { code, message: message.to_string() }
    }

    pub fn invalid(message: impl fmt::Display) -> Self {
        Error::new(Code::InvalidArgument, message)
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// `panicked at strip.rs:55: slice index starts at 1 but ends at 0`
fn describe(info: &PanicHookInfo) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map_or(String::new(), |place| {
        let file = place.file().rsplit('/').next().unwrap_or_default();
        format!(" at {file}:{}", place.line())
    });
    format!("panicked{place}: {}", text.unwrap_or("no reason given"))
}

/// Runs `body`; a panic in it becomes an error of `code` with the panic's text and place, and prints
/// nothing.
pub fn guard<T>(code: Code, body: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if GUARDED.get() {
                PANIC.set(describe(info));
            } else {
                previous(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    // What a panic interrupts is either dropped with it or a cache that its own lock protects.
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    GUARDED.set(outer);
    result.unwrap_or_else(|_| Err(Error::new(code, PANIC.take())))
}

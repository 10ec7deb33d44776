//! A stack that bounded input cannot overflow.

use std::thread;

use crate::error::{guard, Code, Error, Result};

/// A tag as long as MAX_TEMPLATE may nest an expression once a byte, and FUEL steps may nest a value
/// some 500,000 times: reading, comparing and dropping those takes a call for each level. Pages that
/// are not reached cost nothing.
const STACK: usize = 512 << 20;

/// Runs `body` on a thread of its own and waits for it; a panic in it becomes an INTERNAL error.
pub fn on_large_stack<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("chat-template".into()).stack_size(STACK);
        let running =
            builder.spawn_scoped(scope, || guard(Code::Internal, body)).map_err(|error| {
                Error::new(Code::ResourceExhausted, format_args!("cannot start a thread: {error}"))
            })?;
        running
            .join()
            .unwrap_or_else(|_| Err(Error::new(Code::Internal, "a panic while panicking")))
    })
}

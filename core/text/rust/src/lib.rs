//! Hugging Face tokenizers and chat templates behind the C ABI that `pregate_text.h` declares.

mod abi;
mod chat;
mod detokenizer;
mod error;
mod python;
mod stack;
mod tokenizer;

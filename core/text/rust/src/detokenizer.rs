//! Incremental decoding: the decoder of a tokenizer.json as a chain of stages, each of which passes
//! on what no later token can change and keeps the rest.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, LazyLock};

use tokenizers::{Decoder, DecoderWrapper};

use crate::error::Result;
use crate::tokenizer::{internal, Tokenizer};

pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    state: State,
}

enum State {
    Streaming(Vec<Stage>),
    /// No stages do what the decoder does: decoded at the end.
    Whole(Vec<u32>),
}

impl State {
    fn new(tokenizer: &Tokenizer) -> Self {
        match tokenizer.stages() {
            Some(stages) => State::Streaming(stages.to_vec()),
            None => State::Whole(Vec::new()),
        }
    }
}

/// One decoder of the chain. Up to a decoder that makes one token of all (`Fuse`, `ByteLevel`), what
/// flows between stages is tokens; after it, pieces of that one token.
#[derive(Clone)]
pub enum Stage {
    /// Sees each token alone.
    Each(Arc<DecoderWrapper>),
    /// Sees each token alone, and treats the first differently.
    AfterFirst { decoder: Arc<DecoderWrapper>, first: bool },
    /// No decoder: spaces between the tokens.
    Spaces { first: bool },
    /// Joins a run of byte tokens: text when all of it is UTF-8, else a U+FFFD for each byte. So a
    /// run is open, to its first byte, until another token ends it.
    ByteFallback { run: Vec<u8> },
    /// Joins the bytes of all tokens; only an incomplete character at the end is open.
    ByteLevel { tail: Vec<u8> },
    /// Cuts up to `left` leading `content` off the one token.
    StripStart { content: char, left: usize },
}

impl Detokenizer {
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Self {
        Detokenizer { state: State::new(&tokenizer), tokenizer, skip_special_tokens }
    }

    /// The text that `id` makes final.
    pub fn append(&mut self, id: u32) -> Result<String> {
        let mut text = String::new();
        if let Some(token) = self.tokenizer.token(id, self.skip_special_tokens)? {
            match &mut self.state {
                State::Streaming(stages) => push(stages, token, &mut text)?,
                State::Whole(ids) => ids.push(id),
            }
        }
        Ok(text)
    }

    /// The rest of the text; what is appended next begins a new one.
    pub fn flush(&mut self) -> Result<String> {
        let mut text = String::new();
        match mem::replace(&mut self.state, State::new(&self.tokenizer)) {
            State::Streaming(mut stages) => finish(&mut stages, &mut text)?,
            State::Whole(ids) => text = self.tokenizer.decode(&ids, self.skip_special_tokens)?,
        }
        Ok(text)
    }
}

/// The stages of a new text under `decoder`, if there are any that do what it does.
pub fn stages(decoder: Option<&DecoderWrapper>) -> Option<Vec<Stage>> {
    let Some(decoder) = decoder else {
        return Some(vec![Stage::Spaces { first: true }]);
    };
    let mut stages = Vec::new();
    add_stages(decoder, &mut false, &mut stages).then_some(stages)
}

/// Appends the stages of `decoder`; false when there are none that do the same. `fused`: whether
/// one token has been made of all.
fn add_stages(decoder: &DecoderWrapper, fused: &mut bool, stages: &mut Vec<Stage>) -> bool {
    match decoder {
        DecoderWrapper::Sequence(sequence) => {
            return sequence.get_decoders().iter().all(|part| add_stages(part, fused, stages));
        }
        DecoderWrapper::Fuse(_) => *fused = true,
        DecoderWrapper::Strip(strip) if *fused && strip.stop == 0 => {
            stages.push(Stage::StripStart { content: strip.content, left: strip.start });
        }
        _ if *fused => return false,
        DecoderWrapper::Replace(_) | DecoderWrapper::Strip(_) => {
            stages.push(Stage::Each(Arc::new(decoder.clone())));
        }
        DecoderWrapper::Metaspace(_) | DecoderWrapper::WordPiece(_) => {
            stages.push(Stage::AfterFirst { decoder: Arc::new(decoder.clone()), first: true });
        }
        DecoderWrapper::ByteFallback(_) => stages.push(Stage::ByteFallback { run: Vec::new() }),
        DecoderWrapper::ByteLevel(_) => {
            stages.push(Stage::ByteLevel { tail: Vec::new() });
            *fused = true;
        }
        DecoderWrapper::BPE(_) | DecoderWrapper::CTC(_) => return false,
    }
    true
}

/// Sends `token` through the stages; what comes out at the end is appended to `text`.
fn push(stages: &mut [Stage], token: String, text: &mut String) -> Result<()> {
    let Some((stage, rest)) = stages.split_first_mut() else {
        text.push_str(&token);
        return Ok(());
    };
    match stage {
        Stage::Each(decoder) => push(rest, last(decoder, vec![token])?, text),
        Stage::AfterFirst { decoder, first } => {
            let tokens = match mem::take(first) {
                true => vec![token],
                false => vec![token.clone(), token],
            };
            push(rest, last(decoder, tokens)?, text)
        }
        Stage::Spaces { first } => {
            let separator = if mem::take(first) { "" } else { " " };
            push(rest, format!("{separator}{token}"), text)
        }
        Stage::ByteFallback { run } => match byte_of(&token) {
            Some(byte) => {
                run.push(byte);
                Ok(())
            }
            None => {
                end_run(mem::take(run), rest, text)?;
                push(rest, token, text)
            }
        },
        Stage::ByteLevel { tail } => {
            append_bytes(&token, tail);
            let piece = take_characters(tail);
            push(rest, piece, text)
        }
        Stage::StripStart { content, left } => {
            let kept = token.trim_start_matches(|c| {
                let cut = c == *content && *left > 0;
                *left = if cut { *left - 1 } else { 0 };
                cut
            });
            push(rest, kept.to_string(), text)
        }
    }
}

/// Sends what each stage kept on, first stage first.
fn finish(stages: &mut [Stage], text: &mut String) -> Result<()> {
    let Some((stage, rest)) = stages.split_first_mut() else {
        return Ok(());
    };
    match stage {
        Stage::ByteFallback { run } => end_run(mem::take(run), rest, text)?,
        Stage::ByteLevel { tail } if !tail.is_empty() => push(rest, "\u{FFFD}".into(), text)?,
        _ => {}
    }
    finish(rest, text)
}

fn last(decoder: &DecoderWrapper, tokens: Vec<String>) -> Result<String> {
    let decoded = decoder.decode_chain(tokens).map_err(internal)?;
    Ok(decoded.into_iter().last().unwrap_or_default())
}

/// The byte of a token like `<0xE4>`, by the rule of the crate's ByteFallback.
fn byte_of(token: &str) -> Option<u8> {
    if token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') {
        u8::from_str_radix(&token[3..5], 16).ok()
    } else {
        None
    }
}

fn end_run(run: Vec<u8>, rest: &mut [Stage], text: &mut String) -> Result<()> {
    if run.is_empty() {
        return Ok(());
    }
    match String::from_utf8(run) {
        Ok(token) => push(rest, token, text),
        Err(error) => {
            (0..error.as_bytes().len()).try_for_each(|_| push(rest, "\u{FFFD}".into(), text))
        }
    }
}

/// GPT-2's way to write any byte as a printable character: printable Latin-1 as itself, the others
/// from U+0100 on in ascending order.
static BYTE_OF_CHAR: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = (0x100..).filter_map(char::from_u32);
    (0..=u8::MAX)
        .filter_map(|byte| match printable(byte) {
            true => Some((char::from(byte), byte)),
            false => others.next().map(|c| (c, byte)),
        })
        .collect()
});

/// Appends the bytes that `token` stands for: its own when not all its characters stand for one.
fn append_bytes(token: &str, bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for c in token.chars() {
        match BYTE_OF_CHAR.get(&c) {
            Some(&byte) => bytes.push(byte),
            None => {
                bytes.truncate(before);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Takes all but an incomplete last character; what is not UTF-8 becomes U+FFFD as
/// `String::from_utf8_lossy` makes it.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    loop {
        let (valid, invalid) = match std::str::from_utf8(&bytes[taken..]) {
            Ok(_) => (bytes.len() - taken, None),
            Err(error) => (error.valid_up_to(), error.error_len()),
        };
        text.push_str(&String::from_utf8_lossy(&bytes[taken..taken + valid]));
        taken += valid;
        match invalid {
            Some(length) => {
                text.push('\u{FFFD}');
                taken += length;
            }
            None => break,
        }
    }
    bytes.drain(..taken);
    text
}

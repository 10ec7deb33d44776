//! A tokenizer.json, loaded.

use serde::de::IgnoredAny;
use tokenizers::{Decoder, Tokenizer as HfTokenizer};

use crate::detokenizer::{self, Stage};
use crate::error::{guard, Code, Error, Result};

/// Immutable, but for caches that lock themselves: any number of threads may use one.
pub struct Tokenizer {
    tokenizer: HfTokenizer,
    vocab_size: usize,
    stages: Option<Vec<Stage>>,
}

impl Tokenizer {
    pub fn from_json(json: &[u8]) -> Result<Self> {
        // Read once for syntax alone: the crate's own deserializers panic at some syntax errors.
        serde_json::from_slice::<IgnoredAny>(json).map_err(Error::invalid)?;
        let mut tokenizer =
            guard(Code::InvalidArgument, || HfTokenizer::from_bytes(json).map_err(Error::invalid))?;
        // A server neither cuts nor pads what it is given.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(Error::invalid)?;
        let highest = tokenizer.get_vocab(true).into_values().max();
        let tokenizer = Tokenizer {
            vocab_size: highest.map_or(0, |id| id as usize + 1),
            stages: detokenizer::stages(tokenizer.get_decoder()),
            tokenizer,
        };
        // The ids that the post-processor adds are its own, which the crate does not look up.
        for id in guard(Code::InvalidArgument, || tokenizer.encode("", true))? {
            tokenizer.token(id, false).map_err(|error| {
                Error::invalid(format_args!("post_processor: {}", error.message))
            })?;
        }
        Ok(tokenizer)
    }

    /// One past the highest id. Not every id below it need have a token.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    pub fn is_special(&self, id: u32) -> bool {
        let token = self.tokenizer.id_to_token(id);
        token.is_some_and(|token| self.is_special_token(&token))
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, add_special_tokens);
        Ok(encoding.map_err(internal)?.get_ids().to_vec())
    }

    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let tokens = ids.iter().filter_map(|&id| self.token(id, skip_special_tokens).transpose());
        let tokens = tokens.collect::<Result<Vec<String>>>()?;
        match self.tokenizer.get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(internal),
            None => Ok(tokens.join(" ")),
        }
    }

    /// What the decoder sees of `id`: nothing when it is special and those are skipped.
    pub fn token(&self, id: u32, skip_special_tokens: bool) -> Result<Option<String>> {
        match self.tokenizer.id_to_token(id) {
            Some(token) if skip_special_tokens && self.is_special_token(&token) => Ok(None),
            Some(token) => Ok(Some(token)),
            None => Err(Error::invalid(format_args!(
                "token id {id} is not in the vocabulary of {} ids",
                self.vocab_size
            ))),
        }
    }

    /// What a `Detokenizer` begins with; None when it has to decode the whole text at once.
    pub fn stages(&self) -> Option<&[Stage]> {
        self.stages.as_deref()
    }

    fn is_special_token(&self, token: &str) -> bool {
        self.tokenizer.get_added_vocabulary().is_special_token(token)
    }
}

pub fn internal(error: tokenizers::Error) -> Error {
    Error::new(Code::Internal, error)
}

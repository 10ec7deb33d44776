// The C interface of the Rust crate in this folder. Use core/text/{tokenizer, detokenizer,
// chat_template}.h; these functions are what they are made of.
//
// * Every call returns; no panic and no exception crosses it. A sink or a clock must not throw.
// * A call that can fail returns a status code, numbered as absl::StatusCode; 0 is OK. On failure
// it
//   gives a message to its `error` sink, else nothing.
// * Texts are bytes with a length, not NUL-terminated. What is passed in is borrowed for the call.
// * Results are given to sinks: nothing allocated on one side is freed on the other. Only handles
//   are owned: *_new gives one (on success), *_free takes it, once.
// * Any number of threads may use one const handle at a time.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct PregateTokenizer PregateTokenizer;
typedef struct PregateDetokenizer PregateDetokenizer;
typedef struct PregateChatTemplate PregateChatTemplate;

typedef struct PregateBytes {
  const void* data;  // may be null when size is 0
  size_t size;
} PregateBytes;

// Takes `size` items, chars of UTF-8 text unless said otherwise, that are valid during the call.
// Called at most once by each function that has one.
typedef struct PregateSink {
  void* target;
  void (*put)(void* target, const void* data, size_t size);
} PregateSink;

// Gives the time now, in a format of C's strftime, to `time`. Called from any thread that renders.
typedef struct PregateClock {
  void* target;
  void (*format_now)(void* target, PregateBytes format, PregateSink time);
} PregateClock;

typedef struct PregateMessage {
  PregateBytes role;
  PregateBytes content;
} PregateMessage;

// `json`: the bytes of a tokenizer.json. INVALID_ARGUMENT says where it is wrong.
int32_t pregate_tokenizer_new(PregateBytes json, PregateTokenizer** tokenizer, PregateSink error);
void pregate_tokenizer_free(PregateTokenizer* tokenizer);

// One past the highest id.
size_t pregate_tokenizer_vocab_size(const PregateTokenizer* tokenizer);
bool pregate_tokenizer_is_special(const PregateTokenizer* tokenizer, uint32_t id);
// False, and `id` untouched, when there is no such token.
bool pregate_tokenizer_token_to_id(const PregateTokenizer* tokenizer,
                                   PregateBytes token,
                                   uint32_t* id);

// `ids` takes uint32_t. INVALID_ARGUMENT: `text` is not UTF-8.
int32_t pregate_tokenizer_encode(const PregateTokenizer* tokenizer,
                                 PregateBytes text,
                                 bool add_special_tokens,
                                 PregateSink ids,
                                 PregateSink error);
// `ids`: `size` of them. INVALID_ARGUMENT: an id that has no token.
int32_t pregate_tokenizer_decode(const PregateTokenizer* tokenizer,
                                 const uint32_t* ids,
                                 size_t size,
                                 bool skip_special_tokens,
                                 PregateSink text,
                                 PregateSink error);

// May outlive `tokenizer`.
PregateDetokenizer* pregate_detokenizer_new(const PregateTokenizer* tokenizer,
                                            bool skip_special_tokens);
void pregate_detokenizer_free(PregateDetokenizer* detokenizer);
// `text` takes what `id` makes final. INVALID_ARGUMENT: `id` has no token; nothing has changed.
int32_t pregate_detokenizer_append(PregateDetokenizer* detokenizer,
                                   uint32_t id,
                                   PregateSink text,
                                   PregateSink error);
// `text` takes the rest; what is appended next begins a new text.
int32_t pregate_detokenizer_flush(PregateDetokenizer* detokenizer,
                                  PregateSink text,
                                  PregateSink error);

// `config`: a tokenizer_config.json, `jinja`: a chat_template.jinja, each null when there is none.
// What `clock` points to must outlive the template. NOT_FOUND: neither holds a template.
// INVALID_ARGUMENT says where one is wrong.
int32_t pregate_chat_template_new(const PregateBytes* config,
                                  const PregateBytes* jinja,
                                  PregateClock clock,
                                  PregateChatTemplate** chat_template,
                                  PregateSink error);
void pregate_chat_template_free(PregateChatTemplate* chat_template);
// `tools`: a JSON array, or empty for none. Errors as ChatTemplate::Render documents them.
int32_t pregate_chat_template_render(const PregateChatTemplate* chat_template,
                                     const PregateMessage* messages,
                                     size_t size,
                                     PregateBytes tools,
                                     bool add_generation_prompt,
                                     PregateSink text,
                                     PregateSink error);

#ifdef __cplusplus
}
#endif

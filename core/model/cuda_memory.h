// Where everything lies that a pass on a GPU reads and writes: arrays in a few buffers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/kernel/attention_cuda.h"
#include "core/kernel/product_cuda.h"
#include "core/model/model_config.h"

namespace pregate {

// Tokens in a launch of attention: what that needs grows with them.
inline constexpr uint32_t kAttentionTokens = 64;
// Blocks that gates look ahead, at most.
inline constexpr uint32_t kMaxAhead = 2;

// Arrays in one buffer. Laid out twice: without one, to learn its size, then in it.
class Arrays {
 public:
  explicit Arrays(std::byte* base) : base_(base) {}

  template <typename T>
  void Take(T*& array, size_t count) {
    array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  }
  size_t used() const { return used_; }

 private:
  static constexpr size_t kAlignment = 256;
  std::byte* const base_;
  size_t used_ = 0;
};

// The sizes that decide how much memory a pass takes.
struct Sizes {
  uint32_t max_tokens = 0;
  uint32_t max_context = 0;
  uint32_t max_logits = 0;
  uint32_t max_blocks = 0;  // of a sequence
  uint32_t query = 0;       // numbers of a token's queries
  uint32_t qkv = 0;         // of its queries, keys and values
  uint32_t vocab = 0;       // rounded up to what products write at a time, 16
};

inline Sizes SizesOf(const ModelConfig& config,
                     uint32_t max_tokens,
                     uint32_t max_context,
                     uint32_t max_logits,
                     uint32_t kv_block_size) {
  const uint32_t query = config.num_heads * config.head_dim;
  return {.max_tokens = max_tokens,
          .max_context = max_context,
          .max_logits = std::max(1u, std::min(max_logits, max_tokens)),
          .max_blocks = (max_context / kAttentionPart + 1) * kAttentionPart / kv_block_size + 1,
          .query = query,
          .qkv = query + 2 * config.num_kv_heads * config.head_dim,
          .vocab = (config.vocab_size + 15) / 16 * 16};
}

struct DenseLayer {
  float* input_norm = nullptr;           // [hidden]
  uint16_t* qkv = nullptr;               // [queries, keys and values; hidden]
  float* query_norm = nullptr;           // [head_dim], or null
  float* key_norm = nullptr;             // the same
  uint16_t* output = nullptr;            // [hidden, queries]
  float* post_attention_norm = nullptr;  // [hidden]
  float* gate = nullptr;                 // [num_experts, hidden], or null
  float* pregate = nullptr;              // the same
};

struct DenseWeights {
  std::vector<DenseLayer> layers;
  uint16_t* embedding = nullptr;  // [vocab, hidden]
  float* final_norm = nullptr;    // [hidden]
  uint16_t* head = nullptr;       // [vocab, hidden], the vocabulary rounded up

  size_t LayOut(const ModelConfig& config, const Sizes& sizes, std::byte* base) {
    Arrays arrays(base);
    const size_t hidden = config.hidden_size;
    layers.resize(config.num_layers);
    for (uint32_t i = 0; i < config.num_layers; ++i) {
      DenseLayer& layer = layers[i];
      arrays.Take(layer.input_norm, hidden);
      arrays.Take(layer.qkv, sizes.qkv * hidden);
      if (config.family->has_qk_norm()) {
        arrays.Take(layer.query_norm, config.head_dim);
        arrays.Take(layer.key_norm, config.head_dim);
      }
      arrays.Take(layer.output, sizes.query * hidden);
      arrays.Take(layer.post_attention_norm, hidden);
      if (config.HasGate(i)) arrays.Take(layer.gate, config.num_experts * hidden);
      if (config.HasPregate(i)) arrays.Take(layer.pregate, config.num_experts * hidden);
    }
    arrays.Take(embedding, config.vocab_size * hidden);
    arrays.Take(final_norm, hidden);
    const bool is_shared = config.tie_word_embeddings && sizes.vocab == config.vocab_size;
    if (is_shared) {
      head = embedding;
    } else {
      arrays.Take(head, sizes.vocab * hidden);
    }
    return arrays.used();
  }
};

// What a pass's tokens are, on the host and once more on the device.
struct TokenArrays {
  uint32_t* ids = nullptr;          // [max_tokens]
  uint32_t* positions = nullptr;    // [max_tokens]
  uint32_t* sequences = nullptr;    // [max_tokens]: rows of block_table
  uint32_t* logit_rows = nullptr;   // [max_logits]
  uint32_t* block_table = nullptr;  // [sequences, the most blocks that one of the pass has]

  size_t LayOut(const Sizes& sizes, std::byte* base) {
    Arrays arrays(base);
    arrays.Take(ids, sizes.max_tokens);
    arrays.Take(positions, sizes.max_tokens);
    arrays.Take(sequences, sizes.max_tokens);
    arrays.Take(logit_rows, sizes.max_logits);
    arrays.Take(block_table, size_t{sizes.max_tokens} * sizes.max_blocks);
    return arrays.used();
  }
};

// In memory of the host that the device reads and writes.
struct SharedArrays {
  uint32_t* expert_ids = nullptr;        // [max_tokens, experts_per_token]
  uint32_t* next_expert_ids = nullptr;   // the same
  uint32_t* places = nullptr;            // the same, by expert
  ExpertSpan* spans = nullptr;           // [num_experts]
  float* probabilities[kMaxAhead] = {};  // [max_tokens, num_experts]: of gates ahead
  uint32_t* greedy = nullptr;            // [max_logits]: the most likely tokens
  uint32_t* first_choice = nullptr;      // [max_tokens]: the same gates'; nobody reads it

  size_t LayOut(const ModelConfig& config, const Sizes& sizes, std::byte* base) {
    Arrays arrays(base);
    const size_t places_count = size_t{sizes.max_tokens} * config.num_experts_per_token;
    arrays.Take(expert_ids, places_count);
    arrays.Take(next_expert_ids, places_count);
    arrays.Take(places, places_count);
    arrays.Take(spans, config.num_experts);
    for (float*& of_distance : probabilities) {
      arrays.Take(of_distance, size_t{sizes.max_tokens} * config.num_experts);
    }
    arrays.Take(greedy, sizes.max_logits);
    arrays.Take(first_choice, sizes.max_tokens);
    return arrays.used();
  }
};

// What a pass computes with, on the device.
struct Workspace {
  float* cosines = nullptr;        // [max_context, head_dim / 2]
  float* sines = nullptr;          // the same
  float* residual = nullptr;       // [max_tokens, hidden]
  uint16_t* normalized = nullptr;  // [max_tokens, hidden]
  uint16_t* ahead = nullptr;       // the same, for gates ahead
  float* qkv = nullptr;            // [max_tokens, queries, keys and values]
  uint16_t* attended = nullptr;    // [max_tokens, queries]
  std::byte* attention_scratch = nullptr;
  uint16_t* inner = nullptr;       // [max_tokens, experts_per_token, expert_width]
  float* expert_out = nullptr;     // [max_tokens, experts_per_token, hidden]
  float* weights = nullptr;        // [max_tokens, experts_per_token]
  float* next_weights = nullptr;   // the same
  float* gate_logits = nullptr;    // [max_tokens, num_experts]
  float* ahead_weights = nullptr;  // [max_tokens]
  float* logits = nullptr;         // [max_logits, vocab]
  // SharedArrays' once more, where they are many: every block of a launch reads them.
  uint32_t* places = nullptr;
  ExpertSpan* spans = nullptr;
  std::byte* tokens = nullptr;  // TokenArrays

  size_t LayOut(const ModelConfig& config, const Sizes& sizes, std::byte* base) {
    Arrays arrays(base);
    const size_t num_tokens = sizes.max_tokens;
    const size_t rows = num_tokens * config.num_experts_per_token;
    const size_t angles = size_t{sizes.max_context} * (config.head_dim / 2);
    arrays.Take(cosines, angles);
    arrays.Take(sines, angles);
    arrays.Take(residual, num_tokens * config.hidden_size);
    arrays.Take(normalized, num_tokens * config.hidden_size);
    arrays.Take(ahead, num_tokens * config.hidden_size);
    arrays.Take(qkv, num_tokens * sizes.qkv);
    arrays.Take(attended, num_tokens * sizes.query);
    arrays.Take(attention_scratch,
                AttentionScratchBytes(std::min(sizes.max_tokens, kAttentionTokens),
                                      config.num_heads,
                                      config.head_dim,
                                      sizes.max_context - 1));
    arrays.Take(inner, rows * config.expert_width);
    arrays.Take(expert_out, rows * config.hidden_size);
    arrays.Take(weights, rows);
    arrays.Take(next_weights, rows);
    arrays.Take(gate_logits, num_tokens * config.num_experts);
    arrays.Take(ahead_weights, num_tokens);
    arrays.Take(logits, size_t{sizes.max_logits} * sizes.vocab);
    arrays.Take(places, rows);
    arrays.Take(spans, config.num_experts);
    arrays.Take(tokens, TokenArrays().LayOut(sizes, nullptr));
    return arrays.used();
  }
};

}  // namespace pregate

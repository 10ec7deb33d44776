// What the engine can be told, and the flags that tell it. The daemon, its configuration file and
// the bench all read this one table.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace pregate {

enum class Dtype { kFloat32, kBfloat16 };

// "float32" or "bfloat16".
absl::string_view DtypeName(Dtype dtype);

// How a model's experts are kept and fetched: docs/expert-offload.md.
struct ExpertOptions {
  // none, int8, int4, sparse, auto or adaptive; "" = that of the folder's own pack, else none
  std::string codec;
  std::string capacity;  // device slots: "25%", "96" or "6GiB"; "" = by the plan
  std::string memory_strategy =
      "auto";                     // auto, single_async, double_buffer, streaming, cpu_offload
  std::string eviction = "ewma";  // ewma, lfru, lru, lfu or fifo
  // none, layer_minus_1, multi_layer, gate_lookahead, pregate or adaptive; "" = pregate for a
  // pre-gated model, else adaptive
  std::string speculation;
  uint32_t speculation_lookahead = 1;       // layers, 1 or 2
  double speculation_aggressiveness = 0.7;  // of the predicted probability, how much to cover: 0…1
  double speculation_confidence = 0;        // predictions below it are not acted on: 0…1
  std::string speculation_state;            // file of what was learned; "" = not kept
  std::string unified_memory = "auto";      // auto, on or off: device and host share memory
  std::string simulated_link;               // "25GiB/s,10us": paces the CPU's copies; "" = none
  std::string record_routing;               // file that the routing is written to; "" = none
  uint64_t gpu_memory_budget = 0;           // bytes; 0 = 90 % of what is free
  uint64_t host_memory_budget = 0;          // bytes of the host tier; 0 = all experts, if they fit
  double verify_slots = 0;                  // share of the leased slots whose checksum is looked at
  bool layer_metrics = false;               // series of each layer too
  std::string pack_folder;                  // where packs are kept; "" = the user's cache folder
};

struct EngineOptions {
  std::string model;              // a Hugging Face folder
  std::string served_model_name;  // "" = the folder's name
  std::string device = "auto";    // auto, cpu, cuda or cuda:N
  std::string dtype = "auto";     // auto, float32 or bfloat16; auto is the checkpoint's
  std::string cpu_isa =
      "auto";  // auto, baseline, avx2 or avx512: what our own kernels and LibTorch may use
  uint32_t threads = 0;  // of the engine's products; 0 = as many as pay, at most one a core
  uint32_t max_batch_tokens = 512;  // in one step, prompt and generated together
  uint32_t max_running = 64;        // sequences advanced together
  uint32_t max_queued = 256;        // requests that wait for a place
  uint32_t max_context = 0;         // tokens of prompt and answer; 0 = what the model was made for
  uint32_t kv_block_size = 16;      // tokens in a block of the KV cache
  ExpertOptions experts;
};

// What the model of `options` is called once it is loaded: --served-model-name, else the folder's
// own name, whatever way its path is written.
std::string ServedModelName(const EngineOptions& options);

// One flag `--name VALUE`, which is also the field `name` of pregate.v1.Config with underscores for
// dashes.
struct Flag {
  std::string name;        // kebab-case, without dashes in front
  std::string value_name;  // what --help shows for the value; "" for a switch, which takes none and
                           // means "true"
  std::string help;        // one line, with the default
  // Parses and stores a value. INVALID_ARGUMENT says what is wrong with it and what is allowed; the
  // caller adds the flag's name.
  std::function<absl::Status(absl::string_view)> set;
  bool is_rare = false;  // few need it: --help leaves it to --help-all
};

// The flags of `options`, which must outlive them.
std::vector<Flag> EngineFlags(EngineOptions& options);

// Flags of common kinds, for tables like the one above. `target` must outlive the flag.
Flag TextFlag(std::string name, std::string value_name, std::string help, std::string& target);
Flag ChoiceFlag(std::string name,
                std::vector<std::string> choices,
                std::string help,
                std::string& target);
Flag CountFlag(
    std::string name, std::string help, uint32_t minimum, uint32_t maximum, uint32_t& target);
// A number from `minimum` to `maximum`.
Flag NumberFlag(std::string name, std::string help, double minimum, double maximum, double& target);
// A size as ParseBytes reads it.
Flag BytesFlag(std::string name, std::string help, uint64_t& target);
Flag SwitchFlag(std::string name, std::string help, bool& target);

}  // namespace pregate

// A model folder's config.json and, behind a zero byte, its generation_config.json.
#include <cmath>

#include "core/model/model_config.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/temp_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pregate;
  static const TempFolder folder;
  const absl::string_view input = TextOf(data, size);
  const size_t end = std::min(input.find('\0'), size);
  folder.Write("config.json", std::string(input.substr(0, end)));
  folder.Write("generation_config.json",
               end < size ? std::string(input.substr(end + 1)) : std::string("{}"));
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(folder.path());
  if (!config.ok()) return 0;
  // What the transformer relies on.
  PREGATE_CHECK(config->family != nullptr && config->vocab_size > 0 && config->hidden_size > 0);
  PREGATE_CHECK(config->num_layers > 0 && config->num_heads > 0 && config->head_dim > 0);
  PREGATE_CHECK(config->num_kv_heads > 0 && config->num_heads % config->num_kv_heads == 0);
  PREGATE_CHECK(config->num_experts_per_token > 0 &&
                config->num_experts_per_token <= config->num_experts);
  PREGATE_CHECK(config->max_positions > 0 && std::isfinite(config->rope_theta));
  Request request;
  request.prompt_token_ids = {0};
  request.stopping.max_tokens = 1;
  request.sampling = config->default_sampling;
  const absl::Status status = ValidateRequest(request, config->vocab_size, 2);
  PREGATE_CHECK(status.ok(), status.message());
  return 0;
}

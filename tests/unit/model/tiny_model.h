// Small seeded models of each family, written as Hugging Face folders.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/base/options.h"
#include "nlohmann/json.hpp"

namespace pregate {

struct TinyTensor {
  std::vector<int64_t> shape;
  std::vector<float> numbers;  // as stored: in a bfloat16 model they are rounded
};

struct TinyModel {
  nlohmann::json config;
  Dtype dtype = Dtype::kFloat32;  // that it is stored in
  std::map<std::string, TinyTensor> tensors;

  const TinyTensor& at(const std::string& name) const { return tensors.at(name); }

  // config.json and model.safetensors.
  void Write(const std::string& folder) const;
};

// 3 layers of 8 experts, 2 a token; 4 heads over 2 of keys and values; a vocabulary of 96, a
// context of 128. Weights are random and the same every time.
TinyModel MakeTinyQwen3Moe(Dtype dtype = Dtype::kFloat32);
// 4 layers of 4 experts, 1 a token.
TinyModel MakeTinySwitch(Dtype dtype = Dtype::kFloat32, bool use_pregate = true);

}  // namespace pregate

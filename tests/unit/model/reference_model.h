// The models once more, as plainly as can be, in double precision: no batches, no cache, no
// grouping.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/model/tiny_model.h"

namespace pregate {

class ReferenceModel {
 public:
  using Row = std::vector<double>;

  struct Result {
    std::vector<Row> logits;                                  // [num_tokens][vocab]
    std::vector<std::vector<std::vector<uint32_t>>> experts;  // [layer][token][k]
  };

  explicit ReferenceModel(const TinyModel& model) : model_(model) {}

  Result Run(const std::vector<uint32_t>& token_ids) const {
    Result result;
    std::vector<Row> h;
    for (const uint32_t id : token_ids) h.push_back(RowOf("model.embed_tokens.weight", id));
    std::vector<Row> following;  // router probabilities that a pre-gate found
    for (int64_t layer = 0; layer < Size("num_hidden_layers"); ++layer) {
      const std::string prefix = absl::StrCat("model.layers.", layer, ".");
      AddAttention(prefix, h);
      std::vector<Row> routing = std::move(following);
      following.clear();
      result.experts.emplace_back();
      for (size_t t = 0; t < h.size(); ++t) {
        const Row x = Norm(h[t], prefix + "post_attention_layernorm.weight");
        const Row probabilities = Has(prefix + "mlp.gate.weight")
                                      ? Softmax(Times(prefix + "mlp.gate.weight", x))
                                      : routing[t];
        if (Has(prefix + "mlp.pregate.weight")) {
          following.push_back(Softmax(Times(prefix + "mlp.pregate.weight", x)));
        }
        result.experts.back().push_back(AddExperts(prefix, probabilities, x, h[t]));
      }
    }
    const bool tied = model_.config.at("tie_word_embeddings").get<bool>();
    for (const Row& row : h) {
      result.logits.push_back(Times(tied ? "model.embed_tokens.weight" : "lm_head.weight",
                                    Norm(row, "model.norm.weight")));
    }
    return result;
  }

 private:
  int64_t Size(const char* key) const { return model_.config.at(key).get<int64_t>(); }
  bool Has(const std::string& name) const { return model_.tensors.contains(name); }
  bool is_switch() const { return model_.config.at("model_type") == "switch_pregate"; }

  Row RowOf(const std::string& name, int64_t row) const {
    const TinyTensor& tensor = model_.at(name);
    const auto begin = tensor.numbers.begin() + row * tensor.shape[1];
    return Row(begin, begin + tensor.shape[1]);
  }

  Row Times(const std::string& name, const Row& x) const {
    const TinyTensor& tensor = model_.at(name);
    Row y(tensor.shape[0]);
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] = std::inner_product(x.begin(), x.end(), tensor.numbers.begin() + i * x.size(), 0.0);
    }
    return y;
  }

  Row Norm(const Row& x, const std::string& name) const {
    const double squares = std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
    const double scale =
        1 / std::sqrt(squares / x.size() + model_.config.at("rms_norm_eps").get<double>());
    Row y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * model_.at(name).numbers[i];
    return y;
  }

  static Row Softmax(Row x) {
    const double max = *std::max_element(x.begin(), x.end());
    for (double& value : x) value = std::exp(value - max);
    const double sum = std::accumulate(x.begin(), x.end(), 0.0);
    for (double& value : x) value /= sum;
    return x;
  }

  // Heads of one projection of a token, normalized and rotated.
  std::vector<Row> Heads(const Row& x,
                         const std::string& projection,
                         const std::string& norm,
                         size_t position,
                         bool rotate) const {
    const int64_t dim = Size("head_dim");
    const Row all = Times(projection, x);
    std::vector<Row> heads;
    for (size_t begin = 0; begin < all.size(); begin += dim) {
      Row head(all.begin() + begin, all.begin() + begin + dim);
      if (Has(norm)) head = Norm(head, norm);
      if (rotate) {
        const Row before = head;
        for (int64_t i = 0; i < dim / 2; ++i) {
          const double angle =
              position * std::pow(model_.config.at("rope_theta").get<double>(),
                                  -2.0 * static_cast<double>(i) / static_cast<double>(dim));
          head[i] = before[i] * std::cos(angle) - before[i + dim / 2] * std::sin(angle);
          head[i + dim / 2] = before[i + dim / 2] * std::cos(angle) + before[i] * std::sin(angle);
        }
      }
      heads.push_back(std::move(head));
    }
    return heads;
  }

  void AddAttention(const std::string& prefix, std::vector<Row>& h) const {
    const std::string self = prefix + "self_attn.";
    std::vector<std::vector<Row>> q, k, v;  // [token][head]
    for (size_t t = 0; t < h.size(); ++t) {
      const Row x = Norm(h[t], prefix + "input_layernorm.weight");
      q.push_back(Heads(x, self + "q_proj.weight", self + "q_norm.weight", t, true));
      k.push_back(Heads(x, self + "k_proj.weight", self + "k_norm.weight", t, true));
      v.push_back(Heads(x, self + "v_proj.weight", "", t, false));
    }
    const size_t group = q[0].size() / k[0].size();
    for (size_t t = 0; t < h.size(); ++t) {
      Row attended;
      for (size_t head = 0; head < q[t].size(); ++head) {
        Row scores;
        for (size_t p = 0; p <= t; ++p) {
          const Row& key = k[p][head / group];
          scores.push_back(std::inner_product(key.begin(), key.end(), q[t][head].begin(), 0.0) /
                           std::sqrt(static_cast<double>(key.size())));
        }
        scores = Softmax(scores);
        Row out(v[0][0].size());
        for (size_t p = 0; p <= t; ++p) {
          for (size_t d = 0; d < out.size(); ++d) out[d] += scores[p] * v[p][head / group][d];
        }
        attended.insert(attended.end(), out.begin(), out.end());
      }
      const Row y = Times(self + "o_proj.weight", attended);
      for (size_t i = 0; i < y.size(); ++i) h[t][i] += y[i];
    }
  }

  // Returns the chosen experts.
  std::vector<uint32_t> AddExperts(const std::string& prefix,
                                   const Row& probabilities,
                                   const Row& x,
                                   Row& h) const {
    std::vector<uint32_t> order(probabilities.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return probabilities[a] > probabilities[b];
    });
    order.resize(Size("num_experts_per_tok"));
    double sum = 0;
    for (const uint32_t expert : order) sum += probabilities[expert];
    if (is_switch()) sum = 1;
    for (const uint32_t expert : order) {
      const std::string name = absl::StrCat(prefix, "mlp.experts.", expert, ".");
      Row inner = Times(name + "up_proj.weight", x);
      if (is_switch()) {
        for (double& value : inner) value = std::max(0.0, value);
      } else {
        const Row gate = Times(name + "gate_proj.weight", x);
        for (size_t i = 0; i < inner.size(); ++i) inner[i] *= gate[i] / (1 + std::exp(-gate[i]));
      }
      const Row y = Times(name + "down_proj.weight", inner);
      for (size_t i = 0; i < y.size(); ++i) h[i] += probabilities[expert] / sum * y[i];
    }
    return order;
  }

  const TinyModel& model_;
};

}  // namespace pregate

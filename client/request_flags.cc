#include "client/request_flags.h"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/options.h"
#include "tools/cli.h"

namespace pregate {
namespace {

template <typename Number>
Flag WholeNumberFlag(const std::string& name,
                     const std::string& help,
                     std::function<void(Number)> set) {
  return {.name = name,
          .value_name = "N",
          .help = help,
          .set = [set = std::move(set)](absl::string_view text) {
            Number number = 0;
            if (!absl::SimpleAtoi(text, &number)) {
              return absl::InvalidArgumentError(
                  absl::StrCat("\"", text, "\" is not a whole number of 0 or more"));
            }
            set(number);
            return absl::OkStatus();
          }};
}

Flag NumberFlag(std::string name, std::string help, std::function<void(float)> set) {
  return {.name = std::move(name),
          .value_name = "X",
          .help = std::move(help),
          .set = [set = std::move(set)](absl::string_view text) {
            float number = 0;
            if (!absl::SimpleAtof(text, &number)) {
              return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not a number"));
            }
            set(number);
            return absl::OkStatus();
          }};
}

// An option that may be given again and again. As a callback on raw results, because CLI11 reads
// some values of a list ("{}", "[a,b]") as more than text.
void AddRepeated(CLI::App& app,
                 const std::string& name,
                 const std::string& value_name,
                 const std::string& help,
                 std::function<bool(const std::string&)> add) {
  const CLI::callback_t add_all = [add = std::move(add)](const CLI::results_t& values) {
    for (const std::string& value : values) {
      if (!add(value)) return false;
    }
    return true;
  };
  app.add_option(name, add_all, help)->type_name(value_name)->take_all();
}

}  // namespace

void AddRequestFlags(CLI::App& app, v1::GenerateRequest& request) {
  v1::Sampling* const sampling = request.mutable_sampling();
  v1::Stopping* const stopping = request.mutable_stopping();
  AddFlags(
      app,
      {TextFlag("model", "NAME", "one of the served models", *request.mutable_model()),
       WholeNumberFlag<uint32_t>("max-tokens",
                                 "at most N tokens (default: what the context holds)",
                                 [=](uint32_t n) { stopping->set_max_tokens(n); }),
       NumberFlag("temperature",
                  "0 = always the most likely token (default: the model's)",
                  [=](float x) { sampling->set_temperature(x); }),
       WholeNumberFlag<uint32_t>("top-k",
                                 "draw from the N most likely tokens",
                                 [=](uint32_t n) { sampling->set_top_k(n); }),
       NumberFlag("top-p",
                  "draw from the most likely tokens that sum to X",
                  [=](float x) { sampling->set_top_p(x); }),
       WholeNumberFlag<uint64_t>("seed", "the same seed gives the same tokens", [=](uint64_t n) {
         sampling->set_seed(n);
       })});
  AddRepeated(
      app, "--stop", "TEXT", "end before TEXT; may be repeated", [=](const std::string& text) {
        stopping->add_stop(text);
        return true;
      });
  AddRepeated(app,
              "--stop-token-id",
              "ID",
              "end at this token; may be repeated",
              [=](const std::string& text) {
                uint32_t id = 0;
                if (!absl::SimpleAtoi(text, &id)) return false;
                stopping->add_stop_token_ids(id);
                return true;
              });
  AddFlags(
      app,
      {Flag{.name = "ignore-eos",
            .value_name = "",
            .help = "go on after the model's end of text",
            .set =
                [=](absl::string_view) {
                  stopping->set_ignore_eos(true);
                  return absl::OkStatus();
                }},
       WholeNumberFlag<uint32_t>("logprobs",
                                 "log-probabilities of each token and the N likeliest",
                                 [=](uint32_t n) { sampling->set_logprobs(n); }),
       TextFlag(
           "request-id", "ID", "found again in the server's log", *request.mutable_request_id())});
}

}  // namespace pregate

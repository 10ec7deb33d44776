// Writes the inputs that fuzzing begins with: small valid ones, by our own writers and of the
// shipped models.
//   make_seeds CORPUS_FOLDER
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/expert/expert_predictor.h"
#include "core/expert/routing_trace.h"
#include "core/expert/speculation_state.h"
#include "core/storage/safetensors_header.h"
#include "pregate/v1/inference.pb.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_pack.h"
#include "tests/unit/text/tokenizer_files.h"

namespace pregate {
namespace {

const std::string kZero(1, '\0');  // what separates the parts of an input

std::string Shipped(const std::string& path) { return ReadFile(PREGATE_SOURCE_DIR "/" + path); }

class Corpus {
 public:
  explicit Corpus(std::string folder) : folder_(std::move(folder)) {}

  void Add(const std::string& target, const std::string& name, const std::string& bytes) const {
    const std::filesystem::path path = std::filesystem::path(folder_) / target / ("seed-" + name);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
  }

 private:
  const std::string folder_;
};

// `bytes` without the checksum at its end: the targets put it there.
std::string WithoutChecksum(std::string bytes) {
  bytes.resize(bytes.size() - sizeof(uint64_t));
  return bytes;
}

void AddStorage(const Corpus& corpus) {
  const TempFolder folder;
  ExpertPackHeader header;
  header.num_layers = 2;
  header.num_experts = 2;
  header.record_bytes = 100;
  header.properties = {{"codec", "none"}, {"hidden_size", "8"}};
  const std::string pack = ReadFile(WriteTestPack(folder / "experts.pack", header));
  corpus.Add("expert_pack", "header", pack.substr(0, pack.find("}") + 1));
  corpus.Add("expert_pack", "file", pack.substr(0, 5 * 4096));

  uint64_t data_size = 0;
  const std::string text = SerializeSafetensorsHeader({{"a.weight", TensorDtype::kF32, {2, 3}},
                                                       {"b", TensorDtype::kBf16, {}},
                                                       {"c", TensorDtype::kI64, {0, 4}}},
                                                      {{"format", "pt"}},
                                                      data_size)
                               .value();
  corpus.Add("safetensors", "file", text + std::string(data_size, 'x'));
  corpus.Add("safetensors", "header", std::string("\x1a\0", 2) + text.substr(8));
  // 2^64 bytes, which 64 bits would count as none.
  corpus.Add("safetensors",
             "overflow",
             std::string(2, '\0') +
                 R"({"a":{"dtype":"F32","shape":[4294967296,1073741824],"data_offsets":[0,0]}})");
  corpus.Add(
      "safetensors",
      "index",
      R"({"metadata":{"total_size":9},"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})");
}

void AddLearned(const Corpus& corpus) {
  for (const uint32_t num_experts : {4, 300}) {
    RoutingTrace trace;
    trace.model = "a-model";
    trace.num_layers = 2;
    trace.num_experts = num_experts;
    trace.experts_per_token = 2;
    trace.sequences = {{"0", 1, {0, 1, 2, 3, 3, 2, 1, 0}}, {"1", 0, {}}};
    corpus.Add("routing_trace",
               "experts-" + std::to_string(num_experts),
               WithoutChecksum(SerializeRoutingTrace(trace)));
  }
  const PredictorShape shape = {.num_layers = 3, .num_experts = 4, .experts_per_token = 2};
  for (const std::string& mode : PredictorNames()) {
    const auto predictor = MakePredictor(mode, shape);
    if (!predictor.ok() || *predictor == nullptr) continue;
    const std::string state = (*predictor)->SaveState();
    if (state.empty()) continue;
    const TempFolder folder;
    const std::string path = folder / "state";
    PREGATE_CHECK(WriteSpeculationState(path, "a-model", shape, {{mode, state}}).ok());
    corpus.Add("speculation_state", "file-" + mode, WithoutChecksum(ReadFile(path)));
    corpus.Add("speculation_state", mode, state);
  }
}

void AddTokenizer(const Corpus& corpus,
                  const std::string& name,
                  const nlohmann::ordered_json& json) {
  const std::string text = json.dump();
  const TempFolder folder;
  folder.Write("tokenizer.json", text);
  const auto loaded = Tokenizer::Load(folder.path());
  PREGATE_CHECK(loaded.ok(), name, ": ", loaded.status().message());
  corpus.Add("tokenizer", name, text);
}

// A byte-level tokenizer with other parts, one after another.
void AddTokenizerParts(const Corpus& corpus) {
  const std::pair<const char*, std::vector<const char*>> parts[] = {
      {"normalizer",
       {R"({"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true})",
        R"({"type":"Sequence","normalizers":[{"type":"NFKD"},{"type":"StripAccents"},{"type":"Lowercase"},)"
        R"({"type":"Strip","strip_left":true,"strip_right":true},{"type":"Nmt"}]})",
        R"({"type":"Replace","pattern":{"Regex":"(?i)t(he)?+"},"content":"h"})"}},
      {"pre_tokenizer",
       {R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+(?!\\S)|\\p{N}"},)"
        R"("behavior":"Isolated","invert":false},{"type":"Digits","individual_digits":true}]})",
        R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true})",
        R"({"type":"Punctuation","behavior":"MergedWithNext"})",
        R"({"type":"UnicodeScripts"})",
        R"({"type":"WhitespaceSplit"})",
        R"({"type":"CharDelimiterSplit","delimiter":"h"})"}},
      {"post_processor",
       {R"({"type":"BertProcessing","sep":["<|end|>",259],"cls":["he",256]})",
        R"({"type":"RobertaProcessing","sep":["<|end|>",259],"cls":["he",256],"trim_offsets":true,"add_prefix_space":true})"}},
      {"decoder",
       {R"({"type":"BPEDecoder","suffix":"</w>"})",
        R"({"type":"CTC","pad_token":"<pad>","word_delimiter_token":"|","cleanup":true})",
        R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true})",
        R"({"type":"WordPiece","prefix":"he","cleanup":true})",
        R"({"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"},)"
        R"({"type":"Strip","content":"t","start":2,"stop":1}]})",
        R"({"type":"Replace","pattern":{"Regex":"h|t"},"content":"▁"})"}},
  };
  for (const auto& [part, values] : parts) {
    for (size_t i = 0; i < values.size(); ++i) {
      nlohmann::ordered_json json = ByteLevelTokenizer();
      json[part] = nlohmann::ordered_json::parse(values[i]);
      AddTokenizer(corpus, absl::StrCat(part, "-", i), json);
    }
  }
}

void AddText(const Corpus& corpus) {
  AddTokenizer(corpus, "byte-level", ByteLevelTokenizer());
  AddTokenizer(corpus, "sentencepiece", LlamaStyleTokenizer());
  for (const char* model : {
           R"({"type":"WordLevel","vocab":{"the":0,"he":1,"[UNK]":2},"unk_token":"[UNK]"})",
           R"({"type":"WordPiece","vocab":{"the":0,"##he":1,"t":3,"[UNK]":2},"unk_token":"[UNK]",)"
           R"("continuing_subword_prefix":"##","max_input_chars_per_word":100})",
           R"({"type":"Unigram","unk_id":0,"byte_fallback":false,)"
           R"("vocab":[["<unk>",0.0],["the",-1.0],["he",-2.5],["t",-3.0]]})",
       }) {
    nlohmann::ordered_json json = {
        {"version", "1.0"},
        {"added_tokens", nlohmann::ordered_json::array()},
        {"normalizer", nlohmann::ordered_json::parse(R"({"type":"NFC"})")},
        {"pre_tokenizer", nlohmann::ordered_json::parse(R"({"type":"BertPreTokenizer"})")},
        {"post_processor", nullptr},
        {"decoder",
         nlohmann::ordered_json::parse(R"({"type":"WordPiece","prefix":"##","cleanup":true})")},
        {"model", nlohmann::ordered_json::parse(model)}};
    AddTokenizer(corpus, json["model"]["type"].get<std::string>(), json);
  }
  corpus.Add("chat_template",
             "plain",
             "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}"
             "{% if add_generation_prompt %}<assistant>{% endif %}");
  const std::string many =
      "{%- macro show(x) -%}{{ x | tojson(indent=2) }}{%- endmacro %}"
      "{% set ns = namespace(last=none) %}{% for m in messages[::-1] %}"
      "{% if m.role == 'bad' %}{{ raise_exception('no bad roles') }}{% endif %}"
      "{% if m.content.startswith('<') %}{{ m.content.split('>')[-1].strip() }}{% else %}"
      "{{ m['content'] | string | upper }}{% endif %}{% set ns.last = m %}{% endfor %}"
      "{% for t in tools or [] %}{{ show(t) }}{% endfor %}{{ strftime_now('%d %b %Y') }}";
  corpus.Add(
      "chat_template",
      "tools",
      absl::StrCat(many, kZero, "<b>why</b>", kZero, R"([{"name": "f", "x": [1.5, null]}])"));
  corpus.Add("chat_template",
             "qwen3",
             nlohmann::json::parse(Shipped("tests/conformance/qwen3/tokenizer_config.json"))
                 .at("chat_template")
                 .get<std::string>());
  const nlohmann::ordered_json config = {
      {"bos_token", "<s>"},
      {"chat_template", "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"}};
  corpus.Add("chat_template", "config", config.dump());
}

void AddRequests(const Corpus& corpus) {
  v1::GenerateRequest request;
  request.set_request_id("one");
  request.set_prompt("the he the");
  request.set_priority(2);
  request.mutable_sampling()->set_temperature(0.5);
  request.mutable_sampling()->set_top_k(5);
  request.mutable_sampling()->set_top_p(0.9F);
  request.mutable_sampling()->set_seed(7);
  request.mutable_sampling()->set_logprobs(3);
  request.mutable_stopping()->set_max_tokens(8);
  request.mutable_stopping()->add_stop(" he");
  request.mutable_stopping()->add_stop("e t");
  request.mutable_stopping()->add_stop_token_ids(9);
  corpus.Add("request", "prompt", request.SerializeAsString());
  for (const uint32_t id : {256, 257, 258, 259}) request.mutable_token_ids()->add_ids(id);
  corpus.Add("request", "token-ids", request.SerializeAsString());
  v1::Message& message = *request.mutable_messages()->add_messages();
  message.set_role("user");
  message.set_content("the");
  request.mutable_messages()->set_tools_json(R"([{"name": "f"}])");
  request.mutable_stopping()->set_ignore_eos(true);
  corpus.Add("request", "messages", request.SerializeAsString());
}

void AddConfigs(const Corpus& corpus) {
  corpus.Add("server_config",
             "file",
             "model: \"models/a\"\nmax_running: 8\nexpert_capacity: \"25%\"\n"
             "simulated_link: \"25GiB/s,10us\"\nverify_slots: 0.5\nlayer_metrics: true\n"
             "host_memory_budget: \"6GiB\"\ndrain_timeout: \"2m\"\nlisten: \"[::1]:0\"\n");
  corpus.Add("server_config", "address", "[::1]:50051");
  corpus.Add("server_config", "link", "25GiB/s,10us");
  corpus.Add("server_config", "number", "1e-3");
  for (const std::string model : {"switch-mini", "qwen3-moe-mini"}) {
    const std::string folder = "models/" + model + "/";
    corpus.Add(
        "model_config",
        model,
        Shipped(folder + "config.json") + kZero + Shipped(folder + "generation_config.json"));
  }
}

}  // namespace
}  // namespace pregate

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: make_seeds CORPUS_FOLDER\n", stderr);
    return 2;
  }
  const pregate::Corpus corpus(argv[1]);
  pregate::AddStorage(corpus);
  pregate::AddLearned(corpus);
  pregate::AddText(corpus);
  pregate::AddTokenizerParts(corpus);
  pregate::AddRequests(corpus);
  pregate::AddConfigs(corpus);
}

#include "core/text/chat_template.h"

#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/civil_time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using testing::HasSubstr;

const std::vector<ChatMessage> kConversation = {{"user", "Hi"}, {"assistant", "Hello"}};
constexpr absl::string_view kTools = R"([{"name": "f", "a": {"z": 1, "b": [1.0, null, true]}}])";

// The template of a folder whose chat_template.jinja is `source`.
absl::StatusOr<std::unique_ptr<ChatTemplate>> FromJinja(const std::string& source) {
  const TempFolder folder;
  folder.Write("chat_template.jinja", source);
  return ChatTemplate::Load(folder.path());
}

// The template of a folder whose tokenizer_config.json is `config`.
absl::StatusOr<std::unique_ptr<ChatTemplate>> FromConfig(const std::string& config) {
  const TempFolder folder;
  folder.Write("tokenizer_config.json", config);
  return ChatTemplate::Load(folder.path());
}

absl::StatusOr<std::string> Render(const std::string& source, absl::string_view tools = "") {
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = FromJinja(source);
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)->Render(kConversation, tools, false);
}

// What it renders, or the status that it fails with.
std::string Text(const std::string& source, absl::string_view tools = "") {
  const absl::StatusOr<std::string> text = Render(source, tools);
  return text.ok() ? *text : text.status().ToString();
}

std::string Error(const absl::StatusOr<std::string>& result) {
  return std::string(result.status().message());
}

TEST(ChatTemplateTest, ReadsTheConfigsTemplateAndSpecialTokens) {
  const auto chat_template = FromConfig(R"json({
      "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null,
      "additional_special_tokens": ["<a>", {"content": "<b>"}],
      "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.role }}={{ m['content'] }};{% endfor %}{{ eos_token }}{{ pad_token is defined }}{{ additional_special_tokens | join }}{% if add_generation_prompt %}>{% endif %}"})json");
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  EXPECT_EQ((*chat_template)->Render(kConversation, "", false).value(),
            "<s>user=Hi;assistant=Hello;</s>False<a><b>");
  EXPECT_EQ((*chat_template)->Render({}, "", true).value(), "<s></s>False<a><b>>");
}

TEST(ChatTemplateTest, TheJinjaFileTakesPrecedence) {
  const TempFolder folder;
  folder.Write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": "config"})");
  folder.Write("chat_template.jinja", "{{ bos_token }}file\n");
  EXPECT_EQ(ChatTemplate::Load(folder.path()).value()->Render({}, "", false).value(), "<s>file");
}

TEST(ChatTemplateTest, ChoosesAmongNamedTemplatesByTools) {
  const auto both = FromConfig(R"({"chat_template": [
      {"name": "default", "template": "plain"},
      {"name": "tool_use", "template": "{{ tools | length }} tools"}]})");
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ((*both)->Render({}, "", false).value(), "plain");
  EXPECT_EQ((*both)->Render({}, kTools, false).value(), "1 tools");
  const auto one = FromConfig(R"({"chat_template": [{"name": "default", "template": "plain"}]})");
  EXPECT_EQ(one.value()->Render({}, kTools, false).value(), "plain");
  const auto other = FromConfig(R"({"chat_template": [{"name": "rag", "template": ""}]})");
  EXPECT_EQ(other.value()->Render({}, "", false).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ChatTemplateTest, AFolderWithoutTemplateIsNotFound) {
  const TempFolder folder;
  EXPECT_EQ(ChatTemplate::Load(folder.path()).status(),
            absl::NotFoundError(absl::StrCat(
                folder.path(),
                ": no chat_template.jinja, and no chat_template in tokenizer_config.json")));
  EXPECT_EQ(FromConfig(R"({"chat_template": null})").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FromConfig(R"({"chat_template": []})").status().code(), absl::StatusCode::kNotFound);
}

TEST(ChatTemplateTest, TrimsBlocksAsHuggingFaceDoes) {
  EXPECT_EQ(Text("  {% if true %}  \n a\n  {% endif %}\n\n  {# comment #}\nb\n{{- 'x' -}}  \n c\n"),
            "  \n a\n\nbxc");
  EXPECT_EQ(Text("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
                 "{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
            "023");
  EXPECT_EQ(Text("{% for m in messages %}\n{% generation %}\n{{ m.content }}\n"
                 "  {%- endgeneration -%}\n  .\n{% endfor %}\n"),
            "Hi.\nHello.\n");
}

TEST(ChatTemplateTest, WritesJsonAsPythonDoes) {
  EXPECT_EQ(Text("{{ tools[0] | tojson }}", kTools),
            R"({"name": "f", "a": {"z": 1, "b": [1.0, null, true]}})");
  EXPECT_EQ(Text("{{ tools[0].a | tojson(indent=2) }}", kTools),
            "{\n  \"z\": 1,\n  \"b\": [\n    1.0,\n    null,\n    true\n  ]\n}");
  EXPECT_EQ(Text("{{ [[], {}, 'é<>&\\'\\u2028\\x7f\\n\\x01\"\\\\'] | tojson(indent=1) }}"),
            "[\n [],\n {},\n \"é<>&'\u2028\x7f\\n\\u0001\\\"\\\\\"\n]");
  EXPECT_EQ(Text("{{ {'b': 1, 'a': 'é😀'} | tojson(sort_keys=true, ensure_ascii=true) }}"),
            R"({"a": "\u00e9\ud83d\ude00", "b": 1})");
  EXPECT_EQ(Text("{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}"), R"([1,{"a":2}])");
  EXPECT_EQ(Text("{{ [1e16, 1.5e-7, 0.1, -3.0, 12345678901234567890, 1e100] | tojson }}"),
            "[1e+16, 1.5e-07, 0.1, -3.0, 12345678901234567890, 1e+100]");
  EXPECT_THAT(Error(Render("{{ nothing | tojson }}")), HasSubstr("not JSON serializable"));
}

TEST(ChatTemplateTest, PrintsValuesAsPythonDoes) {
  EXPECT_EQ(Text("{{ none }} {{ true }} {{ 1.0 }} {{ 1e16 }} {{ 10 / 4 }} {{ nothing }}|"),
            "None True 1.0 1e+16 2.5 |");
  EXPECT_EQ(Text(R"({{ [1, "a'b", 'q"q', "n\n", none, {'k': [false]}] }})"),
            R"([1, "a'b", 'q"q', 'n\n', None, {'k': [False]}])");
  EXPECT_EQ(Text("{{ messages[0] }}{{ messages[::-1][0].role }}"),
            "{'role': 'user', 'content': 'Hi'}assistant");
}

TEST(ChatTemplateTest, KnowsPythonsMethods) {
  EXPECT_EQ(Text("{{ ' a,b '.strip().split(',')[-1].upper() }}{{ 'abc'.startswith('ab') }}"
                 "{{ {'a': 1}.get('b', 'none') }}{{ {'a': 1}.items() | list | length }}"),
            "BTruenone1");
}

TEST(ChatTemplateTest, ToolsAreNoneWhenThereAreNone) {
  EXPECT_EQ(Text("{{ tools is none }}{{ tools is defined }}"), "TrueTrue");
  EXPECT_EQ(Text("{{ tools is none }}", "[]"), "False");
}

TEST(ChatTemplateTest, FormatsTheTimeOfTheClock) {
  const TempFolder folder;
  folder.Write("chat_template.jinja",
               "{{ strftime_now('%d %b %Y %H:%M:%S.%f|%z|%Z|%%z|') }}{{ strftime_now('') }}");
  const absl::Time time =
      absl::FromCivil(absl::CivilSecond(2024, 2, 3, 4, 5, 6), absl::LocalTimeZone());
  const auto chat_template =
      ChatTemplate::Load(folder.path(), [&] { return time + absl::Microseconds(78); });
  EXPECT_EQ(chat_template.value()->Render({}, "", false).value(),
            "03 Feb 2024 04:05:06.000078|||%z|");
}

TEST(ChatTemplateTest, ATemplatesOwnRefusalIsInvalidArgumentWithItsText) {
  EXPECT_EQ(Render("{{ raise_exception('Roles must alternate: user/assistant') }}").status(),
            absl::InvalidArgumentError("Roles must alternate: user/assistant"));
  EXPECT_EQ(Render("{% macro refuse() %}{{ raise_exception('No.') }}{% endmacro %}"
                   "{% for m in messages %}{{ refuse() }}{% endfor %}")
                .status(),
            absl::InvalidArgumentError("No."));
}

TEST(ChatTemplateTest, RefusesWhatIsNotUtf8OrNotTools) {
  const auto chat_template = FromJinja("{{ messages }}").value();
  EXPECT_EQ(chat_template->Render({{"user", "ok"}, {"user", "a\xff"}}, "", false).status(),
            absl::InvalidArgumentError("messages[1].content is not UTF-8 at byte 1"));
  EXPECT_EQ(chat_template->Render({{"\xff", ""}}, "", false).status(),
            absl::InvalidArgumentError("messages[0].role is not UTF-8 at byte 0"));
  for (const std::string tools : {"{}", "[", "\"tool\"", "[1] 2", "nothing"}) {
    const absl::Status status = chat_template->Render({}, tools, false).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << tools;
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(testing::StartsWith("tools: "), HasSubstr("at line 1 column ")));
  }
  EXPECT_EQ(chat_template->Render({}, std::string(100000, '['), false).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplateTest, AnErrorOfTheSyntaxSaysWhere) {
  for (const auto& [source, where] : std::vector<std::pair<std::string, std::string>>{
           {"a\n  {% if %}", "line 2, column 9: syntax error: "},
           {"{{ 'é' }}\n{{ 1 +", "line 2, column 6: syntax error: "},
           {"{% for m in messages %}", "line 1, column 22: syntax error: "},
           {"{% nonsense %}", "line 1, column 4: syntax error: "}}) {
    const absl::Status status = FromJinja(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(": chat template 'default', " + where));
  }
  EXPECT_THAT(std::string(FromConfig(R"({"chat_template": [{"name": "default", "template": ""},
                  {"name": "tool_use", "template": "{{"}]})")
                              .status()
                              .message()),
              HasSubstr("chat template 'tool_use', line 1"));
}

TEST(ChatTemplateTest, AnErrorOfTheRenderingSaysWhere) {
  for (const auto& [source, what] : std::vector<std::pair<std::string, std::string>>{
           {"\n{{ nothing.at_all }}", "line 2, column 4: undefined value"},
           {"{{ 1 | lower_case }}", "line 1, column 8: unknown filter"},
           {"{{ messages.push(1) }}", "line 1, column 12: unknown method"},
           {"{{ 'a' + 1 }}", "line 1, column 4: invalid operation"}}) {
    const absl::Status status = Render(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("chat template 'default', " + what));
  }
}

TEST(ChatTemplateTest, AnErrorOfTheConfigSaysWhere) {
  for (const auto& [config, what] : std::vector<std::pair<std::string, std::string>>{
           {"{\n\"bos_token\": }", "at line 2 column 14"},
           {"[]", "invalid type: sequence"},
           {R"({"chat_template": 7})", "chat_template is neither"},
           {R"({"chat_template": [{"name": "default"}]})", "chat_template is neither"},
           {R"({"chat_template": "", "bos_token": 7})", "bos_token is neither"},
           {R"({"chat_template": "", "additional_special_tokens": [7]})", "tokens is neither"},
           {"\xff", "tokenizer_config.json is not UTF-8 at byte 0"}}) {
    const absl::Status status = FromConfig(config).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << config;
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr("tokenizer_config.json"), HasSubstr(what)));
  }
}

TEST(ChatTemplateTest, StepsAndOutputAreBounded) {
  EXPECT_EQ(
      Render("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}")
          .status(),
      absl::ResourceExhaustedError("the chat template takes more than 2000000 steps"));
  EXPECT_EQ(Render("{% for i in range(1000) %}{{ 'x' * 1000000 }}{% endfor %}").status(),
            absl::ResourceExhaustedError("the chat template gives more than 67108864 bytes"));
  EXPECT_EQ(Render("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}").status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Error(Render(std::string(70000, 'x'))),
              HasSubstr("has 70000 bytes, more than 65536"));
}

TEST(ChatTemplateTest, AnAbsurdlyLargeFileIsRefused) {
  for (const char* name : {"tokenizer_config.json", "chat_template.jinja"}) {
    const TempFolder folder;
    std::filesystem::resize_file(folder.Write(name, "{}"), size_t{1} << 40);  // a hole
    EXPECT_EQ(ChatTemplate::Load(folder.path()).status(),
              absl::ResourceExhaustedError(folder / name +
                                           ": larger than the 16777216 bytes that it may have"));
  }
}

// What nests deep must not overflow a stack, neither where it is read nor where it is dropped.
TEST(ChatTemplateTest, DeepNestingIsNoCrash) {
  const std::string nest =
      "{% set ns = namespace(x=[]) %}{% for k in range(2) %}{% for i in range(99000) %}"
      "{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
  EXPECT_EQ(Text(nest + "done"), "done");
  EXPECT_EQ(Text(nest + "{{ ns.x == [ns.x] }}"), "False");
  EXPECT_THAT(Error(Render(nest + "{{ ns.x }}")), HasSubstr("nested too deep"));
  EXPECT_THAT(Error(Render(nest + "{{ ns.x | tojson }}")), HasSubstr("nested too deep"));
  for (const std::string part : {"(", "[", "{", "not ", "1+", "a.", "a|e|", "1 if 1 else "}) {
    std::string expression;
    while (expression.size() < 60000) expression += part;
    const absl::StatusCode code = Render("{{ " + expression + "1 }}").status().code();
    EXPECT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kInvalidArgument ||
                code == absl::StatusCode::kFailedPrecondition)
        << part << ": " << code;
  }
  std::string blocks;
  while (blocks.size() < 60000) blocks += "{% if 1 %}";
  EXPECT_THAT(Error(Render(blocks)), HasSubstr("recursion"));
}

TEST(ChatTemplateTest, AnyNumberOfThreadsMayRender) {
  const auto chat_template = FromJinja("{{ messages | tojson }}{{ strftime_now('%Y') }}").value();
  const std::string expected = chat_template->Render(kConversation, "", false).value();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 25; ++round) {
        EXPECT_EQ(chat_template->Render(kConversation, "", false).value(), expected);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace pregate

#include "bench/plot.h"

#include <expat.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_folder.h"

namespace pregate {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// An SVG as a browser reads it.
struct Svg {
  struct Element {
    std::string name;
    std::map<std::string, std::string> attributes;
    std::string text;
    double Number(const std::string& attribute) const {
      return std::strtod(attributes.at(attribute).c_str(), nullptr);
    }
  };
  std::vector<Element> elements;  // in the order of their beginnings
  bool is_well_formed = false;
  bool is_open = false;  // the last element has not ended yet

  // Those of a class, whatever others they are of.
  std::vector<Element> OfClass(const std::string& name, const std::string& style) const {
    std::vector<Element> found;
    for (const Element& element : elements) {
      const auto classes = element.attributes.find("class");
      if (element.name != name || classes == element.attributes.end()) continue;
      if ((" " + classes->second + " ").find(" " + style + " ") != std::string::npos) {
        found.push_back(element);
      }
    }
    return found;
  }
  std::vector<std::string> Texts() const {
    std::vector<std::string> texts;
    for (const Element& element : elements) {
      if (element.name == "text") texts.push_back(element.text);
    }
    return texts;
  }
};

Svg Parse(const std::string& bytes) {
  Svg svg;
  const std::unique_ptr<XML_ParserStruct, void (*)(XML_Parser)> parser(XML_ParserCreate("UTF-8"),
                                                                       XML_ParserFree);
  XML_SetUserData(parser.get(), &svg);
  XML_SetElementHandler(
      parser.get(),
      [](void* data, const XML_Char* name, const XML_Char** attributes) {
        auto& parsed = *static_cast<Svg*>(data);
        parsed.is_open = true;
        Svg::Element& element = parsed.elements.emplace_back();
        element.name = name;
        for (; *attributes != nullptr; attributes += 2) {
          element.attributes[attributes[0]] = attributes[1];
        }
      },
      [](void* data, const XML_Char*) { static_cast<Svg*>(data)->is_open = false; });
  XML_SetCharacterDataHandler(parser.get(), [](void* data, const XML_Char* text, int size) {
    auto& parsed = *static_cast<Svg*>(data);
    if (parsed.is_open) parsed.elements.back().text.append(text, static_cast<size_t>(size));
  });
  svg.is_well_formed =
      XML_Parse(parser.get(), bytes.data(), static_cast<int>(bytes.size()), XML_TRUE) ==
      XML_STATUS_OK;
  return svg;
}

template <typename Chart>
Svg Draw(const Chart& chart) {
  const absl::StatusOr<std::string> bytes = ToSvg(chart);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  Svg svg = bytes.ok() ? Parse(*bytes) : Svg();
  EXPECT_TRUE(svg.is_well_formed) << *bytes;
  return svg;
}

template <typename Chart>
std::string Refusal(const Chart& chart) {
  const absl::Status status = ToSvg(chart).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

LineChart Lines() {
  LineChart chart;
  chart.title = "Hit rate";
  chart.x.label = "capacity";
  chart.x.is_share = true;
  chart.y.label = "hits";
  chart.series.resize(2);
  chart.series[0].name = "lru";
  chart.series[0].points = {{0.25, 0}, {0.5, 0.5}, {0.75, 1}};
  chart.series[1].name = "belady";
  chart.series[1].points = {{0.5, 1}};
  chart.series[1].is_bound = true;
  return chart;
}

BarChart Bars() {
  BarChart chart;
  chart.title = "Speed";
  chart.value.label = "tokens/s";
  chart.categories = {"none", "pregate"};
  chart.series.resize(2);
  chart.series[0].name = "before";
  chart.series[0].values = {100, 300};
  chart.series[1].name = "after";
  chart.series[1].values = {200, 0};
  return chart;
}

HeatMap Map() {
  HeatMap map;
  map.title = "Routing";
  map.row_label = "layer";
  map.column_label = "expert";
  map.value_label = "share";
  map.num_columns = 3;
  map.values = {0, 0.5, 0.5, 1, 0, 0.01};
  return map;
}

TEST(LineChart, PutsPointsWhereTheAxesSay) {
  const Svg svg = Draw(Lines());
  const std::vector<Svg::Element> points = svg.OfClass("circle", "c0");
  ASSERT_EQ(points.size(), 3u);
  EXPECT_NEAR(points[1].Number("cx"), (points[0].Number("cx") + points[2].Number("cx")) / 2, 0.11);
  EXPECT_NEAR(points[1].Number("cy"), (points[0].Number("cy") + points[2].Number("cy")) / 2, 0.11);
  EXPECT_GT(points[0].Number("cy"), points[2].Number("cy")) << "more is higher up";
  EXPECT_EQ(svg.OfClass("polyline", "bound").size(), 1u);
  // 1 is the end of the y axis, at the uppermost line of the grid.
  double top = 1e9;
  for (const Svg::Element& line : svg.OfClass("line", "grid")) {
    top = std::min(top, line.Number("y1"));
  }
  EXPECT_EQ(points[2].Number("cy"), top);
}

TEST(LineChart, NamesAxesAndSeries) {
  EXPECT_THAT(Draw(Lines()).Texts(),
              ::testing::IsSupersetOf({"Hit rate", "capacity", "hits", "lru", "belady", "30 %"}));
}

TEST(LineChart, MayHaveOnePoint) {
  LineChart chart = Lines();
  chart.series = {chart.series[1]};
  EXPECT_EQ(Draw(chart).OfClass("circle", "c0").size(), 1u);
  chart.series[0].points = {{0, 0}};
  EXPECT_EQ(Draw(chart).OfClass("circle", "c0").size(), 1u);
}

TEST(LineChart, RefusesWhatItCannotDraw) {
  LineChart chart = Lines();
  chart.series[1].points.clear();
  EXPECT_EQ(Refusal(chart), "plot 'Hit rate': series 'belady' has no point");
  chart.series[1].points = {{1, std::numeric_limits<double>::quiet_NaN()}};
  EXPECT_EQ(Refusal(chart),
            "plot 'Hit rate': series 'belady' has nan, which is negative or not finite");
  chart.series[1].points = {{std::numeric_limits<double>::infinity(), 1}};
  EXPECT_THAT(Refusal(chart), HasSubstr("has inf"));
  chart.series[1].points = {{1, -1}};
  EXPECT_THAT(Refusal(chart), HasSubstr("has -1"));
  chart.series[1].points = {{1, 1}, {0.5, 1}};
  EXPECT_THAT(Refusal(chart), HasSubstr("goes back to x = 0.5"));
  chart.series.clear();
  EXPECT_EQ(Refusal(chart), "plot 'Hit rate': has no series");
  chart.series.assign(9, Lines().series[0]);
  EXPECT_EQ(Refusal(chart), "plot 'Hit rate': has 9 series; 8 are told apart");
  chart.series.pop_back();
  EXPECT_EQ(Draw(chart).OfClass("polyline", "c7").size(), 1u);
}

TEST(BarChart, HasBarsAsLongAsTheirValues) {
  const Svg svg = Draw(Bars());
  const std::vector<Svg::Element> before = svg.OfClass("rect", "c0");
  const std::vector<Svg::Element> after = svg.OfClass("rect", "c1");
  ASSERT_EQ(before.size(), 3u) << "two bars and the legend's";
  EXPECT_NEAR(before[1].Number("width"), 3 * before[0].Number("width"), 0.3);
  EXPECT_EQ(after[1].Number("width"), 0);
  EXPECT_EQ(after[0].Number("x"), before[0].Number("x"));
  EXPECT_GE(after[0].Number("y"), before[0].Number("y") + before[0].Number("height"));
  EXPECT_THAT(svg.Texts(), ::testing::IsSupersetOf({"none", "pregate", "tokens/s", "before"}));
}

TEST(BarChart, StacksSeriesBehindOneAnother) {
  BarChart chart = Bars();
  chart.is_stacked = true;
  const Svg svg = Draw(chart);
  const Svg::Element before = svg.OfClass("rect", "c0")[0];
  const Svg::Element after = svg.OfClass("rect", "c1")[0];
  EXPECT_NEAR(after.Number("x"), before.Number("x") + before.Number("width"), 0.11);
  EXPECT_EQ(after.Number("y"), before.Number("y"));
}

TEST(BarChart, ShowsRanges) {
  BarChart chart = Bars();
  chart.series.pop_back();
  chart.series[0].ranges = {{50, 150}, {300, 600}};
  const Svg svg = Draw(chart);
  const std::vector<Svg::Element> ranges = svg.OfClass("line", "range");
  ASSERT_EQ(ranges.size(), 2 * 3u) << "a line and its two ends each";
  const Svg::Element bar = svg.OfClass("rect", "c0")[0];
  const double end = bar.Number("x") + bar.Number("width");
  EXPECT_NEAR((ranges[0].Number("x1") + ranges[0].Number("x2")) / 2, end, 0.11);
  EXPECT_LE(ranges[3].Number("x2"), 640.0) << "the axis reaches as far as the ranges";
}

TEST(BarChart, MayBeOfNothingButZeros) {
  BarChart chart = Bars();
  chart.series[0].values = chart.series[1].values = {0, 0};
  EXPECT_EQ(Draw(chart).OfClass("rect", "c0")[0].Number("width"), 0);
}

TEST(BarChart, RefusesListsThatDoNotBelongTogether) {
  BarChart chart = Bars();
  chart.series[1].values.pop_back();
  EXPECT_EQ(Refusal(chart),
            "plot 'Speed': series 'after' has 1 values and 0 ranges for 2 categories");
  chart = Bars();
  chart.series[0].ranges = {{1, 2}};
  EXPECT_THAT(Refusal(chart), HasSubstr("has 2 values and 1 ranges"));
  chart.series[0].ranges = {{1, 2}, {1, std::numeric_limits<double>::infinity()}};
  EXPECT_THAT(Refusal(chart), HasSubstr("not finite"));
  chart.series[0].ranges = {{1, 2}, {1, 2}};
  chart.is_stacked = true;
  EXPECT_THAT(Refusal(chart), HasSubstr("2 ranges for 2 stacked categories"));
  chart = Bars();
  chart.categories.clear();
  EXPECT_EQ(Refusal(chart), "plot 'Speed': has no category");
}

TEST(HeatMap, ShadesCellsByTheirShareOfTheMost) {
  const Svg svg = Draw(Map());
  const std::vector<Svg::Element> shades = svg.OfClass("path", "heat");
  ASSERT_EQ(shades.size(), 3u);
  EXPECT_EQ(shades[0].attributes.at("d"), "M2 1h1v1h-1z") << "what is above 0 can be seen";
  EXPECT_EQ(shades[1].Number("fill-opacity"), 0.5);
  EXPECT_EQ(shades[1].attributes.at("d"), "M1 0h2v1h-2z") << "neighbours are drawn together";
  EXPECT_EQ(shades[2].Number("fill-opacity"), 1);
  EXPECT_EQ(shades[2].attributes.at("d"), "M0 1h1v1h-1z");
  EXPECT_THAT(svg.Texts(), ::testing::IsSupersetOf({"layer", "expert", "share", "2", "1", "0"}));
}

TEST(HeatMap, RefusesWhatIsNoRows) {
  HeatMap map = Map();
  map.values.pop_back();
  EXPECT_EQ(Refusal(map),
            "plot 'Routing': 5 values are no rows of 3 columns, at least one of each");
  map.values.clear();
  EXPECT_THAT(Refusal(map), HasSubstr("0 values"));
  map = Map();
  map.num_columns = 0;
  EXPECT_THAT(Refusal(map), HasSubstr("of 0 columns"));
  map = Map();
  map.values[2] = -0.5;
  EXPECT_THAT(Refusal(map), HasSubstr("the map has -0.5"));
}

TEST(Plot, EscapesAllTexts) {
  const std::string evil = "</svg>&\"\x01\xff<script>";
  LineChart lines = Lines();
  lines.title = lines.x.label = lines.y.label = lines.series[0].name = evil;
  BarChart bars = Bars();
  bars.title = bars.value.label = bars.categories[0] = bars.series[0].name = evil;
  HeatMap map = Map();
  map.title = map.row_label = map.column_label = map.value_label = evil;
  for (const Svg& svg : {Draw(lines), Draw(bars), Draw(map)}) {
    const std::vector<std::string> texts = svg.Texts();
    EXPECT_EQ(std::count(texts.begin(), texts.end(), "</svg>&\"\uFFFD\uFFFD<script>"), 4);
    for (const Svg::Element& element : svg.elements) EXPECT_NE(element.name, "script");
  }
}

TEST(Plot, NeedsNothingButTheFile) {
  for (const absl::StatusOr<std::string>& svg : {ToSvg(Lines()), ToSvg(Bars()), ToSvg(Map())}) {
    ASSERT_TRUE(svg.ok()) << svg.status();
    EXPECT_THAT(*svg, HasSubstr("prefers-color-scheme: dark"));
    EXPECT_THAT(*svg, Not(HasSubstr("href")));
    EXPECT_THAT(*svg, Not(HasSubstr("url(")));
    EXPECT_THAT(*svg, Not(HasSubstr("<script")));
  }
}

TEST(WritePlot, MakesTheFolder) {
  const TempFolder folder;
  ASSERT_TRUE(WritePlot(folder / "a/b", "hits", Lines()).ok());
  EXPECT_EQ(ReadFile(folder / "a/b/hits.svg"), *ToSvg(Lines()));
}

TEST(WritePlot, SaysWhyItCouldNot) {
  const TempFolder folder;
  const std::string file = folder.Write("file", "");
  EXPECT_THAT(std::string(WritePlot(file + "/plots", "hits", Lines()).message()),
              HasSubstr("cannot make the folder " + file + "/plots"));
  EXPECT_THAT(std::string(WritePlot(folder / "plots", "hits", LineChart()).message()),
              HasSubstr("has no series"));
  EXPECT_FALSE(std::filesystem::exists(folder / "plots"));
}

}  // namespace
}  // namespace pregate

// Real programs, run by tests.
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

#include "core/base/mutex.h"

namespace pregate {

struct ProgramResult {
  int exit_code = 0;  // 128 + the signal's number when a signal ended it
  std::string out;    // all of stdout
  std::string err;    // all of stderr
};

// A program of the build under test, e.g. BuiltProgram("pregate-model").
std::string BuiltProgram(const std::string& name);

// A running program; killed if it still runs when this is destroyed. A program that cannot be
// started aborts the test. Used by one thread.
class Program {
 public:
  // `argv[0]` is the program's path, or a name to look up in PATH.
  explicit Program(const std::vector<std::string>& argv);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Waits until `text` has appeared on stdout (stderr) and returns everything printed there so far;
  // returns as well when that is closed, so look for `text` in the result.
  std::string WaitForOut(const std::string& text) { return WaitFor(out_, text); }
  std::string WaitForErr(const std::string& text) { return WaitFor(err_, text); }

  // To its stdin. What a program does not want to read is dropped.
  void Write(const std::string& text);
  void CloseInput();

  void Signal(int signal);

  // Closes its stdin and waits for its end. Once.
  ProgramResult Wait();

 private:
  // One of the program's outputs and the thread that collects it.
  struct Output {
    Mutex mutex;
    CondVar arrived;
    std::string text ABSL_GUARDED_BY(mutex);
    bool closed ABSL_GUARDED_BY(mutex) = false;
    std::thread reader;
  };
  static void Collect(int descriptor, Output& output);
  static std::string WaitFor(Output& output, const std::string& text);
  static std::string Finish(Output& output);

  pid_t pid_ = -1;
  int input_ = -1;
  Output out_;
  Output err_;
};

// Runs a program to its end with `input` on its stdin.
ProgramResult RunProgram(const std::vector<std::string>& argv, const std::string& input = "");

}  // namespace pregate

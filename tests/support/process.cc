#include "tests/support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/check.h"

extern char** environ;

namespace pregate {
namespace {

struct Pipe {
  int read = -1;
  int write = -1;
};

Pipe MakePipe() {
  int ends[2];
  PREGATE_CHECK(pipe2(ends, O_CLOEXEC) == 0, strerror(errno));
  return {.read = ends[0], .write = ends[1]};
}

pid_t Spawn(const std::vector<std::string>& argv, int in, int out, int err) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);

  // The tests ignore SIGPIPE; the program is to see it as its users' shells have it.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);

  std::vector<char*> pointers;
  for (const std::string& argument : argv) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  pid_t pid = -1;
  const int error =
      posix_spawnp(&pid, pointers[0], &actions, &attributes, pointers.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  PREGATE_CHECK(error == 0, "cannot run ", argv[0], ": ", strerror(error));
  return pid;
}

}  // namespace

std::string BuiltProgram(const std::string& name) {
  return absl::StrCat(PREGATE_BINARY_DIR, "/bin/", name);
}

Program::Program(const std::vector<std::string>& argv) {
  signal(SIGPIPE, SIG_IGN);
  const Pipe in = MakePipe();
  const Pipe out = MakePipe();
  const Pipe err = MakePipe();
  pid_ = Spawn(argv, in.read, out.write, err.write);
  close(in.read);
  close(out.write);
  close(err.write);
  input_ = in.write;
  out_.reader = std::thread([this, out] { Collect(out.read, out_); });
  err_.reader = std::thread([this, err] { Collect(err.read, err_); });
}

Program::~Program() {
  if (pid_ < 0) return;
  Signal(SIGKILL);
  Wait();
}

void Program::Write(const std::string& text) {
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t count = write(input_, text.data() + written, text.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return;
    written += static_cast<size_t>(count);
  }
}

void Program::CloseInput() {
  if (input_ >= 0) close(input_);
  input_ = -1;
}

void Program::Signal(int signal) { kill(pid_, signal); }

ProgramResult Program::Wait() {
  CloseInput();
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return {.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
          .out = Finish(out_),
          .err = Finish(err_)};
}

void Program::Collect(int descriptor, Output& output) {
  char buffer[4096];
  for (;;) {
    const ssize_t count = read(descriptor, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    MutexLock lock(output.mutex);
    if (count > 0) {
      output.text.append(buffer, static_cast<size_t>(count));
    } else {
      output.closed = true;
    }
    output.arrived.NotifyAll();
    if (output.closed) break;
  }
  close(descriptor);
}

std::string Program::WaitFor(Output& output, const std::string& text) {
  MutexLock lock(output.mutex);
  while (!output.closed && output.text.find(text) == std::string::npos) {
    output.arrived.Wait(output.mutex);
  }
  return output.text;
}

std::string Program::Finish(Output& output) {
  output.reader.join();
  MutexLock lock(output.mutex);
  return output.text;
}

ProgramResult RunProgram(const std::vector<std::string>& argv, const std::string& input) {
  Program program(argv);
  program.Write(input);
  return program.Wait();
}

}  // namespace pregate

#include "client/interrupts.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "core/base/check.h"

namespace pregate {
namespace {

int BlockAndOpen() {
  sigset_t interrupt;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  PREGATE_CHECK(pthread_sigmask(SIG_BLOCK, &interrupt, nullptr) == 0);
  return signalfd(-1, &interrupt, SFD_CLOEXEC);
}

}  // namespace

Interrupts::Interrupts(std::function<void()> on_interrupt)
    : on_interrupt_(std::move(on_interrupt)),
      signals_(BlockAndOpen()),
      stop_(eventfd(0, EFD_CLOEXEC)),
      watcher_(std::in_place, "interrupts", [this] { Watch(); }) {}

Interrupts::~Interrupts() {
  const uint64_t one = 1;
  PREGATE_CHECK(write(stop_, &one, sizeof(one)) == sizeof(one));
  watcher_.reset();
  close(signals_);
  close(stop_);
}

void Interrupts::Watch() {
  pollfd files[] = {{.fd = stop_, .events = POLLIN, .revents = 0},
                    {.fd = signals_, .events = POLLIN, .revents = 0}};
  for (;;) {
    if (poll(files, 2, -1) < 0) {
      PREGATE_CHECK(errno == EINTR);
      continue;
    }
    if (files[0].revents != 0) return;
    signalfd_siginfo info;
    if (read(signals_, &info, sizeof(info)) == sizeof(info)) on_interrupt_();
  }
}

}  // namespace pregate

#include "server/admin_service.h"

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "pregate/v1/admin.pb.h"

namespace pregate {
namespace {

TEST(AdminServiceTest, KnowsItsOwnMachine) {
  for (const char* peer :
       {"ipv4:127.0.0.1:4711", "ipv4:127.8.9.1:1", "ipv6:%5B::1%5D:1", "ipv6:[::1]:1", "unix:/x"})
    EXPECT_TRUE(IsLoopbackPeer(peer)) << peer;
  for (const char* peer : {"",
                           "ipv4:192.0.2.1:4711",
                           "ipv4:12.7.0.1:1",
                           "ipv6:%5B::11%5D:1",
                           "ipv6:[::10]:1",
                           "ipv6:%5B2001:db8::1%5D:1",
                           "dns:127.0.0.1:1"})
    EXPECT_FALSE(IsLoopbackPeer(peer)) << peer;
}

TEST(AdminServiceTest, NamesEveryMethodOfTheProto) {
  const google::protobuf::ServiceDescriptor& service =
      *v1::GetLoadRequest::descriptor()->file()->FindServiceByName("AdminService");
  std::vector<std::string> methods;
  for (int i = 0; i < service.method_count(); ++i) methods.push_back(service.method(i)->name());
  EXPECT_EQ(AdminService::MethodNames(), methods);
}

}  // namespace
}  // namespace pregate

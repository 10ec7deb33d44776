#include "server/admin_service.h"

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "pregate/v1/admin.pb.h"

namespace pregate {
namespace {

TEST(AdminServiceTest, NamesEveryMethodOfTheProto) {
  const google::protobuf::ServiceDescriptor& service =
      *v1::GetLoadRequest::descriptor()->file()->FindServiceByName("AdminService");
  std::vector<std::string> methods;
  for (int i = 0; i < service.method_count(); ++i) methods.push_back(service.method(i)->name());
  EXPECT_EQ(AdminService::MethodNames(), methods);
}

}  // namespace
}  // namespace pregate

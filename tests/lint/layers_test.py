#!/usr/bin/env python3
"""Tests layers.py on planted trees: each forbidden include is found, each allowed one passes."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import layers  # noqa: E402


def check(path, include):
    """What layers.py says of one file with one include."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / path
        file.parent.mkdir(parents=True)
        file.write_text(f"// A file.\n{include}\n")
        return list(layers.violations(pathlib.Path(folder)))


class LayersTest(unittest.TestCase):
    def test_forbidden(self):
        for path, include in [
            ("core/expert/expert_cache.cc", "#include <grpcpp/grpcpp.h>"),
            ("core/expert/expert_cache.cc", '#include "grpc/grpc.h"'),
            ("core/engine/scheduler.h", '#include "pregate/v1/inference.pb.h"'),
            ("core/engine/scheduler.h", "#include <google/protobuf/message.h>"),
            ("core/base/stats.cc", "#include <prometheus/registry.h>"),
            ("core/base/log.h", '#include "core/engine/request.h"'),
            ("core/engine/engine_loop.cc", '#include "core/model/torch_runner.h"'),
            ("core/kernel/attention_cpu.cc", '#include "core/model/transformer.h"'),
            ("core/kernel/attention_cpu.cc", "#include <ATen/ATen.h>"),
            ("core/kernel/attention_cpu.cc", "#include <cuda_runtime.h>"),
            ("core/device/barracuda.cc", "#include <cuda_runtime.h>"),
            ("core/text/tokenizer.cc", "#include <nlohmann/json.hpp>"),
            ("core/pregate.cc", "#include <torch/torch.h>"),
            ("server/main.cc", '#include "core/engine/scheduler.h"'),
            ("server/main.cc", '#include "core/model/transformer.h"'),
            ("client/generate.cc", '#include "core/engine/request.h"'),
            ("client/generate.cc", '#include "server/config.h"'),
            ("core/novelty/thing.h", "#include <vector>"),
            ("core/base/log.cc", '#include "./log.h"'),
        ]:
            with self.subTest(path=path, include=include):
                found = check(path, include)
                self.assertEqual(len(found), 1, found)
                self.assertTrue(found[0].startswith(path + ":"), found)

    def test_allowed(self):
        for path, include in [
            ("core/expert/expert_cache.cc", '#include "core/kernel/codec.h"'),
            ("core/model/moe_layer.cc", "#include <ATen/ATen.h>"),
            ("core/model/model_config.cc", "#include <nlohmann/json.hpp>"),
            ("core/kernel/attention_cuda.cu", "#include <cuda_runtime.h>"),
            ("core/device/cuda_backend.cc", "#include <cuda.h>"),
            ("core/pregate.cc", '#include "core/engine/engine_loop.h"'),
            ("server/inference_service.cc", '#include "core/pregate.h"'),
            ("server/inference_service.cc", '#include "pregate/v1/inference.grpc.pb.h"'),
            ("server/convert.cc", '#include "core/engine/request.h"'),
            ("client/generate.cc", "#include <grpcpp/grpcpp.h>"),
            ("tests/unit/base/log_test.cc", "#include <grpcpp/grpcpp.h>"),
            ("core/base/log.cc", '#include "absl/strings/str_cat.h"'),
        ]:
            with self.subTest(path=path, include=include):
                self.assertEqual(check(path, include), [])


if __name__ == "__main__":
    unittest.main()

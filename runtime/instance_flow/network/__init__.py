# SPDX-License-Identifier: Apache-2.0
"""The ONNX model: its description, where and how it runs."""

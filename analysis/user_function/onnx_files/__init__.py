"""Functions from ONNX files."""

from analysis.user_function.onnx_files.network import OnnxNetwork, load_onnx

__all__ = ["OnnxNetwork", "load_onnx"]

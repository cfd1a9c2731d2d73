"""Networks written as checked ONNX files."""
